"""Eight requests with eight different prompts that arrive one by one, against llama-batched-bench.

    python tests/peers/arrivals.py MODEL [--threads N] [--pairs N] [--every STEPS]

Ours: another request is submitted after every STEPS batches, as to a server, and all tokens, of prompts and replies,
count from the first submission to the last token. Theirs: the same numbers of tokens without a shared prompt, prompts
first, then all replies side by side; nothing is drawn. The ratio should be 0.95.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

from common import Engine, Unending, batched_bench, opened, peer, report

from runtime.base.events import Event
from runtime.base.types import SamplingParams
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt

REQUESTS, PROMPT, TOKENS = 8, 256, 128


def ours(backend: Unending, chance: random.Random, every: int) -> float:
    """Tokens per second, of prompts and replies together. Every prompt is new, from its first token on."""
    engine, params = Engine(backend), SamplingParams(temperature=0, max_tokens=TOKENS)
    words = [token for token in range(backend.vocab_size) if backend.piece(token).strip()]
    prompts = [tuple(chance.sample(words, PROMPT)) for _ in range(REQUESTS)]
    assert len({prompt[0] for prompt in prompts}) == REQUESTS
    events: list[Event] = []
    started, steps = time.perf_counter(), 0
    while engine.busy or prompts:
        if prompts and steps % every == 0:
            engine.submit(Request(Prompt(prompts.pop()), params, sample=len(prompts)), events.append)
        engine.step()
        steps += 1
    return REQUESTS * (PROMPT + TOKENS) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--every", type=int, default=3)
    asked = parser.parse_args()
    bench, chance = peer("llama-batched-bench"), random.Random(14)
    backend, _ = opened(asked.model, threads=asked.threads, slots=REQUESTS, context=4096)

    def theirs() -> float:
        sizes = {"prompt": PROMPT, "tokens": TOKENS, "sequences": REQUESTS, "shared": False}
        return float(batched_bench(bench, asked.model, asked.threads, **sizes)[0]["speed"])

    ours(backend, chance, asked.every)
    pairs = [(ours(backend, chance, asked.every), theirs()) for _ in range(asked.pairs)]
    title = f"{REQUESTS} requests, one every {asked.every} steps, {asked.model.name}, {asked.threads} threads"
    report(title, [a for a, _ in pairs], [b for _, b in pairs], "t/s")
    backend.close()


main()
