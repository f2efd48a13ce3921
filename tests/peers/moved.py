"""Moved parts of a cached text against a full re-read: KL divergence, equal greedy text, tokens decoded.

    python tests/peers/moved.py MODEL.gguf [-c 4096] [--file README.md]

Two cases. "edit": one line of a long file changes, and the question stays. "forget": the oldest exchanges of a
conversation about the file's lines leave the prompt. Both are what `dsr chat --edit fast` and `--on-full forget` do.

The KL divergence is that of the next token in nats, from the text that was read again. For "forget" also from the whole
conversation: to the moved rest, and to the rest that was read again.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.base.events import SampleFinished
from runtime.base.types import SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.llama import LlamaBackend, OpenOptions

ROOT = Path(__file__).resolve().parents[2]
ANSWER = 32  # tokens of greedy text that are compared


@dataclass(frozen=True)
class Answer:
    logits: Any
    tokens: tuple[int, ...]
    decoded: int
    seconds: float


class Watched:
    """A backend whose first logits of an answer are kept."""

    def __init__(self, backend: LlamaBackend) -> None:
        self.backend = backend
        self.logits: Any = None
        sampler = backend.sampler

        def watching(params: SamplingParams, seed: int, prompt: Sequence[int] = ()) -> Any:
            draw, self.logits = sampler(params, seed, prompt), None

            def first(row: int, reply: Sequence[int] = ()) -> int:
                if self.logits is None:
                    self.logits = backend._logits(row).copy()
                return draw(row, reply)

            return first

        backend.sampler = watching  # type: ignore[method-assign]

    def answer(self, engine: Engine, tokens: Sequence[int], *, approximate: bool) -> Answer:
        started = time.perf_counter()
        request = Request(
            Prompt(tuple(tokens)), SamplingParams(temperature=0, max_tokens=ANSWER), approximate=approximate
        )
        [done] = [each.completion for each in engine.stream([request]) if isinstance(each, SampleFinished)]
        return Answer(self.logits, done.tokens, len(tokens) - done.cached, time.perf_counter() - started)


def divergence(exact: Any, moved: Any) -> float:
    """KL(exact || moved) in nats."""
    p, q = (logits.astype(np.float64) - logits.max() for logits in (exact, moved))
    p, q = (values - np.log(np.exp(values).sum()) for values in (p, q))
    return float((np.exp(p) * (p - q)).sum())


def compare(watched: Watched, before: Sequence[int], after: Sequence[int]) -> tuple[Answer, Answer, Answer]:
    """`after` read anew; `before`; `after` from the cache of `before`."""
    exact = watched.answer(Engine(watched.backend), after, approximate=False)
    engine = Engine(watched.backend)
    whole = watched.answer(engine, before, approximate=False)
    return exact, whole, watched.answer(engine, after, approximate=True)


def edits(lines: list[str], question: str, count: int) -> list[tuple[str, str]]:
    """The file with a question before and after one line of it changed."""
    pairs, pick = [], random.Random(1)
    for _ in range(count):
        at = pick.randrange(len(lines) // 10, len(lines) * 9 // 10)
        changed = [*lines[:at], "This line is new: the meeting is moved to Thursday at ten.", *lines[at + 1 :]]
        pairs.append(("\n".join(lines) + question, "\n".join(changed) + question))
    return pairs


def conversations(lines: list[str], count: int) -> list[tuple[str, str]]:
    """A conversation before and after its oldest exchanges went, each with another number of exchanges that stay."""
    text = [line for line in lines if len(line) > 40]
    said = [f"user: Explain this: {a}\nassistant: It says: {b}\n" for a, b in zip(text[::2], text[1::2], strict=False)]
    last = "user: Which of the sentences was the shortest?\nassistant:"
    whole = "Be brief.\n" + "".join(said)
    gone = [len(said) * (number + 1) // (count + 1) for number in range(count)]
    return [(whole + last, "Be brief.\n" + "".join(said[first:]) + last) for first in gone]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("-c", "--ctx-size", type=int, default=4096)
    parser.add_argument("-t", "--threads", type=int, default=1)
    parser.add_argument("--file", type=Path, default=ROOT / "README.md")
    parser.add_argument("--size", type=int, default=2400, help="tokens of the file")
    parser.add_argument("--cases", type=int, default=6)
    parser.add_argument("--only", choices=("edit", "forget"))
    given = parser.parse_args()
    options = OpenOptions(context=given.ctx_size, slots=1, threads=given.threads)
    with LlamaBackend(given.model, options) as backend:
        watched = Watched(backend)
        lines = given.file.read_text(encoding="utf-8").splitlines()
        while len(backend.tokenize("\n".join(lines))) > given.size:
            lines.pop()
        question = "\n\nuser: What does the text describe?\nassistant:"
        kinds = {"edit": edits(lines, question, given.cases), "forget": conversations(lines, given.cases)}
        for kind, pairs in kinds.items():
            if given.only not in (None, kind):
                continue
            rows = [compare(watched, *(backend.tokenize(text, add_bos=True) for text in pair)) for pair in pairs]
            for exact, whole, moved in rows:
                agree = exact.logits.argmax() == moved.logits.argmax()
                from_whole = [divergence(whole.logits, other.logits) for other in (moved, exact)]
                same = sum(a == b for a, b in zip(exact.tokens, moved.tokens, strict=False))
                print(
                    f"{kind}: KL {divergence(exact.logits, moved.logits):.4f}, most likely token "
                    f"{'the same' if agree else 'another'}, {same} of {ANSWER} "
                    f"greedy tokens equal, decoded {moved.decoded} instead of {exact.decoded} tokens in "
                    f"{moved.seconds:.2f} instead of {exact.seconds:.2f} s; from the whole: "
                    f"{from_whole[0]:.4f} moved, {from_whole[1]:.4f} read"
                )
            kls = [divergence(exact.logits, moved.logits) for exact, _, moved in rows]
            to_moved = [divergence(whole.logits, moved.logits) for _, whole, moved in rows]
            to_read = [divergence(whole.logits, exact.logits) for exact, whole, _ in rows]
            print(
                f"{kind}: mean KL {np.mean(kls):.4f}, largest {max(kls):.4f}, of {len(kls)}; from the whole "
                f"{np.mean(to_moved):.4f} to the moved rest, {np.mean(to_read):.4f} to the rest that was read again"
            )


if __name__ == "__main__":
    main()
