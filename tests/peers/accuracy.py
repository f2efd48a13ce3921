"""Greedy accuracy of the embedded model on its dev problems. Usage: accuracy.py [--no-think] [--slots N]"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path

from common import Engine

from dsr.loading.load import load
from dsr.loading.options import LoadOptions
from dsr.models import library
from runtime.base.types import Message, SamplingParams
from runtime.engine.prompt_options import PromptOptions

PROBLEMS = Path(__file__).resolve().parents[2] / "dsr" / "data" / "suites" / "nano.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-think", action="store_true")
    parser.add_argument("--slots", type=int, default=1)
    options = parser.parse_args()
    problems = [json.loads(line) for line in PROBLEMS.read_text(encoding="utf-8").splitlines()]
    with load(library.find("nano"), LoadOptions(slots=options.slots)) as model:
        params = SamplingParams(temperature=0, max_tokens=400)
        asked = PromptOptions(thinking=False if options.no_think else None)
        prompts = [[Message("user", problem["question"])] for problem in problems]
        requests = [replace(model.request(each, params, asked), sample=n) for n, each in enumerate(prompts)]
        answers = [completion.answer for completion in Engine(model.backend).generate(requests)]
    right = 0
    for problem, answer in zip(problems, answers, strict=True):
        boxed = re.findall(r"\\boxed\{([^}]*)\}", answer)
        right += bool(boxed) and boxed[-1].strip() == problem["answer"]
    print(f"{right} of {len(problems)} right: {100 * right / len(problems):.2f} % ({options.slots} slots)")


main()
