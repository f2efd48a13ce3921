"""The real engine with the embedded model: what is asked of it, and ways to look into it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from runtime.base.run import Run, Stop
from runtime.base.types import ByteCount, Completion, SamplingParams
from runtime.engine.backend import Batch
from runtime.engine.engine import Engine
from runtime.engine.markers import ThinkingMarkers
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.llama import LlamaBackend, OpenOptions, limited_child, trial_process
from runtime.llama.bindings import native

ROOT = Path(__file__).resolve().parents[2]
LIMITS = limited_child.Limits(memory=ByteCount(1 << 30), seconds=60)
TAGS = ThinkingMarkers("<think>", "</think>")
SUM, WORD, DAY = "What is 347 + 586?", "Write 'igloo' backwards.", "What day is 3 days after Monday?"
GREEDY = SamplingParams(temperature=0, max_tokens=120)
THOUGHT_OF_SUM = (
    "Let me add column by column.\n347 is H3 T4 O7\n586 is H5 T8 O6\n"
    "O:7+6=13,carry1=>3\nT:4+8+1=13,carry1=>33\nH:3+5+1=9=>933"
)


def asked(question: str) -> str:
    """The prompt as nano's chat template writes it."""
    return f"<｜begin▁of▁sentence｜><｜User｜>{question}<｜Assistant｜><think>\n"


def request(backend: LlamaBackend, question: str, params: SamplingParams = GREEDY, sample: int = 0) -> Request:
    prompt = Prompt(tuple(backend.tokenize(asked(question))), starts_in_thought=True)
    return Request(prompt, params, TAGS, sample=sample)


def one(backend: LlamaBackend, question: str, params: SamplingParams = GREEDY) -> Completion:
    [completion] = Engine(backend).generate([request(backend, question, params)])
    return completion


def batch(tokens: list[int], position: int = 0, slot: int = 0, *, output: bool = True) -> Batch:
    made = Batch()
    made.add(tokens, position, slot, output=output)
    return made


def row_of(backend: LlamaBackend, row: int) -> np.ndarray:
    """The logits as the binding's own functions give them, copied."""
    pointer = native.llama_get_logits_ith(backend._context, row)
    return np.ctypeslib.as_array(pointer, (backend.vocab_size,)).astype(np.float64)


class StopWhenAsked(Stop):
    """Wants to stop as soon as somebody has looked `after` times: a stop in the middle, without a clock."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.looked = 0
        super().__init__()

    @property
    def wanted(self) -> bool:  # type: ignore[override]
        self.looked += 1
        return self.looked > self.after

    @wanted.setter
    def wanted(self, value: bool) -> None:
        if not value:
            self.looked = 0


def small(path: Path, context: int = 256, **options: object) -> LlamaBackend:
    return LlamaBackend(path, OpenOptions(context=context, **options))  # type: ignore[arg-type]


def try_in_child(
    path: Path, limits: limited_child.Limits = LIMITS, run: Run | None = None, *, mtp: bool = False
) -> None:
    """The engine's own word about a file, without the checks that come before."""
    trial_process.try_in_child(path, OpenOptions(context=trial_process.CONTEXT, mtp=mtp), limits, run)
