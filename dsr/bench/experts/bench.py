"""Measures for `dsr bench experts`: the KL divergence and the accuracy with fewer experts.

The divergence is measured with masked experts, on the text of the task's profile. The answers come from pruned files.
Both are saved, so that the same command resumes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsr.bench.experts.cases import KINDS, Case, Cases, Kind, digest
from dsr.bench.experts.generate import AnswerGenerator
from dsr.bench.experts.kld import measure_divergences
from dsr.bench.kit.conditions import Watch
from dsr.bench.kit.files import results_folder, short_digest
from dsr.bench.kit.intervals import wilson
from dsr.experts import profile
from dsr.experts.profile import ProfileRequest
from dsr.loading.options import AUTO
from dsr.loading.tried_files import try_once
from dsr.models.model import Model
from dsr.store.ledger import Ledger
from dsr.store.measurement import Conditions, Figure, Measurement
from dsr.suites import suites
from dsr.suites.problem import Suite, SuiteProblem
from quant.experts.expert_tensors import routed_layers
from quant.experts.profile import Profile, router_digest
from quant.experts.prune_plan import PrunePlan, check_keep, keep_count
from quant.experts.pruned_source import PrunedSource
from quant.experts.scores import DEFAULT_SCORE, SCORES
from quant.measure.divergence import Estimate
from quant.sources.source import GgufSource
from runtime.base.errors import Aborted, NotFound, UsageError
from runtime.base.run import Run
from runtime.gguf.card import ModelCard
from runtime.machine.host import probe
from runtime.placement.memory import need

KEEPS = ("100%", AUTO, "75%", "50%", "25%")
ALL_SCORES = "all"
MAX_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class ExpertsBenchRequest:
    """The options of `dsr bench experts`. `profiles`: suite for missing profiles; `limit`: problems of each task."""

    suite: str = suites.EMBEDDED
    keeps: tuple[str, ...] = KEEPS
    profiles: str | None = None
    score: str = DEFAULT_SCORE
    limit: int | None = None
    seed: int = 0
    max_tokens: int = MAX_TOKENS
    slots: int = 8


@dataclass(frozen=True, slots=True)
class CaseResult:
    """The result of one case. `solved`: for each problem, whether the answer was right. `bytes`: the size of the file.

    `memory`: predicted bytes of weights, cache and buffers when each slot has the most tokens. `tokens` and `seconds`
    are totals of all slots.
    """

    case: Case
    solved: tuple[bool, ...]
    kld: Estimate
    bytes: int
    memory: int
    tokens: int
    seconds: float

    @property
    def accuracy(self) -> float:
        return sum(self.solved) / len(self.solved)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    def json(self) -> dict[str, Any]:
        case = self.case
        low, high = wilson(self.accuracy, len(self.solved))
        return {
            "task": case.task,
            "keep": case.keep,
            "kept": case.plan.keep,
            "profile": case.kind,
            "score": case.score,
            "seed": case.seed,
            "accuracy": self.accuracy,
            "low": low,
            "high": high,
            "n": len(self.solved),
            "kld": self.kld.value,
            "kld_error": self.kld.error,
            "bytes": self.bytes,
            "memory": self.memory,
            "tokens_per_second": round(self.tokens_per_second, 2),
        }


@dataclass(frozen=True, slots=True)
class ExpertsBench:
    """The result. `missing`: the number of cases without answers, above 0 only after an interruption.

    `origins`: by task, the source of its profile. `digest` and `size`: of the unpruned file. `measured`: the machine
    and its load. `at`: seconds since 1970.
    """

    model: str
    suite: str
    experts: int
    active: int
    problems: int
    request: ExpertsBenchRequest
    origins: Mapping[str, str]
    folder: Path
    rows: tuple[CaseResult, ...]
    missing: int
    digest: str
    size: int
    measured: Conditions
    at: float

    @property
    def interrupted(self) -> bool:
        return self.missing > 0

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """The results for `dsr bench history`: one for each case."""
        return tuple(
            Measurement(
                kind="experts",
                model=self.model,
                digest=self.digest,
                size=self.size,
                test=_test(row.case, self.experts),
                parameters={
                    "suite": self.suite,
                    "task": row.case.task,
                    "keep": row.case.keep,
                    "kept": row.case.plan.keep,
                    "experts": self.experts,
                    "profile": row.case.kind,
                    "score": row.case.score,
                    "seed": row.case.seed,
                    "problems": len(row.solved),
                    "max_tokens": self.request.max_tokens,
                },
                figures={
                    "accuracy": Figure(row.accuracy, _error(row.accuracy, len(row.solved)), len(row.solved)),
                    "kld": Figure(row.kld.value, row.kld.error),
                    "bytes": Figure(row.bytes),
                    "memory": Figure(row.memory),
                    "tokens_per_second": Figure(row.tokens_per_second),
                },
                conditions=self.measured,
                at=self.at,
            )
            for row in self.rows
        )

    def json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "suite": self.suite,
            "experts": self.experts,
            "active": self.active,
            "problems": self.problems,
            "max_tokens": self.request.max_tokens,
            "seed": self.request.seed,
            "profiles": dict(self.origins),
            "folder": str(self.folder),
            "interrupted": self.interrupted,
            "missing": self.missing,
            "rows": [row.json() for row in self.rows],
        }


def measure(model: Model, request: ExpertsBenchRequest, run: Run) -> ExpertsBench:
    """Measures the missing cases. After Ctrl-C, returns the finished cases.

    Raises UsageError, NotFound (a suite, a profile), Incompatible (a dense model), the errors of profiling and loading
    a model, and Aborted if no case is finished.
    """
    watch = Watch(probe())
    card = model.card
    routed_layers(card)
    _check(card, request)
    suite = suites.find(request.suite, run.listen)
    tasks = _tasks(suite, request.limit)
    router = router_digest(card)
    try_once(model, run)
    profiles = _profiles(model, router, tuple(tasks), request, run)
    scores = tuple(SCORES) if request.score == ALL_SCORES else (request.score,)
    kinds: tuple[Kind, ...] = ("own",) if len(scores) > 1 else KINDS if len(tasks) > 1 else ("own", "random")
    cases = Cases(card, profiles, request.keeps, scores, kinds, request.seed)
    try:
        known = measure_divergences(cases, router, run)
    except Aborted:
        why = "stopped before the first answer; repeat the command to resume"
        raise Aborted(why) from None
    every = list(cases.all(known.automatic))
    # All conditions of an answer except the experts that are kept.
    conditions = [card.header_digest, router, suite.digest, request.max_tokens, request.slots]
    folder = results_folder("experts", model.path.stem, suite.name, short_digest(conditions))
    generator = AnswerGenerator(model, suite, tasks, request.slots, request.max_tokens, run)
    with Ledger(folder / "answers.jsonl", lambda entry: (entry["plan"], entry["id"])) as ledger:
        with suppress(Aborted):
            generator.generate(every, ledger)
        rows, costs = [], _Costs(card, request)
        for case in every:
            answers = [(digest(case.plan), problem.id) for problem in tasks[case.task]]
            if all(answer in ledger for answer in answers):
                kld = known.divergences[case.task, digest(case.plan)]
                rows.append(_row(case, kld, [ledger.entry(answer) for answer in answers], costs))
    if not rows:
        raise Aborted(f"stopped; the answers so far are saved in {folder}; repeat the command to resume")
    watch.end()
    return ExpertsBench(
        model=model.absolute_reference,
        suite=suite.name,
        experts=card.experts,
        active=card.experts_used,
        problems=sum(map(len, tasks.values())),
        request=request,
        origins={task: profile.origin for task, profile in profiles.items()},
        folder=folder,
        rows=tuple(rows),
        missing=len(every) - len(rows),
        digest=card.header_digest,
        size=int(card.size),
        measured=watch.conditions,
        at=time.time(),
    )


def _test(case: Case, experts: int) -> str:
    """Returns 'arithmetic: own 8 of 16, easy-ep', or 'own auto 8 of 16' if dsr chose the number."""
    seed = f", seed {case.seed}" if case.seed is not None else ""
    auto = f"{AUTO} " if case.keep == AUTO else ""
    return f"{case.task}: {case.kind} {auto}{case.plan.keep} of {experts}, {case.score}{seed}"


def _error(share: float, count: int) -> float:
    """Returns the standard error of a share. For a normal distribution, half of the interval is 1.96 of them."""
    low, high = wilson(share, count)
    return (high - low) / 2 / 1.96


def _check(card: ModelCard, request: ExpertsBenchRequest) -> None:
    if request.score != ALL_SCORES and request.score not in SCORES:
        raise UsageError(f"{request.score!r} is not a score", hint=f"one of {', '.join(SCORES)}, {ALL_SCORES}")
    if not request.keeps:
        raise UsageError("--keep names no number of experts", hint=f"--keep {','.join(KEEPS)}")
    for keep in request.keeps:
        if keep != AUTO:
            check_keep(card, keep_count(keep, card.experts), None)


def _tasks(suite: Suite, limit: int | None) -> dict[str, tuple[SuiteProblem, ...]]:
    """Returns the problems of each task. A suite without tasks is one task."""
    found: dict[str, list[SuiteProblem]] = {}
    for problem in suite.problems:
        found.setdefault(problem.task or suite.name, []).append(problem)
    return {task: tuple(problems[:limit]) for task, problems in found.items()}


def _profiles(
    model: Model, router: str, tasks: Sequence[str], request: ExpertsBenchRequest, run: Run
) -> dict[str, Profile]:
    """Returns the profile of each task, and makes the missing profiles."""
    store = profile.profile_store()
    missing = [task for task in tasks if task not in store.tasks(router)]
    if missing and request.profiles is None and not model.embedded:
        raise NotFound(
            f"there is no profile of {', '.join(missing[:5])}{' and others' if len(missing) > 5 else ''}",
            hint="use --profiles SUITE (other questions of the same tasks), or dsr experts profile",
        )
    for task in missing:
        profile.make_profiles(model, ProfileRequest(suite=request.profiles, task=task), run)
    return {task: store.get(router, task) for task in tasks}


class _Costs:
    """Computes the bytes of a pruned file and of memory, once for each plan, since this opens the model."""

    def __init__(self, card: ModelCard, request: ExpertsBenchRequest) -> None:
        self._card, self._request = card, request
        self._known: dict[str, tuple[int, int]] = {}

    def of(self, plan: PrunePlan) -> tuple[int, int]:
        key = digest(plan)
        if key not in self._known:
            self._known[key] = self._predicted(plan)
        return self._known[key]

    def _predicted(self, plan: PrunePlan) -> tuple[int, int]:
        size, small = self._card.size, self._card
        if plan.keep < plan.experts:
            with GgufSource(self._card.path) as source:
                file = PrunedSource(source, plan).file_plan()
            size, small = file.bytes, file.card() or small
        slots = self._request.slots
        context = slots * min(self._request.max_tokens, self._card.context_length)
        return size, need(small, context, slots).total


def _row(case: Case, kld: Estimate, answers: Sequence[Mapping[str, Any]], costs: _Costs) -> CaseResult:
    size, memory = costs.of(case.plan)
    return CaseResult(
        case=case,
        solved=tuple(bool(each["solved"]) for each in answers),
        kld=kld,
        bytes=size,
        memory=memory,
        tokens=sum(each["tokens"] for each in answers),
        seconds=sum(each["seconds"] for each in answers),
    )
