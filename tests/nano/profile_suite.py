"""Writes dsr/data/suites/nano-profile.jsonl: questions to profile the embedded model's experts with, by task.

.venv/bin/python tests/nano/profile_suite.py > dsr/data/suites/nano-profile.jsonl

The wordings are those of training; none of the questions is a development problem.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "training"))

import generator

SEED = 4242
EACH = 40
PROBLEMS = Path(__file__).resolve().parents[2] / "dsr" / "data" / "suites" / "nano.jsonl"


def main() -> None:
    rng = random.Random(SEED)
    asked = {json.loads(line)["question"] for line in PROBLEMS.read_text(encoding="utf-8").splitlines()}
    for number in range(EACH):
        for task in generator.TASKS:
            level = number % 3 + 1
            made = generator.problem(rng, task, level)
            while made["question"] in asked:
                made = generator.problem(rng, task, level)
            asked.add(made["question"])
            known = {key: made[key] for key in ("task", "level", "question", "answer")}
            print(json.dumps({"id": f"{SEED}-{task}-{number:02d}"} | known, ensure_ascii=False))


main()
