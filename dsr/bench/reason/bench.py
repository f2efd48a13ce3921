"""Measures for `dsr bench reason`: draws the missing samples, then applies each strategy to them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsr.bench.kit import files
from dsr.bench.kit.conditions import watching
from dsr.bench.kit.files import file_name, results_folder, short_digest
from dsr.bench.reason.batch_statistics import BatchStatistics
from dsr.bench.reason.generate import SampleGenerator, check_seed
from dsr.bench.reason.judge import Score, StrategyDecision, decisions, saved_decision, score
from dsr.bench.reason.rows import GREEDY, StrategyRow, strategy_rows
from dsr.bench.reason.samples import saved_completion
from dsr.chat.asked import check_known
from dsr.chat.summary import prediction_json
from dsr.loading.load import load, open_adapters
from dsr.loading.options import LoadOptions, LoraRequest
from dsr.models.model import Model
from dsr.models.sampling import SamplingRequest, effective, sampling_json
from dsr.store import paths, predictions
from dsr.store.ledger import Ledger
from dsr.store.measurement import Conditions, Figure, Measurement
from dsr.store.predictions import PredictedRun
from dsr.suites import suites
from dsr.suites.problem import Suite, SuiteProblem
from runtime.base.errors import Aborted, DsrError, UsageError
from runtime.base.events import Listener, Progress
from runtime.base.run import Run
from runtime.base.texts import json_text
from runtime.engine.prompt_options import PromptOptions
from runtime.gguf.adapter import Adapter
from runtime.gguf.reader import ModelCard
from runtime.machine.host import probe

_SEED = 0


@dataclass(frozen=True, slots=True)
class ReasonRequest:
    """The options of `dsr bench reason`. No `strategies` means all that can share samples."""

    suite: str = suites.BUILT_IN[0]
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
        }


def measure(model: Model, request: ReasonRequest, run: Run) -> ReasonBench:
    """Draws the missing samples, judges all, and saves the decisions in the folder of the samples.

    After Ctrl-C it judges the samples that exist. Raises UsageError, NotFound or NetworkError for the suite, the errors
    of loading a model, and Aborted if there is no sample yet.
    """
    rows = strategy_rows(request.strategies, request.samples)
    suite = suites.find(request.suite, run.listen)
    count = min(request.limit or len(suite.problems), len(suite.problems))
    card = model.card
    seed = _SEED if request.sampling.seed is None else request.sampling.seed
    sampling = SamplingRequest(**{**_fields(request.sampling), "seed": seed})
    params = sampling.applied_to(model.sampling.params)
    check_seed(params.seed, count)
    check_known(model.chat_format(), request.asked)
    options = LoadOptions(context=request.ctx_size, measure=True, lora=request.lora, from_disk=request.from_disk)
    adapters = open_adapters(options, card)
    conditions = _conditions(card, suite, params, request.asked, adapters)
    folder = request.out or results_folder("reason", model.path.stem, suite.name, short_digest(conditions))
    with ExitStack() as stack:
        watch = stack.enter_context(watching(probe()))
        _check_folder(folder, conditions)
        ledgers = {name: stack.enter_context(_ledger(folder, name)) for name in _files_of(rows)}
        missing = [row for row in rows if not _is_complete(row, ledgers[_file_of(row)], suite, count, request.samples)]
        skipped: list[tuple[str, str]] = []
        interrupted = False
        compared: PredictedRun | None = None
        if missing:
            options = options.for_samples(request.slots, request.sampling.max_tokens)
            with load(model, options, run) as loaded:
                statistics = BatchStatistics(loaded.predictor)
                generator = SampleGenerator(loaded, suite, count, params, request.asked, run.listen, statistics)
                skipped = _draw(generator, missing, ledgers, request.samples)
                interrupted = generator.stopped
                compared = statistics.predicted_run(model.absolute_reference)
            if compared is not None:
                predictions.add(paths.predictions_file(), compared)
        found = list(_decisions(rows, ledgers, suite.problems[:count], request.samples, run.listen))
        scores = [made for row in rows if (made := score(row, [each for each in found if each.row == row.label]))]
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
            unfinished=_unfinished(ledgers, suite.problems[:count], request.samples),
            interrupted=interrupted,
            size=int(card.size),
            measured=watch.conditions,
            at=time.time(),
            run=compared,
        )


def _fields(sampling: SamplingRequest) -> dict[str, Any]:
    return {name: getattr(sampling, name) for name in SamplingRequest.__dataclass_fields__}


def _conditions(
    card: ModelCard, suite: Suite, params: Any, asked: PromptOptions, adapters: Sequence[Adapter]
) -> dict[str, Any]:
    """Returns all that a sample depends on, except its problem and number.

    Settings that few runs use are there only if they have an effect, so that older samples stay usable.
    """
    always = ("temperature", "top_p", "min_p", "top_k", "max_tokens", "think_budget", "seed")
    shown = sampling_json(params)
    return {
        "model": card.header_digest,
        "suite": suite.digest,
        "thinking": asked.thinking,
        **({"effort": asked.effort} if asked.effort else {}),
        **({"lora": [f"{each.digest} scale {each.scale:g}" for each in adapters]} if adapters else {}),
        **{name: getattr(params, name) for name in always},
        **{name: shown[name] for name in effective(params) if name not in always},
    }


def _check_folder(folder: Path, conditions: Mapping[str, Any]) -> None:
    """Makes the folder, or raises UsageError if its samples were drawn under other conditions."""
    file = folder / "run.json"
    try:
        there = json.loads(file.read_text(encoding="utf-8"))
        before = dict(there["conditions"])
    except FileNotFoundError:
        files.write(file, json.dumps({"conditions": conditions}, indent=2) + "\n")
        return
    except OSError as error:
        raise DsrError(
            f"{file}: cannot be read: {error.strerror or error}", hint="choose another --out FOLDER"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"{file}: dsr bench did not write this file", hint="choose another --out FOLDER") from None
    other = [name for name in {**conditions, **before} if before.get(name) != conditions.get(name)]
    if other:
        changes = "; ".join(
            f"{name} was {_short(before.get(name))}, now {_short(conditions.get(name))}" for name in other
        )
        raise UsageError(
            f"{folder} has samples of another run: {changes}", hint="choose another --out FOLDER, or leave it out"
        )


def _short(value: Any) -> str:
    return value[:8] if isinstance(value, str) else str(value)


def _file_of(row: StrategyRow) -> str:
    return {"greedy": GREEDY, "own": row.label}.get(row.source, "samples")


def _files_of(rows: Sequence[StrategyRow]) -> list[str]:
    return list(dict.fromkeys(_file_of(row) for row in rows))


def _ledger(folder: Path, name: str) -> Ledger:
    own = name not in (GREEDY, "samples")
    return Ledger(
        folder / f"{file_name(name)}.jsonl", lambda entry: entry["id"] if own else (entry["id"], entry["sample"])
    )


def _is_complete(row: StrategyRow, ledger: Ledger, suite: Suite, count: int, samples: int) -> bool:
    return all(_has_samples(row, ledger, problem, samples) for problem in suite.problems[:count])


def _has_samples(row: StrategyRow, ledger: Ledger, problem: SuiteProblem, samples: int) -> bool:
    if row.source == "own":
        return problem.id in ledger
    return all((problem.id, sample) in ledger for sample in range(1 if row.source == "greedy" else samples))


def _draw(
    generator: SampleGenerator, missing: Sequence[StrategyRow], ledgers: Mapping[str, Ledger], samples: int
) -> list[tuple[str, str]]:
    """Fills the ledgers, the shared one first. Returns the rows that could not be drawn, with reasons."""
    skipped = []
    names = _files_of(missing)
    if "samples" in names:
        generator.draw_shared(samples, ledgers["samples"])
    if GREEDY in names and not generator.stopped:
        generator.draw_shared(1, ledgers[GREEDY], greedy=True)
    for row in missing:
        if row.source != "own" or generator.stopped:
            continue
        try:
            generator.draw_own(row, ledgers[row.label])
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
    listen: Listener,
) -> Iterator[StrategyDecision]:
    """Yields all decisions of all rows, about the problems that have all their samples."""
    for number, problem in enumerate(problems, 1):
        drawn: dict[str, list[Any]] = {}
        for row in rows:
            name = _file_of(row)
            ledger = ledgers[name]
            if not _has_samples(row, ledger, problem, samples):
                continue
            if row.source == "own":
                yield saved_decision(row, problem, ledger.entry(problem.id))
                continue
            if name not in drawn:
                numbers = range(1 if row.source == "greedy" else samples)
                drawn[name] = [saved_completion(ledger.entry((problem.id, sample))) for sample in numbers]
            yield from decisions(row, problem, drawn[name])
        listen(Progress("judging", "", number, len(problems), "steps"))


def _unfinished(ledgers: Mapping[str, Ledger], problems: Sequence[SuiteProblem], samples: int) -> int:
    """Returns how many of the shared samples reached the token limit."""
    ledger = ledgers.get("samples")
    keys = [(problem.id, sample) for problem in problems for sample in range(samples)] if ledger else []
    return sum(ledger.entry(key)["finish_reason"] == "length" for key in keys if ledger and key in ledger)
