"""Decode speed of one sequence against llama-bench. Usage: decode.py MODEL [--threads N] [--pairs N]"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from common import Engine, llama_bench, opened, peer, report

from runtime.base.events import TextDrawn
from runtime.base.types import SamplingParams
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt

TOKENS = 128
SIZES = ("-p", "0", "-n", str(TOKENS))


def ours(engine: Engine, prompt: tuple[int, ...]) -> float:
    """Tokens per second of the path users take: Engine.stream, text included. Greedy: llama-bench draws nothing."""
    request = Request(Prompt(prompt), SamplingParams(temperature=0, max_tokens=TOKENS))
    stream = engine.stream([request])
    next(stream)  # the prompt is read
    started = time.perf_counter()
    texts = [event.text for event in stream if isinstance(event, TextDrawn)]
    assert texts
    return TOKENS / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=11)
    asked = parser.parse_args()
    bench = peer("llama-bench")
    backend, engine = opened(asked.model, threads=asked.threads)
    prompt = tuple(backend.tokenize("Tell me a story", add_bos=True))
    ours(engine, prompt)
    pairs = [(ours(engine, prompt), llama_bench(bench, asked.model, asked.threads, *SIZES)) for _ in range(asked.pairs)]
    report(f"decode, {asked.model.name}, {asked.threads} threads", [a for a, _ in pairs], [b for _, b in pairs], "t/s")
    backend.close()


main()
