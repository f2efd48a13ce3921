"""Two clients of mixed load on a `dsr serve` of its own, with the memory of server and engine process sampled.

    .venv/bin/python tests/peers/mixed_load.py [--hours 6] [--share 0.08]

Each client does one thing after another, by chance: a chat, a stream, a stream that it leaves, a vote, eight answers, a
text to continue, tokens to count, wrong requests, models and metrics. A tenth of the time warms up; then neither
process may grow by more than 16 MiB, taken as the medians of the first and the last fifth of the samples. `--share`
bounds the work: the clients pause while server and engine process have used more than this share of one core. Each
minute a line tells the memory, the cells of the cache, and how many requests are done.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import httpx2
import psutil

from tests.dsr.serve.live_server import Live, start_server, stop_server

MOST_GROWTH = 16 << 20
SAMPLES = 200
MINUTE = 60.0
CHAT = "/v1/chat/completions"


def _question() -> dict[str, object]:
    one, other = random.randrange(1000), random.randrange(1000)
    return {"messages": [{"role": "user", "content": f"What is {one} + {other}?"}], "max_tokens": 200}


def chat(client: httpx2.Client) -> int:
    return client.post(CHAT, json=_question()).status_code


def stream(client: httpx2.Client) -> int:
    with client.stream("POST", CHAT, json={**_question(), "stream": True}) as got:
        for _ in got.iter_lines():
            pass
        return got.status_code


def left(client: httpx2.Client) -> int:
    with client.stream("POST", CHAT, json={**_question(), "stream": True, "max_tokens": 900}) as got:
        for number, _ in enumerate(got.iter_lines()):
            if number > 20:
                break
        return got.status_code


def vote(client: httpx2.Client) -> int:
    return client.post(CHAT, json={**_question(), "dsr": {"vote": random.randrange(2, 6)}}).status_code


def eight(client: httpx2.Client) -> int:
    return client.post(CHAT, json={**_question(), "n": 8}).status_code


def text(client: httpx2.Client) -> int:
    return client.post(
        "/v1/completions", json={"prompt": "The sum " * random.randrange(1, 60), "max_tokens": 40}
    ).status_code


def anthropic(client: httpx2.Client) -> int:
    return client.post("/v1/messages", json={"model": "nano", **_question()}).status_code


def ollama(client: httpx2.Client) -> int:
    return client.post("/api/chat", json={"model": "nano", "messages": _question()["messages"]}).status_code


def wrong(client: httpx2.Client) -> int:
    return client.post(
        CHAT, json={"messages": [{"role": "nobody", "content": 3}], "n": random.randrange(99)}
    ).status_code


def look(client: httpx2.Client) -> int:
    return client.get(random.choice(("/v1/models", "/metrics", "/health", "/api/tags", "/api/ps"))).status_code


WORK: tuple[Callable[[httpx2.Client], int], ...] = (
    chat, stream, left, vote, eight, text, anthropic, ollama, wrong, look,
)  # fmt: skip


def processes(server: psutil.Process) -> list[psutil.Process]:
    return [server, *server.children()]


def cores_used(server: psutil.Process, begun: float) -> float:
    """The share of one core that server and engine process have used."""
    spent = 0.0
    for each in processes(server):
        with suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            spent += times.user + times.system
    return spent / max(1.0, time.monotonic() - begun)


def one_client(url: str, until: float, found: Counter[str], may_go: Callable[[], bool]) -> None:
    while time.monotonic() < until:
        with httpx2.Client(base_url=url, timeout=120, trust_env=False) as client:
            for _ in range(random.randrange(1, 20)):
                while not may_go() and time.monotonic() < until:
                    time.sleep(1)
                work = random.choice(WORK)
                try:
                    found[f"{work.__name__} {work(client)}"] += 1
                except httpx2.HTTPError as error:
                    found[f"{work.__name__} {type(error).__name__}"] += 1
                if time.monotonic() >= until:
                    return


def tell(live: Live, server: psutil.Process, begun: float, found: Counter[str]) -> None:
    """A line about this minute."""
    parts = [f"{(time.monotonic() - begun) / 60:5.0f} min", f"{sum(found.values()):6d} requests"]
    with suppress(psutil.NoSuchProcess, httpx2.HTTPError):
        own, *engines = processes(server)
        parts.append(f"server {own.memory_info().rss / 2**20:6.1f} MiB")
        parts.append(f"engine {sum(each.memory_info().rss for each in engines) / 2**20:6.1f} MiB")
        parts.append(f"{cores_used(server, begun):.3f} cores")
        lines = httpx2.get(f"{live.url}/metrics", timeout=30, trust_env=False).text.splitlines()
        wanted = ("dsr_model_held", "dsr_model_cached", "dsr_model_moved")
        parts += [
            f"{line.partition('{')[0].removeprefix('dsr_model_')} {float(line.split()[-1]):.0f}"
            for line in lines
            if line.startswith(wanted)
        ]
    print("  ".join(parts), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--share", type=float, default=None, help="of one core, at most; default: no limit")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    live = start_server("--ctx-size", "2048", log=folder / "log", home=folder / "home")
    found: Counter[str] = Counter()
    server, engine = [], []
    try:
        begun = time.monotonic()
        until = begun + options.hours * 3600
        process = psutil.Process(live.process.pid)

        def may_go() -> bool:
            return options.share is None or cores_used(process, begun) < options.share

        clients = [threading.Thread(target=one_client, args=(live.url, until, found, may_go)) for _ in range(2)]
        for each in clients:
            each.start()
        told = 0.0
        while any(each.is_alive() for each in clients):
            time.sleep(min(MINUTE, max(0.5, options.hours * 3600 / SAMPLES)))
            if time.monotonic() - told >= MINUTE - 1:
                told = time.monotonic()
                tell(live, process, begun, found)
            if time.monotonic() - begun < options.hours * 360:
                continue
            with suppress(psutil.NoSuchProcess):
                server.append(process.memory_info().rss)
                engine.append(sum(each.memory_info().rss for each in process.children()))
    finally:
        stop_server(live)
    for what, times in sorted(found.items()):
        print(f"{times:7d}  {what}")
    grown = 0
    for name, samples in (("server", server), ("engine process", engine)):
        fifth = max(1, len(samples) // 5)
        first, last = statistics.median(samples[:fifth]), statistics.median(samples[-fifth:])
        grown = max(grown, last - first)
        print(f"{name}: {first / 2**20:.1f} MiB at first, {last / 2**20:.1f} MiB at last, "
              f"{max(samples) / 2**20:.1f} MiB at most, {len(samples)} samples")  # fmt: skip
    tracebacks = (folder / "log").read_text().count("traceback")
    failures = sum(times for what, times in found.items() if what[-3:] not in ("200", "400"))
    print(f"{sum(found.values())} requests, {failures} unexpected ends, {tracebacks} tracebacks in {folder}/log")
    sys.exit(bool(failures or tracebacks or grown > MOST_GROWTH))


if __name__ == "__main__":
    main()
