"""Hostile and odd hubs, each for a `dsr pull` of its own.

Usage: hostile_hub.py [--count N] [--seed N] [--jobs N] [--only K]

Each hub is made from a seed: its answers have wrong types, names, headers, lengths, codings, redirects or timings.
Every child is watched: memory, time, exit code, what it prints, and what it leaves on the disk. One in ten gets Ctrl-C
while it waits for the hub. Prints how they ended by exit code, and each that did not end as it must; exits with 1 if
there is one.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.dsr.hub.wire import wire  # noqa: E402

MOST_MEMORY = 500 << 20
MOST_SECONDS = 150
CODES = {0, 1, 2, 3, 4, 5, 6, 7, 130, -signal.SIGINT}  # the last when Ctrl-C comes while Python exits
COMMIT = "a" * 40
GGUF = (ROOT / "dsr/data/nano.gguf").read_bytes()
NAME = "m-Q4_K_M.gguf"
FILES = {NAME: GGUF, "config.json": b"{}"}
NAMES = [
    "", "..", "../x.gguf", "/etc/x.gguf", "a/../../x-Q4_K_M.gguf", "x\0.gguf", "x" * 10_000, "\ud800-Q4_K_M.gguf",
    "\x1b[2J-Q4_K_M.gguf", "con.gguf", "a//b.gguf", "x\u202e-Q4_K_M.gguf", "M-q4_k_m.GGUF", "C:\\x.gguf", "x\n.gguf",
    "m-Q4_K_M-00001-of-99999.gguf", "m-Q4_K_M-00000-of-00000.gguf", ".", "a" * 300 + ".gguf",
]  # fmt: skip
VALUES = [
    None, True, -1, 0, 3, 10**30, 1.5, float("inf"), float("nan"), "", "x", "\x1b[31m", "9" * 64, [], [[]], {},
    {"a": 1}, ["a"], "g" * 64, "A" * 64, "b" * 40, "\ud800", -(10**25),
]  # fmt: skip
WAITS = ["0", "1", "-1", "9" * 400, "soon", "1e9", "Fri, 31 Dec 9999 23:59:59 GMT"]
LIMITS = ['"api";r=0;t=1', '"api";r=0;t=' + "9" * 400, "r=0" * 5000, ";;;"]
TARGETS = [
    ".", "/loop", "http://[::1", "https://127.0.0.1:1/", "ftp://x", "//", "http://a b/", "%00", "javascript:1",
    "http://" + "x" * 70_000, "file:///etc/passwd", "\xff\xfe", "http://127.0.0.1:99999/",
]  # fmt: skip
COOKIES = ["a=b", "a=" + "b" * 60_000, "; ; expires=" + "1-" * 20_000, "a=b; Domain=127.0.0.1; Path=/"]
LINKS = ['<http://127.0.0.1:1/?cursor=1>; rel="next"', "<" * 50_000, '<>; rel="next"', "; rel=next" * 5000]
Pieces = Iterator[bytes]
Rng = random.Random


@dataclass
class Hub:
    """One hub: what it answers for the listing, for a file, and at the storage host."""

    rng: Rng
    what: list[str] = field(default_factory=list)
    storage: str = ""
    leaked: bool = False
    asked: bool = False
    honest_listing: bool = False

    def api(self) -> Pieces:
        if self.honest_listing:
            body = json.dumps({"id": "org/m", "sha": COMMIT, "siblings": self._siblings()}).encode()
            return self._plain(200, body, {})
        body = json.dumps(self._listing()).encode("utf-8", "surrogatepass")
        if self.rng.random() < 0.3:
            body = self._odd_json(body)
        return self._reply(200, body, {"Content-Type": "application/json"})

    def _siblings(self) -> list[Any]:
        return [
            {
                "rfilename": path,
                "size": len(data),
                "blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
                **({"lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}}
                   if path == NAME else {}),
            }
            for path, data in FILES.items()
        ]  # fmt: skip

    def _listing(self) -> Any:
        rng, siblings = self.rng, self._siblings()
        answer: Any = {"id": "org/m", "sha": COMMIT, "siblings": siblings, "gated": False, "private": False}
        for _ in range(rng.choice([0, 0, 1, 1, 2])):
            place = rng.choice([answer, siblings[0], siblings[0]["lfs"], siblings[1]])
            if isinstance(place, dict):
                key = rng.choice([*place])
                place[key] = rng.choice(NAMES if key == "rfilename" and rng.random() < 0.7 else VALUES)
                self.what.append(f"{key}={str(place[key])[:30]!r}")
            if not isinstance(siblings[0].get("lfs"), dict):
                break
        if rng.random() < 0.1:
            siblings += [{**siblings[0], "rfilename": name} for name in rng.sample(NAMES, 3)]
            self.what.append("more names")
        if rng.random() < 0.05:
            siblings += [
                {"rfilename": f"{n}.json", "size": 1, "blobId": "c" * 40} for n in range(rng.choice([1500, 150_000]))
            ]
            self.what.append("many files")
        return answer if rng.random() < 0.95 else rng.choice(VALUES)

    def _odd_json(self, body: bytes) -> bytes:
        odd = {
            "cut": lambda: body[: self.rng.randrange(len(body))],
            "html": lambda: b"<html>Log in to the hotel</html>",
            "deep": lambda: b"[" * 200_000,
            "digits": lambda: b'{"sha": ' + b"9" * 100_000 + b"}",
            "utf-16": lambda: body.decode("latin-1").encode("utf-16"),
            "noise": lambda: self.rng.randbytes(2000),
            "many values": lambda: b"[" + b"{}," * 3_000_000 + b"1]",
            "spaces": lambda: body + b" " * (40 << 20),
            "same key": lambda: b'{"sha":"x",' + body[1:],
        }
        name = self.rng.choice([*odd])
        self.what.append(name)
        return odd[name]()

    def resolve(self, path: str) -> Pieces:
        data, rng = FILES.get(path, GGUF), self.rng
        etag = hashlib.sha256(data).hexdigest() if rng.random() < 0.9 else "d" * 64
        if rng.random() < 0.7:
            where = {
                "Location": f"{self.storage}/{path}?Signature=1",
                "X-Linked-Etag": f'"{etag}"',
                "X-Repo-Commit": COMMIT,
            }
            return self._reply(302, b"Found", where)
        return self._reply(200, data, {"ETag": f'"{etag}"'})

    def stored(self, request: bytes) -> Pieces:
        path = request.split(b" ")[1].decode().split("?")[0].lstrip("/")
        data = FILES.get(path, GGUF)
        found = re.search(rb"(?i)\r\nrange: bytes=(\d+)-(\d*)", request)
        if not found or self.rng.random() < 0.1:
            return self._reply(200, data, {"ETag": '"x"'})
        start, end = int(found[1]), min(int(found[2] or len(data)) + 1, len(data))
        told = f"bytes {start}-{end - 1}/{len(data)}"
        if self.rng.random() < 0.1:
            told = self.rng.choice(
                [f"bytes {'9' * 5000}-1/1", "bytes */0", "bytes 0-0/1", "none", f"bytes {start}-{end}/*"]
            )
            self.what.append("Content-Range")
        return self._reply(206, data[start:end], {"Content-Range": told})

    def _reply(self, status: int, body: bytes, headers: dict[str, str]) -> Pieces:
        """One answer, most of the time with something odd about status, headers, framing or timing."""
        rng = self.rng
        if rng.random() < 0.5:
            return self._plain(status, body, headers)
        odd = rng.choice([*ODD])
        self.what.append(odd)
        return ODD[odd](self, status, body, headers)

    def _plain(self, status: int, body: bytes, headers: dict[str, str]) -> Pieces:
        told = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        yield f"HTTP/1.1 {status} X\r\n{told}Content-Length: {len(body)}\r\n\r\n".encode("latin-1")
        for at in range(0, len(body), 65536):
            yield body[at : at + 65536]


def _head(text: str, pieces: Iterator[bytes]) -> Pieces:
    yield text.encode("latin-1")
    yield from pieces


def _drip(piece: bytes, seconds: float) -> Pieces:
    while True:
        time.sleep(seconds)
        yield piece


def _with(name: str, *values: str) -> Callable[[Hub, int, bytes, dict[str, str]], Pieces]:
    return lambda hub, status, body, headers: hub._plain(status, body, {**headers, name: hub.rng.choice(values)})


def _status(*values: int) -> Callable[[Hub, int, bytes, dict[str, str]], Pieces]:
    codes = ["GatedRepo", "RepoNotFound", "EntryNotFound", "RevisionNotFound", "\x1b[2J", "x" * 5000]

    def answer(hub: Hub, status: int, body: bytes, headers: dict[str, str]) -> Pieces:
        told = (
            {"X-Error-Code": hub.rng.choice(codes), "X-Error-Message": "Access \x1b[31m"}
            if hub.rng.random() < 0.5
            else {}
        )
        return hub._plain(hub.rng.choice(values), body[:100], {k: v.replace("\x1b", "") for k, v in told.items()})

    return answer


def _bomb(hub: Hub, status: int, body: bytes, headers: dict[str, str]) -> Pieces:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join([packer.compress(bytes(1 << 20)) for _ in range(300)] + [packer.flush()])
    return hub._plain(status, packed, {**headers, "Content-Encoding": "gzip"})


def _cut(hub: Hub, status: int, body: bytes, headers: dict[str, str]) -> Pieces:
    whole = b"".join(hub._plain(status, body, headers))
    return iter([whole[: hub.rng.randrange(min(len(whole), hub.rng.choice([100, 100_000])))]])


def _stall(hub: Hub, status: int, body: bytes, headers: dict[str, str]) -> Pieces:
    yield from _cut(hub, status, body, headers)
    time.sleep(3)


def _chunks(hub: Hub, status: int, body: bytes, headers: dict[str, str]) -> Pieces:
    size = hub.rng.choice([b"%x", b"-%x", b"%x;" + b"e" * 50_000, b"0x%x", b"%x zz"])
    yield f"HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    for at in range(0, len(body), 20_000):
        piece = body[at : at + 20_000]
        yield size % len(piece) + b"\r\n" + piece + b"\r\n"
    yield b"0\r\n\r\n"


def _length(hub: Hub, status: int, body: bytes, headers: dict[str, str]) -> Pieces:
    length = hub.rng.choice(["-1", "x", "9" * 30, "1, 2", str(len(body) - 1), str(len(body) + 1)])
    return iter([f"HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n".encode(), body])


ODD: dict[str, Callable[[Hub, int, bytes, dict[str, str]], Pieces]] = {
    "refused": _status(400, 401, 403, 404, 410, 416, 451),
    "busy": _status(408, 425, 429, 500, 502, 503, 504),
    "odd status": _status(201, 204, 205, 206, 226, 300, 304, 305, 418, 599, 999),
    "no status": lambda hub, status, body, headers: iter([b"HTTP/1.1 OK\r\n\r\n" + body[:1000]]),
    "not HTTP": lambda hub, status, body, headers: iter([hub.rng.randbytes(5000)]),
    "HTTP/2": lambda hub, status, body, headers: iter([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100)]),
    "empty": lambda hub, status, body, headers: iter([b""]),
    "cut": _cut,
    "stall": _stall,
    "chunks": _chunks,
    "bomb": _bomb,
    "gzip": lambda hub, s, body, h: hub._plain(s, gzip.compress(body, 1), {**h, "Content-Encoding": "gzip"}),
    "coding": _with("Content-Encoding", "gzip", "gzip, gzip", "br", "zstd", "deflate", "identity, gzip", "x" * 3000),
    "Retry-After": lambda hub, s, b, h: hub._plain(429, b"", {"Retry-After": hub.rng.choice(WAITS)}),
    "RateLimit": lambda hub, s, b, h: hub._plain(429, b"", {"RateLimit": hub.rng.choice(LIMITS)}),
    "redirect": lambda hub, s, body, h: hub._plain(
        hub.rng.choice([301, 302, 303, 307, 308]), body[:1000], {"Location": hub.rng.choice([*TARGETS, hub.storage])}
    ),
    "endless redirect": lambda hub, s, body, h: _head("HTTP/1.1 302 X\r\nLocation: /x\r\n\r\n", repeat(b"x" * 65536)),
    "endless body": lambda hub, status, body, headers: _head(f"HTTP/1.1 {status} X\r\n\r\n", repeat(b" " * 65536)),
    "endless refusal": lambda hub, status, body, headers: _head("HTTP/1.1 404 X\r\n\r\n", repeat(b"x" * 65536)),
    "endless headers": lambda hub, status, body, headers: _head("HTTP/1.1 200 X\r\n", repeat(b"X-A: b\r\n" * 100)),
    "endless header": lambda hub, status, body, headers: _head("HTTP/1.1 200 X\r\nX-A: ", repeat(b"b" * 10_000)),
    "endless interim": lambda hub, status, body, headers: _head("", repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 50)),
    "some interim": lambda hub, s, body, h: _head("HTTP/1.1 103 X\r\nA: b\r\n\r\n" * 5, hub._plain(s, body, h)),
    "dripping body": lambda hub, s, b, h: _head(f"HTTP/1.1 {s} X\r\nContent-Length: 99999\r\n\r\n", _drip(b" ", 0.3)),
    "dripping headers": lambda hub, s, b, h: _head(f"HTTP/1.1 {s} X\r\nX-A: ", _drip(b"b", 0.3)),
    "dripping interim": lambda hub, s, b, h: _drip(b"HTTP/1.1 100 Continue\r\n\r\n", 0.3),
    "length": _length,
    "cookie": _with("Set-Cookie", *COOKIES),
    "Link": _with("Link", *LINKS),
    "ETag": _with("ETag", '"' + "d" * 40 + '"', '"' + "d" * 64 + '"', "", "x" * 50_000),
}  # fmt: skip


def answering(hub: Hub) -> Callable[[bytes], Pieces]:
    def answer(request: bytes) -> Pieces:
        hub.asked = True
        path = request.split(b" ")[1].decode("latin-1")
        return hub.api() if "/api/" in path else hub.resolve(path.rpartition("/")[2])

    return answer


def storing(hub: Hub) -> Callable[[bytes], Pieces]:
    def answer(request: bytes) -> Pieces:
        hub.leaked |= b"authorization" in request.lower() or b"hf_secret" in request
        return hub.stored(request)

    return answer


@dataclass
class Outcome:
    number: int
    what: str
    code: int
    problem: str
    said: str


def run(number: int, seed: int) -> Outcome:
    rng = random.Random(f"{seed} {number}")
    hub = Hub(rng, honest_listing=rng.random() < 0.5)
    command = rng.choice([["--dry-run"], ["--dry-run"], [], ["--include", "*.json"]])
    name = "org/m" if rng.random() < 0.4 else "org/m:Q4_K_M"
    stop_after = rng.uniform(0.1, 3) if rng.random() < 0.1 else None
    with tempfile.TemporaryDirectory() as folder, wire(answering(hub)) as address, wire(storing(hub)) as hub.storage:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "DSR_"))}
        variables = {"HF_ENDPOINT": address, "HF_HOME": f"{folder}/hf", "DSR_HOME": f"{folder}/dsr", "NO_PROXY": "*",
                     "HF_TOKEN": "hf_secret", "HF_HUB_DOWNLOAD_TIMEOUT": "1", "PYTHONPATH": str(ROOT)}  # fmt: skip
        started, peak = time.monotonic(), 0
        child = subprocess.Popen(
            [sys.executable, "-m", "dsr", "pull", name, *command],
            cwd=folder, env=kept | variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        stopped = asked = 0.0
        while child.poll() is None:
            time.sleep(0.05)
            seconds = time.monotonic() - started
            peak = max(peak, memory_of(child.pid))
            asked = asked or (seconds if hub.asked else 0.0)
            if stop_after and not stopped and asked and seconds > asked + stop_after:
                child.send_signal(signal.SIGINT)
                stopped = seconds
            if peak > MOST_MEMORY or seconds > MOST_SECONDS or (stopped and seconds - stopped > 5):
                child.kill()
                break
        out, err = child.communicate()
        took = time.monotonic() - started
        problem = judge(child.returncode, out, err, peak, took, Path(folder), command, hub)
    return Outcome(number, ", ".join(hub.what), child.returncode, problem, err.decode("utf-8", "replace")[-2000:])


def memory_of(pid: int) -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) << 10 if found else 0


def judge(code: int, out: bytes, err: bytes, peak: int, took: float, folder: Path, command: list[str], hub: Hub) -> str:
    """What is wrong with how a child ended; empty if nothing is."""
    said = err.decode("utf-8", "replace")
    printed = said + out.decode("utf-8", "replace")
    lines = [line for line in said.splitlines() if line.startswith("error:")]
    if code not in CODES:
        return f"exit code {code} after {took:.0f} s with {peak >> 20} MiB"
    if code == -signal.SIGINT and not out and "error:" not in said:
        return "ended by Ctrl-C without a word"
    if "Traceback" in printed and "in _shutdown" not in printed:  # Ctrl-C once more, while Python exits
        return "a traceback"
    if code not in (0, 130, -signal.SIGINT) and len(lines) != 1:
        return f"{len(lines)} lines of error"
    if any(len(line) > 600 for line in said.splitlines()):
        return "a line of error without end"
    if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t\r" for c in printed):
        return "a control character on the screen"
    if hub.leaked or "hf_secret" in printed:
        return "the token went elsewhere"
    outside = [path for path in folder.rglob("*") if path.relative_to(folder).parts[0] not in ("hf", "dsr")]
    if outside:
        return f"a file outside of the cache: {outside[0]}"
    contents = {hashlib.sha256(data).hexdigest() for data in FILES.values()}
    for path in folder.rglob("hf/hub/*/snapshots/**/*"):
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() not in contents:
            return f"wrong content: {path}"
    if (
        code == 0
        and "--dry-run" not in command
        and not any(p.is_file() for p in folder.rglob("hf/hub/*/snapshots/**/*"))
    ):
        return "success without a file"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--only", type=int, help="run this one alone, and show what it printed")
    asked = parser.parse_args()
    started = time.perf_counter()
    numbers = range(asked.count) if asked.only is None else [asked.only]
    with ThreadPoolExecutor(asked.jobs) as pool:
        outcomes = list(pool.map(lambda number: run(number, asked.seed), numbers))
    bad = [outcome for outcome in outcomes if outcome.problem]
    for outcome in outcomes if asked.only is not None else bad:
        print(
            f"{outcome.number} [{outcome.what}] exit {outcome.code}: {outcome.problem or 'as it must'}\n{outcome.said}"
        )
    tally = ", ".join(f"{count} with {code}" for code, count in sorted(Counter(o.code for o in outcomes).items()))
    seconds = time.perf_counter() - started
    print(f"tried {len(outcomes)} in {seconds:.0f} s, handled {len(outcomes) - len(bad)}, failed {len(bad)}: {tally}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
