"""What `rounding.py` measures: models, the text of their second moments, and what is wanted of their files."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "nano/training"))

import generator

from quant.measure import texts
from quant.measure.texts import Conversation
from runtime.base.types import Message
from tests.peers.fresh_weights import write_fresh

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ("q2_k", "q3_k_m", "q4_k_m")
_ROUNDS = 220  # of one problem of each family: some 200,000 tokens
_LEVELS = 3


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to quantize.

    `file` is in the folder of models, an F16 file or, for `fresh`, one from which F16 weights are made that lie on no
    grid. `wanted` and `wanted_of_size` are the largest shares of llama.cpp's KL divergence, by recipe; without the
    second no file of a size is made. `also`: recipes that llama-quantize lacks. `own`: second moments from nano's own
    problems instead of the built-in text. `judged` names the texts to judge by. `asked`: the recipe at whose size the
    questions of `suite` are asked, with `options` of dsr bench reason.
    """

    name: str
    title: str
    file: str
    wanted: Mapping[str, float] = field(default_factory=dict)
    wanted_of_size: Mapping[str, float] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    fresh: bool = True
    own: bool = False
    judged: tuple[str, ...] = ("manual", "conversations")
    asked: str = ""
    suite: str = ""
    options: tuple[str, ...] = ()

    def source(self, models: Path, work: Path) -> Path:
        """The F16 file, which is made if need be."""
        if not self.fresh:
            return models / self.file
        made = work / f"{self.name}-f16.gguf"
        if not made.exists():
            write_fresh(models / self.file, made, 0)
        return made


def _shares(*values: float) -> Mapping[str, float]:
    return dict(zip(RECIPES, values, strict=True))


_SHARES_OF_NANO, _SHARES_OF_SIZE_OF_NANO = _shares(0.52, 0.52, 0.52), _shares(0.05, 0.05, 0.09)
_SHARES, _SHARES_OF_SIZE = _shares(0.60, 0.60, 0.65), _shares(0.35, 0.40, 0.60)

SUBJECTS = {
    each.name: each
    for each in (
        Subject(
            "nano",
            "nano",
            "nano-f16.gguf",
            _SHARES_OF_NANO,
            _SHARES_OF_SIZE_OF_NANO,
            also=("ud-q2_k_xl", "ud-iq2_xxs", "ud-iq1_s"),
            fresh=False,
            judged=("problems",),
            asked="q2_k",
            suite="nano",
        ),
        Subject(
            "nano-own",
            "nano, own",
            "nano-f16.gguf",
            _SHARES_OF_NANO,
            fresh=False,
            own=True,
            judged=("problems",),
        ),
        Subject("smollm2", "SmolLM2-135M", "smollm2-135m-q4_1.gguf", _SHARES, _SHARES_OF_SIZE),
        Subject("gemma3", "Gemma-3-270M", "gemma3-270m-q4_k_m.gguf", _SHARES, _SHARES_OF_SIZE),
        Subject(
            "qwen2.5",
            "Qwen2.5-Coder-0.5B",
            "qwen2.5-coder-0.5b-q4_k_m.gguf",
            _SHARES,
            _SHARES_OF_SIZE,
            asked="q3_k_m",
            suite="basics",
            options=("--max-tokens", "40"),
        ),
    )
}


class NanoProblems(texts.BuiltIn):
    """Worked problems of nano's families. None is of the sixteenth of all questions that files are judged on."""

    __slots__ = ()

    def conversations(self) -> tuple[Conversation, ...]:
        rng = random.Random(1)
        made = [
            generator.problem(rng, task, number % _LEVELS + 1, held_out=False)
            for number in range(_ROUNDS)
            for task in generator.TASKS
        ]
        return tuple(Conversation((Message("user", each["question"]),), each["think"], each["reply"]) for each in made)


OWN = NanoProblems("problems of nano's generator", "")
