"""Measures for `dsr bench reason`: draws the missing samples, then applies every strategy to them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsr.bench.kit import outputs
from dsr.bench.kit.conditions import watching
from dsr.bench.kit.folders import file_name, results_folder, short_digest
from dsr.bench.reason.batch_statistics import BatchStatistics
from dsr.bench.reason.generate import Drawing, check_seed
from dsr.bench.reason.judge import StrategyDecision, decision_of, decisions
from dsr.bench.reason.rows import GREEDY, StrategyRow, strategy_rows
from dsr.bench.reason.samples import completion_of
from dsr.bench.reason.score import Score, score
from dsr.chat.summary import prediction_json
from dsr.loading.load import load
from dsr.loading.options import LoadOptions
from dsr.models.model import Model, SamplingRequest
from dsr.store import paths, predictions
from dsr.store.ledger import Ledger
from dsr.store.measurement import Conditions
from dsr.store.predictions import PredictedRun
from dsr.suites import suites
from dsr.suites.suites import Problem, Suite
from runtime.base.errors import Aborted, DsrError, UsageError
from runtime.base.events import Listener, Progress
from runtime.base.run import Run
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
    think: bool | None = None
    slots: int = 8
    ctx_size: int | None = None
    out: Path | None = None


@dataclass(frozen=True, slots=True)
class ReasonBench:
    """What came of it. `conditions` are what every sample in `folder` was drawn under; `skipped` are lines and why.

    `interrupted` says that samples are missing: then a line stands on the problems that have all of theirs. `run` is
    the predicted and the measured speed of drawing, None if nothing was drawn or predicted. `size` is that
    of the model in bytes, `measured` where and with what else going on.
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
    run: PredictedRun | None = None

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
            "skipped": [{"row": row, "why": why} for row, why in self.skipped],
        }


def measure(local: Model, request: ReasonRequest, run: Run) -> ReasonBench:
    """Draws the missing samples, judges all, and saves the decisions in the folder of the samples.

    Stopped by Ctrl-C it judges what is there. Raises UsageError, NotFound, NetworkError for the suite, what opening a
    model raises, Aborted when it was stopped before the first sample.
    """
    rows = strategy_rows(request.strategies, request.samples)
    suite = suites.find(request.suite, run.listen)
    count = min(request.limit or len(suite.problems), len(suite.problems))
    card = local.card
    seed = _SEED if request.sampling.seed is None else request.sampling.seed
    sampling = SamplingRequest(**{**_given(request.sampling), "seed": seed})
    params = sampling.applied_to(local.sampling.params)
    check_seed(params.seed, count)
    conditions = _conditions(card, suite, params, request.think)
    folder = request.out or results_folder("reason", local.path.stem, suite.name, short_digest(conditions))
    with ExitStack() as stack:
        watch = stack.enter_context(watching(probe()))
        _begin(folder, conditions)
        ledgers = {name: stack.enter_context(_ledger(folder, name)) for name in _files_of(rows)}
        missing = [line for line in rows if not _complete(line, ledgers[_file_of(line)], suite, count, request.samples)]
        skipped: list[tuple[str, str]] = []
        interrupted = False
        compared: PredictedRun | None = None
        if missing:
            options = LoadOptions(context=request.ctx_size, measure=True)
            options = options.for_samples(request.slots, request.sampling.max_tokens)
            with load(local, options, run) as model:
                statistics = BatchStatistics(model.predictor)
                drawing = Drawing(model, suite, count, params, request.think, run.listen, statistics)
                skipped = _draw(drawing, missing, ledgers, request.samples)
                interrupted = drawing.stopped
                compared = statistics.compared(local.absolute_reference)
            if compared is not None:
                predictions.keep(paths.predictions_file(), compared)
        found = list(_judged(rows, ledgers, suite.problems[:count], request.samples, run.listen))
        scores = [made for line in rows if (made := score(line, [each for each in found if each.line == line.label]))]
        if interrupted and not scores:
            raise Aborted(f"stopped; what was drawn is kept in {folder}")
        verdicts = [json.dumps(each.json(), ensure_ascii=False) + "\n" for each in found]
        outputs.write(folder / "verdicts.jsonl", "".join(verdicts))
        watch.end()
        return ReasonBench(
            model=local.absolute_reference,
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
            run=compared,
        )


def _given(sampling: SamplingRequest) -> dict[str, Any]:
    return {name: getattr(sampling, name) for name in SamplingRequest.__dataclass_fields__}


