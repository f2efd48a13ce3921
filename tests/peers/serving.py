"""`dsr serve` against llama-server, on the same file and threads, in one interleaved run.

    python tests/peers/serving.py MODEL [--threads N] [--rounds N] [--only TEST,...] [--vote-tokens N]

- one: one stream. Tokens per second between the first and the last token, and seconds to the first one.
- eight: eight clients with different prompts. Tokens per second of all, from the first request to the last token.
- shared: eight clients whose prompts share their first 1,000 tokens; the cache of both is empty at the start.
- vote: a vote of 8 over HTTP against the same question in an open session of `dsr chat --vote 8`: by nano, and by MODEL
  with answers of at most N tokens each. Both count the whole time of a question, from the question to the verdict; the
  seconds are told, and compared are tokens per second of all samples.
- idle: resident memory of a server without models.

Each server answers one round after the other, in changing order. The client is this script: it only counts bytes.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common import peer, report

ROOT = Path(__file__).resolve().parents[2]
CLIENTS, TOKENS = 8, 128
QUESTION = "What is 347 + 586?"
WORDS = ("river", "mountain", "copper", "lantern", "winter", "garden", "engine", "letter", "bridge", "harbour", "music")


@dataclass(frozen=True, slots=True)
class Server:
    name: str
    process: subprocess.Popen[bytes]
    port: int


@dataclass(frozen=True, slots=True)
class Streamed:
    """Seconds from the request to the first and to the last token, and the tokens that were drawn."""

    first: float
    last: float
    tokens: int


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def started(name: str, command: list[str], port: int) -> Server:
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if asked(port, "GET", "/health")[0] == 200:
                return Server(name, process, port)
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"{name} does not answer")


def asked(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request(method, path, None if body is None else json.dumps(body))
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, json.loads(data) if data[:1] in b"{[" else data


def streamed(server: Server, question: str, tokens: int) -> Streamed:
    body = json.dumps(
        {"messages": [{"role": "user", "content": question}], "stream": True, "max_tokens": tokens, "temperature": 0,
         "stream_options": {"include_usage": True}}
    )  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    began = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    first = last = 0.0
    drawn = 0
    for line in answer:
        if line.startswith(b"data: {"):
            if b'"usage":{' in line:
                drawn = json.loads(line[6:])["usage"]["completion_tokens"]
            if b'"content":"' in line and b'"content":""' not in line:
                last = time.perf_counter() - began
                first = first or last
    connection.close()
    return Streamed(first, last, drawn)


def together(server: Server, questions: list[str], tokens: int) -> float:
    """Tokens per second of all clients."""
    found: list[Streamed] = []
    threads = [
        threading.Thread(target=lambda text=text: found.append(streamed(server, text, tokens))) for text in questions
    ]
    began = time.perf_counter()
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return sum(each.tokens for each in found) / (time.perf_counter() - began)


def story(chance: random.Random) -> str:
    return f"Write a very long story about a {' and a '.join(chance.sample(WORDS, 3))}. Begin at once."


def shared(chance: random.Random) -> list[str]:
    text = " ".join(chance.choice(WORDS) for _ in range(800))
    return [f"{text}\n\nWrite a very long story with these words. Begin with {WORDS[number]}." for number in range(8)]


@dataclass(frozen=True, slots=True)
class Voted:
    """The whole time of a question, and the tokens of its eight samples."""

    seconds: float
    tokens: int

    @property
    def speed(self) -> float:
        return self.tokens / self.seconds


def vote_over_http(port: int, model: str, seed: int, most: int) -> Voted:
    body = {"model": model, "seed": seed, "temperature": 1, "max_tokens": most, "dsr": {"vote": 8},
            "messages": [{"role": "user", "content": QUESTION}]}  # fmt: skip
    began = time.perf_counter()
    _, answer = asked(port, "POST", "/v1/chat/completions", body)
    return Voted(time.perf_counter() - began, int(answer["dsr"]["verdict"]["tokens"]["spent"]))


class ChatSession:
    """`dsr chat --vote 8` in a process of its own that stays open: each question is a conversation of its own."""

    def __init__(self, model: str, threads: int, most: int) -> None:
        command = [sys.executable, __file__, "--as-chat", model, "--threads", str(threads), "--vote-tokens", str(most)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def vote(self, seed: int) -> Voted:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{seed}\n")
        self._process.stdin.flush()
        return Voted(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def as_chat(name: str, threads: int, most: int) -> None:
    """Be that process: each line of stdin is a seed, answered with a `Voted` in JSON."""
    from dsr.chat.conversation import Conversation
    from dsr.chat.options import ChatOptions, strategy_of
    from dsr.loading.load import load
    from dsr.loading.options import LoadOptions
    from dsr.models import library
    from dsr.models.sampling import SamplingRequest
    from runtime.base.run import Run

    sampling = SamplingRequest(temperature=1, max_tokens=most)
    options = ChatOptions(sampling, strategy=strategy_of(8, None, ()))
    with load(library.find(name), LoadOptions().for_samples(8, most), Run(threads=threads)) as loaded:
        params = sampling.applied_to(loaded.model.sampling.params)
        conversation = Conversation(loaded, params, options)
        for line in sys.stdin:
            conversation.restart()
            conversation.params = replace(params, seed=int(line))
            began = time.perf_counter()
            for _ in conversation.ask(QUESTION):
                pass
            seconds = time.perf_counter() - began
            assert conversation.last is not None and conversation.last.verdict is not None
            print(json.dumps({"seconds": seconds, "tokens": conversation.last.verdict.spent}), flush=True)


def compare_votes(ours: Server, model: str, shown: str, threads: int, rounds: int, most: int) -> float:
    """The median ratio of the speeds."""
    chat = ChatSession(model, threads, most)
    try:
        vote_over_http(ours.port, shown, 0, most)
        chat.vote(0)
        pairs = []
        for seed in range(1, rounds + 1):
            if seed % 2:
                pairs.append((vote_over_http(ours.port, shown, seed, most), chat.vote(seed)))
            else:
                inside = chat.vote(seed)
                pairs.append((vote_over_http(ours.port, shown, seed, most), inside))
    finally:
        chat.close()
    what = f"vote of 8 by {shown}, answers of at most {most} tokens"
    for number, (http_, inside) in enumerate(pairs, 1):
        print(f"  question {number}: over HTTP {http_.seconds:.2f} s for {http_.tokens} tokens, "
              f"in a session {inside.seconds:.2f} s for {inside.tokens}")  # fmt: skip
    report(what, [each.speed for each, _ in pairs], [each.speed for _, each in pairs], "t/s", "dsr chat")
    return statistics.median(one.speed / other.speed for one, other in pairs)


def resident(process: subprocess.Popen[bytes]) -> float:
    """MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--as-chat", metavar="MODEL", help=argparse.SUPPRESS)
    parser.add_argument("--vote-tokens", type=int, default=128, help="of each answer of a vote by MODEL, at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="idle,one,eight,shared,vote")
    given = parser.parse_args()
    if given.as_chat is not None:
        as_chat(given.as_chat, given.threads, given.vote_tokens)
        return
    if given.model is None:
        parser.error("MODEL is missing")
    wanted = given.only.split(",")
    chance = random.Random(16)
    threads = ["-t", str(given.threads)]
    model = str(given.model.resolve())
    ports = free_port(), free_port()
    ours = started(
        "dsr", [sys.executable, "-m", "dsr", "serve", model, "--port", str(ports[0]), *threads],
        ports[0],
    )  # fmt: skip
    try:
        if "idle" in wanted:
            print(f"resident memory of the server without models: {resident(ours.process):.1f} MiB")
        theirs = started(
            "llama-server",
            [peer("llama-server"), "-m", model, "--port", str(ports[1]), "-np", str(CLIENTS), "-c", "32768", "-kvu",
             "--no-webui", *threads],
            ports[1],
        )  # fmt: skip
        try:
            compare(ours, theirs, wanted, given.rounds, chance, model, given.threads, given.vote_tokens)
        finally:
            theirs.process.terminate()
            theirs.process.wait()
    finally:
        ours.process.terminate()
        ours.process.wait()


def compare(
    ours: Server,
    theirs: Server,
    wanted: list[str],
    rounds: int,
    chance: random.Random,
    file: str,
    threads: int,
    vote_tokens: int,
) -> None:
    what = Path(file).name
    for server in (ours, theirs):
        streamed(server, "Say hello.", 8)
    results: dict[str, list[tuple[float, float]]] = {}
    for number in range(rounds):
        order = (ours, theirs) if number % 2 else (theirs, ours)
        one, many, same = story(chance), [story(chance) for _ in range(CLIENTS)], shared(chance)
        found: dict[str, dict[str, float]] = {}
        for server in order:
            if "one" in wanted:
                each = streamed(server, one, TOKENS)
                found.setdefault("decode of one stream, t/s", {})[server.name] = (each.tokens - 1) / (
                    each.last - each.first
                )
                found.setdefault("first token of one stream, s", {})[server.name] = each.first
            if "eight" in wanted:
                found.setdefault("eight clients, t/s", {})[server.name] = together(server, many, TOKENS)
            if "shared" in wanted:
                found.setdefault("eight clients, one prompt, t/s", {})[server.name] = together(server, same, TOKENS)
        for test, values in found.items():
            results.setdefault(test, []).append((values["dsr"], values["llama-server"]))
    for test, pairs in results.items():
        report(
            f"{test}, {what}, {threads} threads", [a for a, _ in pairs], [b for _, b in pairs], test.rpartition(", ")[2]
        )
    medians = {test: statistics.median(a / b for a, b in pairs) for test, pairs in results.items()}
    if "vote" in wanted:
        for model, most in (("nano", 400), (file, vote_tokens)):
            name = Path(model).name
            medians[f"vote by {name}"] = compare_votes(ours, model, name, threads, rounds, most)
    print("medians:", {test: round(median, 3) for test, median in medians.items()})


main()
