"""Eight sequences, one prompt, against llama-batched-bench.

    python tests/peers/batched.py MODEL [--threads N] [--pairs N] [--votes]

`--votes`: drawn at temperature 0.6 with statistics gathered, as samples that vote are; else greedily. The peer draws
nothing in either case.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from common import Engine, opened, peer, report, run

from runtime.sequence import Request
from runtime.types import SamplingParams

SEQUENCES, PROMPT, TOKENS = 8, 256, 128


def ours(engine: Engine, prompt: tuple[int, ...], params: SamplingParams) -> float:
    """Tokens per second of all sequences together, after the shared prompt was read, as the peer counts S_TG."""
    stream = engine.stream([Request(prompt, params, sample=n) for n in range(SEQUENCES)])
    next(stream)
    started = time.perf_counter()
    for _ in stream:
        pass
    return SEQUENCES * TOKENS / (time.perf_counter() - started)


def theirs(bench: str, model: Path, threads: int) -> float:
    sizes = ["-npp", str(PROMPT), "-ntg", str(TOKENS), "-npl", str(SEQUENCES), "-pps", "-c", "4096"]
    command = [bench, "-m", str(model), *sizes, "-t", str(threads), "--output-format", "jsonl"]
    # Its log is written by a thread that the process does not wait for: now and then the row is lost.
    for _ in range(9):
        for line in run(command).splitlines():
            if line.startswith("{"):
                return float(json.loads(line)["speed_tg"])
    raise SystemExit("llama-batched-bench printed no row")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--votes", action="store_true")
    asked = parser.parse_args()
    bench = peer("llama-batched-bench")
    backend, engine = opened(asked.model, threads=asked.threads, slots=SEQUENCES, context=4096)
    word = backend.tokenize(" word")
    prompt = tuple((word * PROMPT)[:PROMPT])
    greedy, votes = SamplingParams(temperature=0, max_tokens=TOKENS), SamplingParams(max_tokens=TOKENS, statistics=True)
    params = votes if asked.votes else greedy
    ours(engine, prompt, params)
    pairs = [(ours(engine, prompt, params), theirs(bench, asked.model, asked.threads)) for _ in range(asked.pairs)]
    title = f"{SEQUENCES} {'votes' if asked.votes else 'sequences'}, {asked.model.name}, {asked.threads} threads"
    report(title, [a for a, _ in pairs], [b for _, b in pairs], "t/s")
    backend.close()


main()
