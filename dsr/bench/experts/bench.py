"""The story of `dsr bench experts`: which experts are kept, what that does to the model's output, and to its answers.

The divergence is measured with masks, on the text of the task's profile; answers are drawn from files that were really
pruned, opened as any model is. Both are kept, so that the same command goes on where it was stopped.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsr.bench.experts.cases import KINDS, Case, Cases, Kind, digest
from dsr.bench.experts.generate import Answering
from dsr.bench.experts.kld import measured
from dsr.bench.kit.conditions import Watch
from dsr.bench.kit.folders import results_folder, short_digest
from dsr.bench.reason.score import wilson
from dsr.experts import profile
from dsr.experts.profile import ProfileRequest
from dsr.loading.load import try_once
from dsr.loading.options import AUTO
from dsr.models.model import Model
from dsr.store.ledger import Ledger
from dsr.store.measurement import Conditions, Figure, Measurement
from dsr.suites import suites
from dsr.suites.suites import Problem, Suite
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
    """The options of `dsr bench experts`. `profiles` is the suite that missing profiles are made from;
    `limit` problems of each task are asked, all without."""

    suite: str = suites.BUILT_IN[0]
    keeps: tuple[str, ...] = KEEPS
    profiles: str | None = None
    score: str = DEFAULT_SCORE
    limit: int | None = None
    seed: int = 0
    max_tokens: int = MAX_TOKENS
    slots: int = 8


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One task with some experts. `solved` has each problem that was asked, `bytes` is the file's size, `memory` what
    weights, cache and buffers need when each slot has the most tokens, as predicted. Tokens per second are those of all
    slots together."""

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
    """What came of it. `missing` counts the cells that have no answer yet, which only an interrupted run has;
    `origins` says per task what its profile was made from. `digest` and `size` are those of the whole model's file,
    `measured` where and with what else going on."""

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

    @property
    def interrupted(self) -> bool:
        return self.missing > 0

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


def measure(local: Model, request: ExpertsBenchRequest, run: Run) -> ExpertsBench:
    """Measure what was not measured before.

    Stopped by Ctrl-C it returns what is there. Raises UsageError, NotFound (a suite, a profile), Incompatible (a dense
    model), what profiling and opening a model raise, Aborted when nothing can be shown yet.
    """
    watch = Watch(probe())
    card = local.card
    routed_layers(card)
    _check(card, request)
    suite = suites.find(request.suite, run.listen)
    tasks = _tasks(suite, request.limit)
    model = router_digest(card)
    try_once(local)
    profiles = _profiles(local, model, tuple(tasks), request, run)
    scores = tuple(SCORES) if request.score == ALL_SCORES else (request.score,)
    kinds: tuple[Kind, ...] = ("own",) if len(scores) > 1 else KINDS if len(tasks) > 1 else ("own", "random")
    cases = Cases(card, profiles, request.keeps, scores, kinds, request.seed)
    try:
        known = measured(cases, model, run)
    except Aborted:
        why = "stopped before the first answer; what was measured is kept, and the same command goes on"
        raise Aborted(why) from None
    listed = list(cases.every(known.automatic))
    # All that an answer depends on, but for the experts that are kept.
    conditions = [card.header_digest, model, suite.digest, request.max_tokens, request.slots]
    folder = results_folder("experts", local.path.stem, suite.name, short_digest(conditions))
    answering = Answering(local, suite, tasks, request.slots, request.max_tokens, run)
    with Ledger(folder / "answers.jsonl", lambda row: (row["plan"], row["id"])) as ledger:
        with suppress(Aborted):
            answering.fill(listed, ledger)
        rows, costs = [], _Costs(card, request)
        for case in listed:
            answers = [(digest(case.plan), problem.id) for problem in tasks[case.task]]
            if all(answer in ledger for answer in answers):
                kld = known.divergences[case.task, digest(case.plan)]
                rows.append(_row(case, kld, [ledger.entry(answer) for answer in answers], costs))
    if not rows:
        raise Aborted(f"stopped; the answers so far are kept in {folder}, and the same command goes on")
    watch.end()
    return ExpertsBench(
        model=local.absolute_reference,
        suite=suite.name,
        experts=card.experts,
        active=card.experts_used,
        problems=sum(map(len, tasks.values())),
        request=request,
        origins={task: profile.origin for task, profile in profiles.items()},
        folder=folder,
        rows=tuple(rows),
        missing=len(listed) - len(rows),
        digest=card.header_digest,
        size=int(card.size),
        measured=watch.conditions,
    )


