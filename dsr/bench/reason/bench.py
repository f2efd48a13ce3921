"""Measures for `dsr bench reason`: draws the missing samples, then applies each strategy to them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from dsr.bench.kit import files
from dsr.bench.kit.conditions import watching
from dsr.bench.kit.files import results_folder, short_digest
from dsr.bench.reason.batch_statistics import BatchStatistics
from dsr.bench.reason.choices import check_choices, choice_decision
from dsr.bench.reason.folder import (
    check_folder,
    conditions_of,
    file_of,
    files_of,
    has_samples,
    is_complete,
    open_ledger,
)
from dsr.bench.reason.generate import SampleGenerator, check_seed
from dsr.bench.reason.judge import Score, StrategyDecision, decisions, saved_decision, score
from dsr.bench.reason.paired import Comparison, compare_rows
from dsr.bench.reason.rows import GREEDY, LIKELIHOOD, StrategyRow, alone_rows, likelihood_rows, strategy_rows
from dsr.bench.reason.samples import saved_completion
from dsr.bench.reason.task_figures import TaskFigures, by_task
from dsr.chat.asked import check_known
from dsr.chat.summary import prediction_json
from dsr.loading.load import load, open_adapters
from dsr.loading.options import LoadOptions, LoraRequest
from dsr.models.model import Model
from dsr.models.sampling import SamplingRequest
from dsr.store import paths, predictions
from dsr.store.ledger import Ledger
from dsr.store.measurement import Conditions, Figure, Measurement
from dsr.store.predictions import PredictedRun
from dsr.suites import suites
from dsr.suites.judging import Disagreement, Judging
from dsr.suites.problem import SuiteProblem
from runtime.base.errors import Aborted, DsrError
from runtime.base.events import Listener, Progress, ignore
from runtime.base.run import Run
from runtime.base.texts import json_text
from runtime.confined.box import check_available
from runtime.engine.prompt_options import PromptOptions
from runtime.machine.host import probe

_SEED = 0


@dataclass(frozen=True, slots=True)
class ReasonRequest:
    """The options of `dsr bench reason`. No `strategies` means all that can share samples.

    `score`: whether answers are drawn, or choices are compared by their likelihood. `alone`: so many problems for which
    each strategy also draws its own samples, so that its seconds are its own.
    """

    suite: str = suites.EMBEDDED
    score: Literal["answers", "likelihood"] = "answers"
    alone: int = 0
    strategies: tuple[str, ...] = ()
    samples: int = 8
    limit: int | None = None
    sampling: SamplingRequest = field(default_factory=SamplingRequest)
    asked: PromptOptions = field(default_factory=PromptOptions)
    slots: int = 8
    ctx_size: int | None = None
    lora: tuple[LoraRequest, ...] = ()
    from_disk: str = "auto"
    out: Path | None = None


@dataclass(frozen=True, slots=True)
class ReasonBench:
    """The result. `conditions` apply to all samples in `folder`. `skipped`: rows that could not be drawn, with reasons.

    `interrupted`: samples are missing, and a row uses only the problems that have all their samples. `unfinished`:
    samples that reached the token limit. `run`: the predicted and the measured speed of generator, None if nothing was
    drawn or predicted. `size`: bytes of the model. `measured`: the machine and its load. `at`: seconds since 1970.
    `alone`: rows whose strategy drew its own samples for the first problems. `judged`: the number of replies that the
    suite's own judge saw; in `disagreements`, dsr judged otherwise.
    """

    model: str
    suite: str
    problems: int
    samples: int
    conditions: Mapping[str, Any]
    folder: Path
    scores: tuple[Score, ...]
    skipped: tuple[tuple[str, str], ...]
    unfinished: int
    interrupted: bool
    size: int
    measured: Conditions
    at: float
    run: PredictedRun | None = None
    alone: tuple[Score, ...] = ()
    tasks: tuple[TaskFigures, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    judged: int = 0
    disagreements: tuple[Disagreement, ...] = ()

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """The rows of the table for `dsr bench history`."""
        conditions = {name: value for name, value in self.conditions.items() if name not in ("model", "suite")}
        return tuple(
            Measurement(
                kind="reason",
                model=self.model,
                digest=self.conditions["model"],
                size=self.size,
                test=score.row.label,
                parameters={"suite": self.suite, "problems": score.problems, "samples": self.samples, **conditions},
                figures={
                    # For a normal distribution, half of the interval is 1.96 standard errors.
                    "accuracy": Figure(score.accuracy, (score.high - score.low) / 2 / 1.96, score.problems),
                    "tokens": Figure(score.tokens),
                    "chain": Figure(score.sequential),
                    "seconds": Figure(score.seconds),
                },
                conditions=self.measured,
                at=self.at,
            )
            for score in self.scores
        )

    def json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "suite": self.suite,
            "problems": self.problems,
            "samples": self.samples,
            "conditions": dict(self.conditions),
            "folder": str(self.folder),
            "interrupted": self.interrupted,
            "unfinished_samples": self.unfinished,
            "prediction": prediction_json(self.run),
            "rows": [score.json() for score in self.scores],
            "skipped": [{"row": label, "why": why} for label, why in self.skipped],
            "ran_alone": [score.json() for score in self.alone],
            "tasks": [each.json() for each in self.tasks],
            "comparisons": [each.json() for each in self.comparisons],
            "judged": self.judged,
            "judged_differently": [each.json() for each in self.disagreements],
        }


def measure(model: Model, request: ReasonRequest, run: Run) -> ReasonBench:
    """Draws the missing samples, judges all, and saves the decisions in the folder of the samples.

    After Ctrl-C it judges the samples that exist. Raises UsageError, NotFound or NetworkError for the suite, the errors
    of loading a model, and Aborted if there is no sample yet.
    """
    rows = likelihood_rows() if request.score == "likelihood" else strategy_rows(request.strategies, request.samples)
    alone = alone_rows(rows, request.alone) if request.alone else ()
    suite = suites.find(request.suite, run.listen, request.limit)
    with Judging(suite) as judging:
        return _measure(model, request, rows, alone, judging, run)


def _measure(
    model: Model,
    request: ReasonRequest,
    rows: Sequence[StrategyRow],
    alone: Sequence[StrategyRow],
    judging: Judging,
    run: Run,
) -> ReasonBench:
    suite = judging.suite
    count = min(request.limit or len(suite.problems), len(suite.problems))
    problems = suite.problems[:count]
    if request.score == "likelihood":
        check_choices(suite, problems)
    if any(problem.checker == "command" for problem in problems):
        check_available()
    card = model.card
    seed = _SEED if request.sampling.seed is None else request.sampling.seed
    sampling = SamplingRequest(**{**_fields(request.sampling), "seed": seed})
    params = sampling.applied_to(model.sampling.params)
    check_seed(params.seed, count)
    check_known(model.chat_format(), request.asked)
    options = LoadOptions(context=request.ctx_size, measure=True, lora=request.lora, from_disk=request.from_disk)
    adapters = open_adapters(options, card)
    conditions = conditions_of(card, suite, params, request.asked, adapters)
    folder = request.out or results_folder("reason", model.path.stem, suite.name, short_digest(conditions))
    with ExitStack() as stack:
        watch = stack.enter_context(watching(probe()))
        check_folder(folder, conditions)
        every = dict.fromkeys((*rows, *alone))
        ledgers = {name: stack.enter_context(open_ledger(folder, name)) for name in files_of(list(every))}
        missing = [row for row in every if not is_complete(row, ledgers[file_of(row)], problems, request.samples)]
        skipped: list[tuple[str, str]] = []
        interrupted = False
        compared: PredictedRun | None = None
        if missing:
            options = options.for_samples(request.slots, request.sampling.max_tokens)
            with load(model, options, run) as loaded:
                statistics = BatchStatistics(loaded.predictor)
                generator = SampleGenerator(
                    loaded, suite, judging, count, params, request.asked, run.listen, statistics
                )
                skipped = _draw(generator, missing, ledgers, request.samples)
                interrupted = generator.stopped
                compared = statistics.predicted_run(model.absolute_reference)
            if compared is not None:
                watch.end()
                disturbed = watch.work.disturbance
                predictions.add(paths.predictions_file(), replace(compared, disturbed=disturbed))
        found = list(_decisions(rows, ledgers, problems, request.samples, judging, run.listen))
        scores = _scores(rows, found)
        alone_scores = _scores(alone, list(_decisions(alone, ledgers, problems, request.samples, judging, ignore)))
        if interrupted and not scores:
            raise Aborted(f"stopped; the samples so far are saved in {folder}")
        verdicts = [json_text(each.json()) + "\n" for each in found]
        files.write(folder / "verdicts.jsonl", "".join(verdicts))
        watch.end()
        return ReasonBench(
            model=model.absolute_reference,
            suite=suite.name,
            problems=count,
            samples=request.samples,
            conditions=conditions,
            folder=folder,
            scores=tuple(scores),
            skipped=tuple(skipped),
            unfinished=_unfinished(ledgers, problems, request.samples),
            interrupted=interrupted,
            size=int(card.size),
            measured=watch.conditions,
            at=time.time(),
            run=compared,
            alone=tuple(alone_scores),
            tasks=by_task(problems, rows, found),
            comparisons=compare_rows(scores, found),
            judged=judging.judged,
            disagreements=judging.disagreements,
        )


def _scores(rows: Sequence[StrategyRow], found: Sequence[StrategyDecision]) -> list[Score]:
    return [made for row in rows if (made := score(row, [each for each in found if each.row == row.label]))]


def _fields(sampling: SamplingRequest) -> dict[str, Any]:
    return {name: getattr(sampling, name) for name in SamplingRequest.__dataclass_fields__}


def _draw(
    generator: SampleGenerator, missing: Sequence[StrategyRow], ledgers: Mapping[str, Ledger], samples: int
) -> list[tuple[str, str]]:
    """Fills the ledgers, the shared one first. Returns the rows that could not be drawn, with reasons."""
    skipped = []
    names = files_of(missing)
    if "samples" in names:
        generator.draw_shared(samples, ledgers["samples"])
    if GREEDY in names and not generator.stopped:
        generator.draw_shared(1, ledgers[GREEDY], greedy=True)
    for row in missing:
        if row.source not in ("own", "likelihood") or generator.stopped:
            continue
        try:
            if row.source == "own":
                generator.draw_own(row, ledgers[file_of(row)])
            else:
                generator.score_choices(ledgers[LIKELIHOOD])
        except Aborted:
            generator.stopped = True
        except DsrError as error:
            skipped.append((row.label, error.message))
    return skipped


def _decisions(
    rows: Sequence[StrategyRow],
    ledgers: Mapping[str, Ledger],
    problems: Sequence[SuiteProblem],
    samples: int,
    judging: Judging,
    listen: Listener,
) -> Iterator[StrategyDecision]:
    """Yields all decisions of all rows, about the problems that have all their samples."""
    for number, problem in enumerate(problems, 1):
        drawn: dict[str, list[Any]] = {}
        for row in rows:
            name = file_of(row)
            ledger = ledgers[name]
            if number > len(row.of(problems)) or not has_samples(row, ledger, problem, samples):
                continue
            if row.source == "own":
                yield saved_decision(row, problem, ledger.entry(problem.id), judging)
                continue
            if row.source == "likelihood":
                yield choice_decision(row, problem, ledger.entry(problem.id))
                continue
            if name not in drawn:
                numbers = range(1 if row.source == "greedy" else samples)
                drawn[name] = [saved_completion(ledger.entry((problem.id, sample))) for sample in numbers]
            yield from decisions(row, problem, drawn[name], judging)
        listen(Progress("judging", "", number, len(problems), "steps"))


def _unfinished(ledgers: Mapping[str, Ledger], problems: Sequence[SuiteProblem], samples: int) -> int:
    """Returns how many of the shared samples reached the token limit."""
    ledger = ledgers.get("samples")
    keys = [(problem.id, sample) for problem in problems for sample in range(samples)] if ledger else []
    return sum(ledger.entry(key)["finish_reason"] == "length" for key in keys if ledger and key in ledger)
