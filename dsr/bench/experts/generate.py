"""Draws the missing answers of `dsr bench experts` from pruned files."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from dsr.bench.experts.cases import Case, digest
from dsr.loading.load import LoadedModel, load
from dsr.loading.options import LoadOptions
from dsr.models.model import Model
from dsr.store import paths
from dsr.store.ledger import Ledger
from dsr.suites.judging import Judging
from dsr.suites.problem import Suite, SuiteProblem
from quant.experts.prune_plan import PrunePlan
from quant.experts.pruned_source import PrunedSource
from quant.sources.source import GgufSource
from quant.write.execute import quantize
from quant.write.scratch import scratch_folder
from runtime.base.disk_errors import disk_errors
from runtime.base.events import Progress, SampleFinished
from runtime.base.run import Run
from runtime.base.types import Completion, Message, SamplingParams
from runtime.engine.engine import Engine
from runtime.strategies.verdict import Sample

_STEP = "answering"


@dataclass(frozen=True, slots=True)
class AnswerGenerator:
    """Draws greedy answers to the problems of `tasks`, all from `suite`, in `slots` slots at once."""

    model: Model
    suite: Suite
    tasks: Mapping[str, Sequence[SuiteProblem]]
    slots: int
    max_tokens: int
    run: Run

    def generate(self, cases: Sequence[Case], ledger: Ledger) -> None:
        """Adds the missing answers to the ledger, plan after plan. The key of an answer is its plan and its problem.

        Raises Aborted, and the errors of pruning and loading a model.
        """
        plans: dict[str, tuple[PrunePlan, list[str]]] = {}
        for case in cases:
            _, tasks = plans.setdefault(digest(case.plan), (case.plan, []))
            if case.task not in tasks:
                tasks.append(case.task)
        problems_of = {
            key: [problem for task in tasks for problem in self.tasks[task]] for key, (_, tasks) in plans.items()
        }
        missing = {key: [each for each in problems_of[key] if (key, each.id) not in ledger] for key in problems_of}
        total = sum(map(len, problems_of.values()))
        done, threads = total - sum(map(len, missing.values())), self.run.threads
        for key, problems in missing.items():
            if not problems:
                continue
            with ExitStack() as stack:
                cache = paths.cache_folder()
                with disk_errors(cache):
                    folder = stack.enter_context(scratch_folder(cache, ".bench-experts-"))
                pruned = self._pruned(plans[key][0], folder)
                options = LoadOptions().for_samples(self.slots, self.max_tokens)
                model = stack.enter_context(load(pruned, options, Run(self.run.stop, threads=threads)))
                threads = model.threads  # measured once, since the best number is the same for all files
                judging = stack.enter_context(Judging(self.suite))
                self.run.listen(Progress(_STEP, self.suite.name, done, total, "steps"))
                for problem, completion, seconds in self._answers(model, problems):
                    ledger.add(_entry(key, problem, completion, seconds, judging))
                    done += 1
                    self.run.listen(Progress(_STEP, self.suite.name, done, total, "steps"))

    def _pruned(self, plan: PrunePlan, folder: Path) -> Model:
        """Returns the model with these experts as a file; the model itself if the plan keeps all experts."""
        if plan.keep == plan.experts:
            return self.model
        path = folder / "pruned.gguf"
        with GgufSource(self.model.path) as source:
            cut = PrunedSource(source, plan)
            quantize(cut, cut.file_plan(), path, Run(self.run.stop, threads=1))
        return replace(self.model, path=path, files=(path,))

    def _answers(
        self, model: LoadedModel, problems: Sequence[SuiteProblem]
    ) -> Iterator[tuple[SuiteProblem, Completion, float]]:
        """Yields each answer when it ends, with the seconds since the answer before. Raises Aborted."""
        params = SamplingParams(temperature=0.0, max_tokens=self.max_tokens)
        requests = [
            replace(model.request([Message("user", self.suite.message(problem))], params), sample=number)
            for number, problem in enumerate(problems)
        ]
        engine, last = Engine(model.backend), time.perf_counter()
        for event in engine.stream(requests):
            if isinstance(event, SampleFinished) and event.completion.finish_reason != "cancelled":
                now = time.perf_counter()
                yield problems[event.completion.sample], event.completion, now - last
                last = now
        if engine.aborted:
            raise engine.aborted


def _entry(
    plan: str, problem: SuiteProblem, completion: Completion, seconds: float, judging: Judging
) -> dict[str, object]:
    return {
        "plan": plan,
        "id": problem.id,
        "solved": judging.is_right(problem, Sample.of(completion).answer, completion.answer),
        "tokens": len(completion.tokens),
        "seconds": round(seconds, 6),
    }
