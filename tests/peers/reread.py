"""Tokens that are read again where everything was read before, and whether reading them less changes an answer.

    python tests/peers/reread.py [MODEL...] [--kind KIND]... [--slots N] [--threads N] [--turns N] [--questions N]
                                  [--lines N] [--template FILE]

Without a model: the embedded one, and a tiny random model of every kind of memory (`tests/hybrids.py`).

For each model: the turns of a conversation, the same conversation behind a restart (another backend that takes the
state of the first), and further questions about one file, each in a conversation of its own. "new" counts the tokens
of a prompt with which no earlier prompt or reply begins; "read" those that the backend decoded for it, counted there;
they may be 64 more than the new ones. Each answer is compared with a full reading by an engine that has seen nothing:
the greedy tokens, and the largest difference of any logit. "split" is the same difference between two full readings
whose batches have other sizes: the rounding. No logit may differ by more than twice the largest split of the model.
Tokens may part only where the two best logits are closer together than that. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from common import Engine

from dsr.loading.load import LoadedModel, load
from dsr.loading.options import LoadOptions
from dsr.models import library
from runtime.base.common_prefix import common_length
from runtime.base.run import Run
from runtime.base.types import Completion, Message, SamplingParams
from runtime.engine.backend import Batch
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt, file_layout
from runtime.llama import LlamaBackend
from tests import hybrids

SPARE = 64  # tokens that may be read beside the new ones
ANSWER, THOUGHT = 24, 8
TIMES_THE_SPLIT = 2.0
NANO = Path(__file__).resolve().parents[2] / "dsr" / "data" / "nano.gguf"

SYSTEM = "You answer in one short sentence. You do not repeat the question, and you never guess."
NAMES = ("Ann", "Bob", "Cid", "Dan", "Eve", "Fay", "Hal", "Ian", "Jon", "Kim")
QUESTIONS = (
    "How many boxes does Bob buy?", "Who walks most?", "What does Eve buy on day 5?", "Is Jon older than Kim?",
    "Write the word boxes backwards.", "What is 12 + 30?", "On which day does Fay walk?", "Name two of the people.",
)  # fmt: skip


def about_file(lines: int, question: str) -> Message:
    days = enumerate((NAMES * lines)[:lines], 1)
    text = "".join(f"Day {day}: {name} walks {day + 2} steps and buys {2 * day} boxes.\n" for day, name in days)
    return Message("user", file_layout("days.txt", text, question))


class Watched:
    """Counts the tokens that one backend decodes, and keeps the logits of each row that is drawn from."""

    def __init__(self, loaded: LoadedModel, sizes: int | None = None) -> None:
        """`sizes` cuts the batches of prompts into smaller ones."""
        assert isinstance(loaded.backend, LlamaBackend)
        self.loaded, self.backend = loaded, loaded.backend
        self.decoded = 0
        self.rows: list[np.ndarray] = []
        self._decode = loaded.backend.decode
        self._sizes = sizes
        loaded.backend.decode = self.decode  # type: ignore[method-assign]

    def decode(self, batch: Batch) -> None:
        for part in self._parts(batch):
            self._decode(part)
            self.decoded += len(part.tokens)
            self.rows += [np.array(self.backend._logits(row)) for row in part.outputs]

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        size = self._sizes or len(batch.tokens)
        for at in range(0, len(batch.tokens), size):
            cut = slice(at, at + size)
            outputs = [row - at for row in batch.outputs if at <= row < at + size]
            yield Batch(batch.tokens[cut], batch.positions[cut], batch.slots[cut], outputs)

    def close(self) -> None:
        self.backend.decode = self._decode  # type: ignore[method-assign]


@dataclass(frozen=True, slots=True)
class Answer:
    completion: Completion
    read: int
    rows: list[np.ndarray] = field(repr=False)

    def difference(self, other: Answer) -> tuple[float, int | None]:
        """The largest difference of a logit while the tokens are the same, and the number of the first other token.

        Tokens are the largest logits of their rows. Those that close a thought by force have no row.
        """
        pairs = [*zip(self.rows, other.rows, strict=False)]
        parted = next((at for at, (one, two) in enumerate(pairs) if one.argmax() != two.argmax()), None)
        compared = pairs[: None if parted is None else parted + 1]
        return max(float(abs(one - two).max()) for one, two in compared), parted


def ask(watched: Watched, engine: Engine, messages: Sequence[Message]) -> tuple[Prompt, Answer]:
    loaded = watched.loaded
    thought = THOUGHT if loaded.markers else None
    params = SamplingParams(temperature=0, max_tokens=ANSWER, think_budget=thought)
    request = replace(loaded.request(messages, params), keep_reply=True)  # as a conversation asks
    watched.decoded, watched.rows = 0, []
    [completion] = engine.generate([request])
    # Every token that was drawn but the last one was decoded, too.
    drawn = len(completion.tokens) - (0 if completion.finish_reason == "stop" else 1)
    return request.prompt, Answer(completion, watched.decoded - drawn, watched.rows)


class Case:
    """One model: what it was asked, and how that compares."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failed: list[str] = []
        self._splits: list[float] = []
        self._differences: list[tuple[str, float, float]] = []  # of any logit, and of the two best where tokens part

    def check(self, what: str, prompt: Prompt, seen: list[tuple[int, ...]], answer: Answer, alone: Watched) -> None:
        """`seen` are the tokens that the engine had read or drawn. `alone` reads everything again."""
        new = len(prompt.tokens) - max((common_length(prompt.tokens, text) for text in seen), default=0)
        full, split = (read_alone(alone, prompt, sizes) for sizes in (None, 7))
        difference, parted = answer.difference(full)
        self._splits.append(split.difference(full)[0])
        best = 0.0 if parted is None else float(np.diff(np.sort(full.rows[parted])[-2:])[0])
        self._differences.append((what, difference, best))
        over = answer.read - max(new, 1)
        text = "equal" if parted is None else f"parts at {parted} by {best:.3f}"
        print(
            f"  {what:23} prompt {len(prompt.tokens):5}  new {new:5}  read {answer.read:5}  "
            f"logits {difference:8.5f}  split {self._splits[-1]:8.5f}  {text}"
        )
        if over > SPARE:
            self.miss(f"{what}: {over} tokens more than the new ones")

    def miss(self, problem: str) -> None:
        self.failed.append(f"{self.name}, {problem}")
        print(f"  MISSED {problem}")

    def judge(self) -> None:
        rounding = TIMES_THE_SPLIT * max(self._splits) + 1e-4
        for what, difference, best in self._differences:
            if difference > rounding:
                self.miss(f"{what}: a logit differs by {difference:.5f}, rounding is {rounding:.5f}")
            if best > rounding:
                self.miss(f"{what}: another text, where the best logits are {best:.5f} apart")