def rows(bench: ExpertsBench) -> tuple[Measurement, ...]:
    """What `dsr bench history` keeps: a row for each task and way to keep experts."""
    now = time.time()
    return tuple(
        Measurement(
            kind="experts",
            model=bench.model,
            digest=bench.digest,
            size=bench.size,
            test=_test(row.case, bench.experts),
            parameters={
                "suite": bench.suite,
                "task": row.case.task,
                "keep": row.case.keep,
                "kept": row.case.plan.keep,
                "experts": bench.experts,
                "profile": row.case.kind,
                "score": row.case.score,
                "seed": row.case.seed,
                "problems": len(row.solved),
                "max_tokens": bench.request.max_tokens,
            },
            figures={
                "accuracy": Figure(row.accuracy, _error(row.accuracy, len(row.solved)), len(row.solved)),
                "kld": Figure(row.kld.value, row.kld.error),
                "bytes": Figure(row.bytes),
                "memory": Figure(row.memory),
                "tokens_per_second": Figure(row.tokens_per_second),
            },
            conditions=bench.measured,
            at=now,
        )
        for row in bench.rows
    )


def _test(case: Case, experts: int) -> str:
    """'arithmetic: own 8 of 16, easy-ep', and 'own auto 8 of 16': half of them may be what is harmless."""
    lot = f", seed {case.seed}" if case.seed is not None else ""
    auto = f"{AUTO} " if case.keep == AUTO else ""
    return f"{case.task}: {case.kind} {auto}{case.plan.keep} of {experts}, {case.score}{lot}"


def _error(share: float, count: int) -> float:
    """Half of the interval is 1.96 standard errors, were it that of a normal distribution."""
    low, high = wilson(share, count)
    return (high - low) / 2 / 1.96


def _check(card: ModelCard, request: ExpertsBenchRequest) -> None:
    if request.score != ALL_SCORES and request.score not in SCORES:
        raise UsageError(f"{request.score!r} is no score", hint=f"there are {', '.join(SCORES)}, {ALL_SCORES}")
    if not request.keeps:
        raise UsageError("how many experts shall be kept?", hint=f"--keep {','.join(KEEPS)}")
    for keep in request.keeps:
        if keep != AUTO:
            check_keep(card, keep_count(keep, card.experts), None)


def _tasks(suite: Suite, limit: int | None) -> dict[str, tuple[Problem, ...]]:
    """The problems of each task; a suite without tasks is one."""
    found: dict[str, list[Problem]] = {}
    for problem in suite.problems:
        found.setdefault(problem.task or suite.name, []).append(problem)
    return {task: tuple(problems[:limit]) for task, problems in found.items()}


def _profiles(
    local: Model, model: str, tasks: Sequence[str], request: ExpertsBenchRequest, run: Run
) -> dict[str, Profile]:
    """The profile of each task, made now where there is none."""
    store = profile.profile_store()
    missing = [task for task in tasks if task not in store.tasks(model)]
    if missing and request.profiles is None and not local.embedded:
        raise NotFound(
            f"there is no profile of {', '.join(missing[:5])}{' and others' if len(missing) > 5 else ''}",
            hint="--profiles SUITE makes them from other questions of the same tasks; or dsr experts profile",
        )
    for task in missing:
        asked = ProfileRequest(suite=request.profiles, task=task)
        profile.make_profiles(local, asked, run)
    return {task: store.get(model, task) for task in tasks}


class _Costs:
    """Bytes of a pruned file and of memory, by plan: several tasks may share one, and each look opens the model."""

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
