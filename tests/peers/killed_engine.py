"""Kills the engine process of a `dsr serve` in the middle of answers, again and again.

    .venv/bin/python tests/peers/killed_engine.py [--kills 100]

At each kill four clients wait: OpenAI's stream and whole answer, Anthropic's stream, Ollama's stream. Each must get an
error in the form of its API, or its whole answer if that was complete. The next request must work, the server must stay
the same process, and no process may be left behind: no zombie, and none after the server itself is killed.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import httpx2
import psutil

from tests.dsr.serve.live_server import Live, start_server, stop_server

ASK = {"model": "nano", "messages": [{"role": "user", "content": "What is 347 + 586?"}]}
LONG = {"temperature": 1.5, "top_p": 1.0}


def openai_stream(client: httpx2.Client) -> str:
    data = []
    with client.stream("POST", "/v1/chat/completions", json={**ASK, **LONG, "stream": True, "max_tokens": 900}) as got:
        if got.status_code != 200:
            return _error(got.status_code, json.loads(got.read())["error"]["type"])
        data = [line[6:] for line in got.iter_lines() if line.startswith("data: ")]
    if data[-1] == "[DONE]":
        return "whole"
    return "error" if json.loads(data[-1])["error"]["type"] == "unavailable_error" else f"wrong: {data[-1]}"


def openai_whole(client: httpx2.Client) -> str:
    got = client.post("/v1/chat/completions", json={**ASK, **LONG, "max_tokens": 900})
    return "whole" if got.status_code == 200 else _error(got.status_code, got.json()["error"]["type"])


def anthropic_stream(client: httpx2.Client) -> str:
    body = {**ASK, "max_tokens": 900, "stream": True, "temperature": 1.0}
    with client.stream("POST", "/v1/messages", json=body) as got:
        if got.status_code != 200:
            return _error(got.status_code, json.loads(got.read())["error"]["type"])
        names = [line[7:] for line in got.iter_lines() if line.startswith("event: ")]
    return {"message_stop": "whole", "error": "error"}.get(names[-1], f"wrong: {names[-1]}")


def ollama_stream(client: httpx2.Client) -> str:
    body = {**ASK, "options": {"num_predict": 900, "temperature": 1.5}}
    with client.stream("POST", "/api/chat", json=body) as got:
        if got.status_code != 200:
            return _error(got.status_code, json.loads(got.read())["error"])
        lines = [json.loads(line) for line in got.iter_lines()]
    return "whole" if lines[-1].get("done") else "error" if "error" in lines[-1] else f"wrong: {lines[-1]}"


def _error(status: int, told: Any) -> str:
    return "error" if status in (500, 503, 529) and told else f"wrong: {status} {told}"


CLIENTS = (openai_stream, openai_whole, anthropic_stream, ollama_stream)


def engines(live: Live) -> list[psutil.Process]:
    return psutil.Process(live.process.pid).children(recursive=True)


def one_kill(live: Live, found: Counter[str]) -> None:
    """Four clients, a kill, and the next request."""

    def ask(one: Any) -> None:
        try:
            with live.client() as client:
                found[f"{one.__name__}: {one(client)}"] += 1
        except Exception as error:
            found[f"{one.__name__}: wrong: {error!r}"] += 1

    threads = [threading.Thread(target=ask, args=(one,)) for one in CLIENTS]
    for each in threads:
        each.start()
    time.sleep(random.uniform(0.0, 0.6))
    for each in engines(live):
        number = random.choice((signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM))
        found[f"killed by {number.name}"] += 1
        each.send_signal(number)
    for each in threads:
        each.join()
    with live.client() as client:
        got = client.post("/v1/chat/completions", json={**ASK, "max_tokens": 2})
    found["next request: works" if got.status_code == 200 else f"next request: wrong: {got.status_code}"] += 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    live = start_server("--ctx-size", "1024", log=folder / "log", home=folder / "home")
    found: Counter[str] = Counter()
    try:
        server = psutil.Process(live.process.pid)
        for number in range(options.kills):
            one_kill(live, found)
            if number == 0:
                before = server.memory_info().rss, server.num_fds()
        after = server.memory_info().rss, server.num_fds()
        zombies = [each for each in server.children(recursive=True) if each.status() == psutil.STATUS_ZOMBIE]
        print(f"server: {before[0] / 2**20:.1f} MiB and {before[1]} files after the first kill, "
              f"{after[0] / 2**20:.1f} MiB and {after[1]} after the last; zombies {len(zombies)}")  # fmt: skip
        found["zombies: wrong"] += len(zombies)
        left = engines(live)
        live.process.kill()
        live.process.wait()
        _, alive = psutil.wait_procs(left, timeout=15)
        found["orphans: wrong"] += len(alive)
        print(f"the server was killed: {len(left)} engine processes, {len(alive)} of them left after 15 s")
    finally:
        stop_server(live)
    for what, times in sorted((+found).items()):
        print(f"{times:5d}  {what}")
    sys.exit(any("wrong" in what for what in +found))


if __name__ == "__main__":
    main()
