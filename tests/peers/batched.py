"""Eight sequences, one prompt, against llama-batched-bench.

    python tests/peers/batched.py MODEL [--threads N] [--pairs N] [--votes] [--processor]

`--votes`: drawn at temperature 0.6 with statistics gathered, as samples that vote are; else greedily. The peer draws
nothing in either case. `--processor`: tokens per second of processor time, all threads together, which other work on
the same machine disturbs less than tokens per second on the clock.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from common import Engine, llama_batched_bench, opened, peer, report

from runtime.base.types import SamplingParams
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt

SEQUENCES, PROMPT, TOKENS = 8, 256, 128


def ours(engine: Engine, prompt: tuple[int, ...], params: SamplingParams, *, processor: bool) -> float:
    """Tokens per second of all sequences together, after the shared prompt was read, as the peer counts S_TG."""
    now = time.process_time if processor else time.perf_counter
    stream = engine.stream([Request(Prompt(prompt), params, sample=n) for n in range(SEQUENCES)])
    next(stream)
    started = now()
    for _ in stream:
        pass
    return SEQUENCES * TOKENS / (now() - started)


def theirs(bench: str, model: Path, threads: int, *, processor: bool) -> float:
    if not processor:
        return llama_batched_bench(bench, model, threads, prompt=PROMPT, tokens=TOKENS, sequences=SEQUENCES)[0]
    # Loading and the prompt are the same in both runs.
    whole, start = (
        llama_batched_bench(bench, model, threads, prompt=PROMPT, tokens=tokens, sequences=SEQUENCES)[1]
        for tokens in (TOKENS + 1, 1)
    )
    return SEQUENCES * TOKENS / (whole - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--votes", action="store_true")
    parser.add_argument("--processor", action="store_true")
    asked = parser.parse_args()
    bench = peer("llama-batched-bench")
    backend, engine = opened(asked.model, threads=asked.threads, slots=SEQUENCES, context=4096)
    word = backend.tokenize(" word")
    prompt = tuple((word * PROMPT)[:PROMPT])
    greedy, votes = SamplingParams(temperature=0, max_tokens=TOKENS), SamplingParams(max_tokens=TOKENS, statistics=True)
    params = votes if asked.votes else greedy
    processor = asked.processor
    ours(engine, prompt, params, processor=processor)
    pairs = [
        (
            ours(engine, prompt, params, processor=processor),
            theirs(bench, asked.model, asked.threads, processor=processor),
        )
        for _ in range(asked.pairs)
    ]
    title = f"{SEQUENCES} {'votes' if asked.votes else 'sequences'}, {asked.model.name}, {asked.threads} threads"
    unit = "tokens per second of processor time" if processor else "t/s"
    report(title, [a for a, _ in pairs], [b for _, b in pairs], unit)
    backend.close()


main()