def _conditions(card: ModelCard, suite: Suite, params: Any, think: bool | None) -> dict[str, Any]:
    """Returns all that a sample depends on, except its problem and number."""
    return {
        "model": card.header_digest,
        "suite": suite.digest,
        "thinking": think,
        **{
            name: getattr(params, name)
            for name in ("temperature", "top_p", "min_p", "top_k", "max_tokens", "think_budget", "seed")
        },
    }


def _begin(folder: Path, conditions: Mapping[str, Any]) -> None:
    """Make the folder, or see that what is in it was drawn under the same conditions."""
    file = folder / "run.json"
    try:
        there = json.loads(file.read_text(encoding="utf-8"))
        before = dict(there["conditions"])
    except FileNotFoundError:
        outputs.write(file, json.dumps({"conditions": conditions}, indent=2) + "\n")
        return
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{file}: is not what dsr bench wrote", hint="choose another --out FOLDER") from None
    other = [name for name in conditions if before.get(name) != conditions[name]]
    if other:
        told = "; ".join(f"{name} was {_short(before.get(name))}, now {_short(conditions[name])}" for name in other)
        raise UsageError(
            f"{folder} holds samples of another run: {told}", hint="choose another --out FOLDER, or leave it out"
        )


def _short(value: Any) -> str:
    return value[:8] if isinstance(value, str) else str(value)


def _file_of(line: StrategyRow) -> str:
    return {"greedy": GREEDY, "own": line.label}.get(line.source, "samples")


def _files_of(rows: Sequence[StrategyRow]) -> list[str]:
    return list(dict.fromkeys(_file_of(line) for line in rows))


def _ledger(folder: Path, name: str) -> Ledger:
    own = name not in (GREEDY, "samples")
    return Ledger(folder / f"{file_name(name)}.jsonl", lambda row: row["id"] if own else (row["id"], row["sample"]))


def _complete(line: StrategyRow, ledger: Ledger, suite: Suite, count: int, samples: int) -> bool:
    return all(_has(line, ledger, problem, samples) for problem in suite.problems[:count])


def _has(line: StrategyRow, ledger: Ledger, problem: Problem, samples: int) -> bool:
    if line.source == "own":
        return problem.id in ledger
    return all((problem.id, sample) in ledger for sample in range(1 if line.source == "greedy" else samples))


def _draw(
    drawing: Drawing, missing: Sequence[StrategyRow], ledgers: Mapping[str, Ledger], samples: int
) -> list[tuple[str, str]]:
    """Fill the ledgers, the shared one first; returns the lines that could not be drawn."""
    skipped = []
    names = _files_of(missing)
    if "samples" in names:
        drawing.shared(samples, ledgers["samples"])
    if GREEDY in names and not drawing.stopped:
        drawing.shared(1, ledgers[GREEDY], greedy=True)
    for line in missing:
        if line.source != "own" or drawing.stopped:
            continue
        try:
            drawing.own(line, ledgers[line.label])
        except Aborted:
            drawing.stopped = True
        except DsrError as error:
            skipped.append((line.label, error.message))
    return skipped


def _judged(
    rows: Sequence[StrategyRow],
    ledgers: Mapping[str, Ledger],
    problems: Sequence[Problem],
    samples: int,
    listen: Listener,
) -> Iterator[StrategyDecision]:
    """Every decision of every line, on the problems that have all their samples."""
    for number, problem in enumerate(problems, 1):
        drawn: dict[str, list[Any]] = {}
        for line in rows:
            name = _file_of(line)
            ledger = ledgers[name]
            if not _has(line, ledger, problem, samples):
                continue
            if line.source == "own":
                yield decision_of(line, problem, ledger.entry(problem.id))
                continue
            if name not in drawn:
                numbers = range(1 if line.source == "greedy" else samples)
                drawn[name] = [completion_of(ledger.entry((problem.id, sample))) for sample in numbers]
            yield from decisions(line, problem, drawn[name])
        listen(Progress("judging", "", number, len(problems), "steps"))


def _unfinished(ledgers: Mapping[str, Ledger], problems: Sequence[Problem], samples: int) -> int:
    """How many of the shared samples came to the limit of tokens before their end."""
    ledger = ledgers.get("samples")
    keys = [(problem.id, sample) for problem in problems for sample in range(samples)] if ledger else []
    return sum(ledger.entry(key)["finish_reason"] == "length" for key in keys if ledger and key in ledger)
