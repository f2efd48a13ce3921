"""Decode speed with n-gram drafts against without. Usage: speculation.py MODEL [--threads N] [--pairs N]

Both sides of a pair draw the same text with the same seed, each with an engine of its own, as one `dsr chat` does. The
first prompt asks for a text to be repeated, the second for a story (temperature 0.8, another seed in each pair).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from common import report

from runtime.base.events import SampleFinished, TextDrawn
from runtime.base.types import SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.sequence import Request
from runtime.engine.speculation import LONGEST_DRAFT, NgramDrafter
from runtime.engine.template import Prompt
from runtime.llama import LlamaBackend, OpenOptions

TOKENS = 256
TEXT = (
    "The old lighthouse stands on a rock at the end of the harbour. Every evening at seven the keeper climbs its one "
    "hundred and twelve steps, winds the clockwork and lights the lamp. Ships that come from the north see it first as "
    "a pale star above the water. When fog rolls in, he rings a bronze bell by hand, once every minute, until the "
    "morning.\n\nOn Sundays the keeper rows to the village for bread, lamp oil and letters. The baker's daughter "
    "always asks him whether he is lonely out there. He laughs and says that nobody is lonely who talks with ships. "
    "Then he buys two loaves, one for himself and one for the gulls, and rows home before the tide turns."
)
PROMPTS = {
    "repetition": (f"Repeat the following text word for word, and nothing else.\n\n{TEXT}", 0.0),
    "no repetition": ("Write a long story about a dragon who lived in the mountains.", 0.8),
}


def speed(
    backend: LlamaBackend, request: Request, drafter: NgramDrafter | None, now: Callable[[], float]
) -> tuple[float, tuple[int, ...]]:
    """Tokens per second after the prompt, and the tokens."""
    engine = Engine(backend, drafter=drafter, now=now)
    started: float | None = None
    tokens: tuple[int, ...] = ()
    for event in engine.stream([request]):
        if isinstance(event, SampleFinished):
            tokens = event.completion.tokens
        elif started is None or not isinstance(event, TextDrawn):
            started = now()
    assert started is not None
    seconds = now() - started
    if drafts := engine.take_drafts():
        off = f", off {drafts.off}" if drafts.off else ""
        print(f"  {drafts.accepted} of {drafts.drafted} accepted, {drafts.tokens_per_step:.2f} tokens per step{off}")
    return len(tokens) / seconds, tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--cpu-time", action="store_true", help="count processor time: for a busy machine, one thread")
    asked = parser.parse_args()
    now = time.process_time if asked.cpu_time else time.perf_counter
    options = OpenOptions(context=2048, threads=asked.threads, drafted=LONGEST_DRAFT)
    with LlamaBackend(asked.model, options) as backend:
        for name, (question, temperature) in PROMPTS.items():
            text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
            prompt = tuple(backend.tokenize(text))
            pairs: list[tuple[float, float]] = []
            for pair in range(asked.pairs):
                request = Request(Prompt(prompt), SamplingParams(temperature=temperature, seed=pair, max_tokens=TOKENS))
                sides = {}
                for drafted in (False, True) if pair % 2 else (True, False):
                    sides[drafted] = speed(backend, request, NgramDrafter() if drafted else None, now)
                same = "the same text" if sides[True][1] == sides[False][1] else "another text"
                print(f"  {len(sides[True][1])} tokens, {same}")
                pairs.append((sides[True][0], sides[False][0]))
            what = f"{name}, {asked.model.name}, {asked.threads} threads"
            report(what, [a for a, _ in pairs], [b for _, b in pairs], "t/s", peer="without")


main()
