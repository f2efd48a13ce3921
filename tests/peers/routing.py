"""Two models side by side: accuracy and speed of routing (`dsr chat --route`) and of exact drafts.

    python tests/peers/routing.py LARGE SMALL [--suite NAME] [--limit N] [--routes 0.45,0.2,0.05] [--threads N]

Each question is answered greedily by the large model, the small one, the large one with exact drafts, and both with
each threshold, one after another, so that a busy machine slows all of them. Prints Markdown.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import perf_counter

from dsr.loading.load import LoadedModel, load
from dsr.loading.options import LoadOptions
from dsr.models import library
from dsr.suites import suites
from runtime.base.run import Run
from runtime.base.types import Message, SamplingParams
from runtime.engine.engine import Engine
from runtime.strategies.verdict import Sample

CONTEXT = 2048


@dataclass
class Side:
    """One way to answer, and what came of it."""

    name: str
    model: LoadedModel
    engine: Engine
    right: list[bool] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0
    large: int = 0
    small: int = 0

    def answer(self, question: str, problem: suites.SuiteProblem, limit: int) -> None:
        params = SamplingParams(temperature=0, max_tokens=limit)
        request = self.model.request([Message("user", question)], params)
        started = perf_counter()
        [completion] = self.engine.generate([request])
        self.seconds += perf_counter() - started
        self.tokens += len(completion.tokens)
        self.right.append(problem.is_solved_by(Sample.of(completion).answer))
        if self.model.routes is not None:
            drawn = self.model.routes()
            self.large, self.small = self.large + drawn.large, self.small + drawn.small

    def row(self, against: Side) -> str:
        share = f"{self.large / (self.large + self.small):.1%}" if self.large + self.small else "-"
        gained = sum(mine and not theirs for mine, theirs in zip(self.right, against.right, strict=True))
        lost = sum(theirs and not mine for mine, theirs in zip(self.right, against.right, strict=True))
        accuracy, speed = sum(self.right) / len(self.right), self.tokens / self.seconds
        return (
            f"| {self.name} | {accuracy:.1%} | +{gained} -{lost} | {self.tokens / len(self.right):.0f} | {share} "
            f"| {speed:.1f} | {speed / (against.tokens / against.seconds):.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("large")
    parser.add_argument("small")
    parser.add_argument("--suite", default="nano")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--routes", default="0.45,0.2,0.05")
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    large, small = library.find(asked.large), library.find(asked.small)
    routes = [float(each) for each in asked.routes.split(",")]
    ways = {
        "large alone": (large, LoadOptions(context=CONTEXT)),
        "small alone": (small, LoadOptions(context=CONTEXT)),
        "exact drafts": (large, LoadOptions(context=CONTEXT, draft=asked.small)),
        **{f"route {each:g}": (large, LoadOptions(context=CONTEXT, draft=asked.small, route=each)) for each in routes},
    }
    suite = suites.find(asked.suite)
    with ExitStack() as stack:
        sides = []
        for name, (model, options) in ways.items():
            loaded = stack.enter_context(load(model, options, Run(threads=asked.threads)))
            sides.append(Side(name, loaded, Engine(loaded.backend, drafter=loaded.drafter)))
        for number, problem in enumerate(suite.problems[: asked.limit]):
            for side in sides[number % len(sides) :] + sides[: number % len(sides)]:
                side.answer(suite.message(problem), problem, asked.tokens)
    print("| answered by | right | against large | tokens | by the large model | tokens/s | ratio |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for side in sides:
        print(side.row(sides[0]))


main()
