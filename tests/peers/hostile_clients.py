"""1,000 hostile requests at once to a `dsr serve` of its own: does it live, with the right statuses, and forget them?

    .venv/bin/python tests/peers/hostile_clients.py [--count 1000] [--rounds 3]

Each kind is malformed, oversized, slow, half of a request, or a wish that no server should grant. Its answers must have
the statuses beside it, or 503 for what is beyond the requests and connections that the server takes at once: with a
--count up to 256 none is. After each round the server must answer a plain request, hold no cell, have no more open
files, and no more memory than after the first round, within 8 MiB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import psutil

from tests.dsr.serve.live_server import Live, start_server, stop_server

KEY = "correct-horse"
CHAT = "/v1/chat/completions"
HELLO = {"model": "nano", "messages": [{"role": "user", "content": "2+2?"}], "max_tokens": 2}
HELD = 'dsr_model_held{model="nano"}'
# What is freed goes back to the system at once, so that what is left is what is held (mallopt(3)).
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
GROWTH = 8 << 20
PATIENCE = 60.0
NONE = 0  # the server closed without an answer


def request(
    body: bytes = b"", *, path: str = CHAT, method: str = "POST", headers: dict[str, str] | None = None, **dropped: bool
) -> bytes:
    fields = {"Host": "127.0.0.1", "Authorization": f"Bearer {KEY}", "Connection": "close"}
    fields |= {"Content-Length": str(len(body))} if body else {}
    fields |= headers or {}
    lines = [
        f"{method} {path} HTTP/1.1",
        *(f"{name}: {value}" for name, value in fields.items() if name not in dropped),
    ]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


def asking(**fields: Any) -> bytes:
    return request(json.dumps({**HELLO, **fields}).encode())


async def statuses(reader: asyncio.StreamReader) -> list[int]:
    """The statuses of all answers until the connection ends."""
    data = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            while piece := await reader.read(1 << 16):
                data += piece
                del data[: max(0, len(data) - (1 << 20))]
    except ConnectionError:
        pass
    except TimeoutError:
        return [-1]
    return [int(part[:3]) for part in bytes(data).split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()] or [NONE]


Sender = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[list[int]]]


def sends(data: bytes | Callable[[], bytes]) -> Sender:
    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[int]:
        answer = asyncio.create_task(statuses(reader))  # reading at once: an answer may come before all is sent
        writer.write(data() if callable(data) else data)
        with suppress(ConnectionError):
            await writer.drain()
        return await answer

    return send


def slowly(data: bytes, pause: float) -> Sender:
    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[int]:
        answer = asyncio.create_task(statuses(reader))
        for byte in data:
            if answer.done():
                break
            try:
                writer.write(bytes([byte]))
                await writer.drain()
            except ConnectionError:
                break
            await asyncio.wait((answer,), timeout=pause)
        return await answer

    return send


async def half_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[int]:
    writer.write(asking(max_tokens=300))
    with suppress(OSError):
        writer.write_eof()
    return await statuses(reader)


async def gone_in_the_middle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[int]:
    writer.write(asking(max_tokens=900, stream=True))
    await reader.read(200)
    writer.transport.abort()
    return [NONE]


async def never_reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[int]:
    writer.write(asking(max_tokens=900, stream=True, n=8))
    await asyncio.sleep(random.uniform(1, 8))
    writer.transport.abort()
    return [NONE]


async def endless_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[int]:
    writer.write(request(headers={"Transfer-Encoding": "chunked"}))
    answer = asyncio.create_task(statuses(reader))
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    try:
        for _ in range(2000):
            if answer.done():
                break
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        pass
    return await answer


@dataclass(frozen=True)
class Kind:
    name: str
    send: Sender
    allowed: frozenset[int]


def kind(name: str, send: Sender | bytes | Callable[[], bytes], *allowed: int) -> Kind:
    made = send if asyncio.iscoroutinefunction(send) else sends(send)  # type: ignore[arg-type]
    return Kind(name, made, frozenset(allowed))  # type: ignore[arg-type]


def raw(body: str | bytes, **options: Any) -> bytes:
    return request(body if isinstance(body, bytes) else body.encode(), **options)


BUSY = (200, 429)
KINDS = [
    kind("a body of 1 GiB is announced", request(headers={"Content-Length": str(1 << 30)}), 413),
    kind("endless chunks", endless_chunks, 413),
    kind("no JSON", raw("{'a': 1"), 400),
    kind("an empty body", request(headers={"Content-Length": "0"}), 400),
    kind("a list", raw("[1]"), 400),
    kind("100,000 brackets", raw("[" * 100_000), 400),
    kind("deep JSON", raw('{"a":' * 5000 + "1" + "}" * 5000), 400),
    kind("a number of 100,000 digits", raw(f'{{"max_tokens": {"9" * 100_000}}}'), 400),
    kind("NaN", raw('{"model": "nano", "temperature": NaN}'), 400),
    kind("half a surrogate", raw('{"model": "nano", "messages": [{"role": "user", "content": "\\ud800"}]}'), 400),
    kind("no UTF-8", raw(b'{"model": "\xff\xfe"}'), 400),
    kind("a million objects", raw("[" + "{}," * 1_000_000 + "{}]"), 400),
    kind("300,000 messages", asking(messages=[{"role": "user", "content": ""}] * 300_000), 400, 413),
    kind("100,000 stops", asking(stop=["x" * 20] * 100_000), 400),
    kind("a prompt of 7 MB", asking(messages=[{"role": "user", "content": "word " * 1_400_000}]), 400, 429),
    kind("max_tokens below 0", asking(max_tokens=-5), 400),
    kind("max_tokens 1e9", asking(max_tokens=10**9, stop=["2"]), 400, *BUSY),
    kind("a seed of 200 bits", asking(seed=2**200), 400, *BUSY),
    kind("a temperature of 1e308", asking(temperature=1e308), 400),
    kind("a billion answers", asking(n=10**9), 400),
    kind("255 votes", asking(dsr={"vote": 10**6}), 400),
    kind("an unknown strategy", asking(dsr={"strategy": "__import__"}), 400),
    kind("a file as schema", asking(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {
        "$ref": "file:///etc/passwd"}}}), 400),
    kind("../../etc/passwd", asking(model="../../etc/passwd"), 404, 400),
    kind("/etc/passwd", asking(model="/etc/passwd"), 404, 400),
    kind("a NUL in a name", asking(model="nano\0.gguf"), 404, 400),
    kind("C:\\nano.gguf", asking(model="C:\\nano.gguf"), 404, 400),
    kind("a path in the path", request(path="/v1/models/..%2f..%2fetc%2fpasswd", method="GET"), 404, 400),
    kind("a path to the page", request(path="/page/..%2f..%2fserve.py", method="GET"), 404, 400),
    kind("no key", request(b"{}", Authorization=True), 401),
    kind("a key in unicode", raw("{}", headers={"Authorization": "Bearer k\u00e9y\u202e\U0001f511"}), 401),
    kind("a key of 10 kB", raw("{}", headers={"x-api-key": "k" * 10_000, "Authorization": "Bearer"}), 401),
    kind("an odd scheme", raw("{}", headers={"Authorization": "Basic Y29ycmVjdDpob3JzZQ=="}), 401),
    kind("another Host", raw("{}", headers={"Host": "evil.example"}), 403),
    kind("no Host", request(b"{}", Host=True), 400),
    kind("two Hosts", raw("{}", headers={"host": "evil.example"}), 400),
    kind("a Host with a path", raw("{}", headers={"Host": "127.0.0.1/@evil.example"}), 400),
    kind("a page of elsewhere", raw("{}", headers={"Origin": "https://evil.example"}), 403),
    kind("the origin null", raw("{}", headers={"Origin": "null"}), 403),
    kind("another content type", raw(json.dumps(HELLO), headers={"Content-Type": "text/plain"}), *BUSY, 415),
    kind("both lengths", raw("0\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n", headers={"Transfer-Encoding": "chunked"}), 400),
    kind("two lengths", raw("{}", headers={"content-length": "1000"}), 400),
    kind("a wrong size of a chunk", request(headers={"Transfer-Encoding": "chunked"}) + b"zz\r\n{}\r\n0\r\n\r\n", 400),
    kind("an obsolete fold", request(b"{}", headers={"X-A": "1\r\n\t2"}), 400, 401, 422),
    kind("20 requests at once", request(method="GET", path="/v1/models", Connection=True) * 20, 200),
    kind("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), 400, NONE),
    kind("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, NONE),
    kind("binary noise", lambda: random.randbytes(2000), 400, 408, NONE),
    kind("1 MiB of headers", request(headers={"X-A": "a" * (1 << 20)}), 431, NONE),
    kind("a line of 300 kB", request(path="/" + "a" * 300_000, method="GET"), 431, 404, NONE),
    kind("10,000 headers", request(headers={f"X-{n}": "1" for n in range(10_000)}), 431, 400, NONE),
    kind("an unknown path", request(path="/etc/passwd", method="GET"), 404),
    kind("a wrong method", request(method="DELETE"), 405),
    kind("a method of its own", request(method="PROPFIND"), 405, 400),
    kind("slow headers", slowly(request(b"{}"), 0.5), 408),
    kind("empty lines", slowly(b"\r\n" * 100, 0.5), 408),
    kind("nothing at all", sends(b""), 408),
    kind("a body that does not come", request(headers={"Content-Length": "500"}), 408),
    kind("an expected body", request(headers={"Content-Length": "500", "Expect": "100-continue"}), 408, 100),
    kind("half closed", half_closed, NONE, 200, 429),
    kind("gone in the middle", gone_in_the_middle, NONE),
    kind("never reads", never_reads, NONE),
]  # fmt: skip


async def attack(port: int, kind: Kind, found: Counter[tuple[str, int]]) -> None:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        found[kind.name, 503] += 1
        return
    try:
        for status in await kind.send(reader, writer):
            found[kind.name, status] += 1
    except OSError:
        found[kind.name, NONE] += 1
    finally:
        writer.transport.abort()


async def one_round(port: int, count: int) -> Counter[tuple[str, int]]:
    found: Counter[tuple[str, int]] = Counter()
    chosen = [KINDS[number % len(KINDS)] for number in range(count)]
    random.shuffle(chosen)
    await asyncio.gather(*(attack(port, each, found) for each in chosen))
    return found


def numbers(live: Live) -> dict[str, float]:
    with live.client(headers={"Authorization": f"Bearer {KEY}"}) as client:
        lines = client.get("/metrics").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def answers(live: Live) -> bool:
    with live.client(headers={"Authorization": f"Bearer {KEY}"}) as client:
        answer = client.post(CHAT, json=HELLO)
    return answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] == 2


async def settled(live: Live) -> dict[str, float]:
    """The numbers once nothing is drawn any more."""
    for _ in range(60):
        now = await asyncio.to_thread(numbers, live)
        if not now[HELD] and now["dsr_requests_in_flight"] == 1:
            break
        await asyncio.sleep(0.5)
    return now


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    live = start_server("--ctx-size", "1024", log=folder / "log", home=folder / "home", DSR_API_KEY=KEY, **MALLOC)
    wrong = 0
    try:
        assert answers(live)
        process = psutil.Process(live.process.pid)
        before: dict[str, float] = {}
        for number in range(options.rounds):
            found = asyncio.run(one_round(live.port, options.count))
            for (name, status), times in sorted(found.items()):
                allowed = {*next(each.allowed for each in KINDS if each.name == name)}
                allowed |= {503} if options.count > 256 else set()
                if status not in allowed:
                    wrong += times
                    print(f"  wrong: {name}: {status}, {times} times, not one of {sorted(allowed)}")
            told = Counter[int]()
            for (_, status), times in found.items():
                told[status] += times
            now = asyncio.run(settled(live))
            children = process.children()
            now |= {"rss": process.memory_info().rss, "engine": sum(each.memory_info().rss for each in children)}
            held, deaths = now[HELD], now["dsr_engine_deaths_total"]
            print(
                f"round {number + 1}: {sum(told.values())} ends {dict(sorted(told.items()))}; server "
                f"{now['rss'] / 2**20:.1f} MiB, engine {now['engine'] / 2**20:.1f} MiB, "
                f"files {now['process_open_fds']:g}, cells held {held:g}, deaths {deaths:g}, processes {len(children)}"
            )
            if not answers(live):
                wrong += 1
                print("  wrong: a plain request is not answered")
            if held or deaths or (before and now["rss"] - before["rss"] > GROWTH):
                wrong += 1
                print("  wrong: memory grew, cells are held, or an engine process died")
            before = before or now
    finally:
        stop_server(live)
    log = (folder / "log").read_text()
    print(
        f"{wrong} wrong; the log has {log.count('traceback')} tracebacks, and the key {log.count(KEY)} times: {folder}"
    )
    sys.exit(bool(wrong or "traceback" in log or KEY in log))


if __name__ == "__main__":
    main()
