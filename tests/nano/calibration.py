"""Writes the problems of a built-in text: worked problems of nano's generator, none of which is a development problem.

.venv/bin/python tests/nano/calibration.py calibration > quant/measure/texts/calibration/problems.txt
.venv/bin/python tests/nano/calibration.py held_out > quant/measure/texts/held_out/problems.txt

Those held out are of the sixteenth of all questions that nano was not trained on, and neither the calibration text nor
the profile suite draws from it.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "training"))

import generator

PROBLEMS = Path(__file__).resolve().parents[2] / "dsr" / "data" / "suites" / "nano.jsonl"
LEVELS = 3
_TRIES = 200  # in vain, then the questions of a family and level are used up, as dev took all short logic


@dataclass(frozen=True)
class Kind:
    header: str
    seed: int
    rounds: int
    held_out: bool


KINDS = {
    "calibration": Kind(
        header="""\
Calibration text: reasoning problems in ten families with worked traces. Made for this project by the generator in
tests/nano/training/generator.py with seed 20241 (tests/nano/calibration.py); none of nano's development problems is in
it. Licence: that of the project.
""",
        seed=20241,
        rounds=24,
        held_out=False,
    ),
    "held_out": Kind(
        header="""\
Held-out text: reasoning problems in ten families with worked traces. Made for this project by the generator in
tests/nano/training/generator.py with seed 30405 (tests/nano/calibration.py); nano was not trained on them, and none is
in the calibration text or one of its development problems. Licence: that of the project.
""",
        seed=30405,
        rounds=15,
        held_out=True,
    ),
}


def fresh(rng: random.Random, task: str, number: int, held_out: bool, asked: set[str]) -> Mapping[str, str]:
    """A problem that is not in `asked`, harder than the level of the round where there is none."""
    for level in range(number % LEVELS + 1, LEVELS + 1):
        for _ in range(_TRIES):
            made: Mapping[str, str] = generator.problem(rng, task, level, held_out=held_out)
            if made["question"] not in asked:
                return made
    raise RuntimeError(f"no fresh question for {task}")


def main() -> None:
    kind = KINDS[sys.argv[1]]
    rng = random.Random(kind.seed)
    asked = {json.loads(line)["question"] for line in PROBLEMS.read_text(encoding="utf-8").splitlines()}
    print(kind.header, end="")
    for number in range(kind.rounds):
        # One of each family in turn, so that any beginning of the text has them all.
        for task in generator.TASKS:
            made = fresh(rng, task, number, kind.held_out, asked)
            asked.add(made["question"])
            print(f"====\n[user]\n{made['question']}\n[thinking]\n{made['think']}\n[assistant]\n{made['reply']}")


main()