def read_alone(alone: Watched, prompt: Prompt, sizes: int | None) -> Answer:
    alone._sizes = sizes
    thought = THOUGHT if alone.loaded.markers else None
    params = SamplingParams(temperature=0, max_tokens=ANSWER, think_budget=thought)
    alone.decoded, alone.rows = 0, []
    [completion] = Engine(alone.backend).generate([Request(prompt, params, alone.loaded.markers)])
    return Answer(completion, alone.decoded, alone.rows)


def examine(path: Path, asked: argparse.Namespace) -> list[str]:
    case = Case(path.name)
    template = asked.template.read_text(encoding="utf-8") if asked.template else None
    options = LoadOptions(context=asked.ctx_size, slots=asked.slots, template=template)
    print(f"{path.name}, {asked.slots} slots, {asked.threads} threads")

    @contextmanager
    def opened() -> Iterator[Watched]:
        with load(library.find(str(path)), options, Run(threads=asked.threads)) as loaded:
            yield Watched(loaded)

    with opened() as alone:
        with opened() as first:
            engine, seen = Engine(first.backend), []
            talk = [Message("system", SYSTEM)]
            for turn in range(1, asked.turns + 1):
                question = QUESTIONS[turn - 1]
                talk.append(about_file(asked.lines, question) if turn == 1 else Message("user", question))
                prompt, answer = ask(first, engine, talk)
                case.check(f"turn {turn}", prompt, seen, answer, alone)
                seen.append((*prompt.tokens, *answer.completion.tokens))
                talk.append(Message("assistant", answer.completion.answer or "No."))
            talk.append(Message("user", QUESTIONS[asked.turns]))
            kept = engine.export(first.loaded.prompt(talk).tokens)
        with opened() as second:
            engine = Engine(second.backend)
            if kept is None or not engine.adopt(kept):
                case.miss("the state of the conversation was not taken")
            prompt, answer = ask(second, engine, talk)
            case.check("turn after a restart", prompt, seen, answer, alone)
        with opened() as third:
            engine, seen = Engine(third.backend), []
            for number, question in enumerate(QUESTIONS[: asked.questions], 1):
                talk = [Message("system", SYSTEM), about_file(asked.lines, question)]
                prompt, answer = ask(third, engine, talk)
                case.check(f"question {number} about a file", prompt, seen, answer, alone)
                seen.append((*prompt.tokens, *answer.completion.tokens))
    case.judge()
    return case.failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--kind", action="append", choices=tuple(hybrids.KINDS), default=[])
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ctx-size", type=int, default=2048)
    parser.add_argument("--template", type=Path, help="for a model that has none")
    parser.add_argument("--lines", type=int, default=12, help="of the file; a window must be shorter")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--questions", type=int, default=8)
    asked = parser.parse_args()
    if not 1 <= asked.turns < len(QUESTIONS) or not 1 <= asked.questions <= len(QUESTIONS):
        parser.error(f"at most {len(QUESTIONS) - 1} turns and {len(QUESTIONS)} questions")
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DSR_HOME"] = folder
        kinds = asked.kind if asked.kind or asked.models else tuple(hybrids.KINDS)
        models = [*asked.models] if asked.models or asked.kind else [NANO]
        models += [hybrids.make(kind, Path(folder) / f"{kind}.gguf", NANO) for kind in kinds]
        for model in models:
            failed += examine(model, asked)
    print("\n".join(["every target is reached"] if not failed else ["missed:", *failed]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
