"""`dsr experts profile`: makes and stores a profile for each task of a suite, or for a text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsr.experts.profiler import ProfiledTask, Profiler, ProfileRequest
from dsr.models.model import Model
from dsr.store import paths
from dsr.suites import suites
from dsr.suites.suites import Problem, Suite
from quant.experts.expert_tensors import routed_layers
from quant.experts.profile_store import ProfileStore, router_digest
from quant.experts.task_profile import Profile, check_task
from quant.measure.routers import check_tcess
from runtime.base.errors import Aborted, NotFound, UsageError
from runtime.base.events import Listener, Notice
from runtime.base.run import Run

EMBEDDED_SUITE = "nano-profile"


@dataclass(frozen=True, slots=True)
class StoredProfile:
    """A profile that this command made, and its file."""

    made: ProfiledTask
    path: Path

    @property
    def profile(self) -> Profile:
        return self.made.profile

    def json(self) -> dict[str, Any]:
        profile = self.profile
        return {
            "task": profile.task,
            "file": str(self.path),
            "bytes": self.path.stat().st_size,
            "questions": len(profile.keys),
            "tokens": profile.tokens,
            "origin": profile.origin,
            "unreached": {str(layer): list(experts) for layer, experts in profile.unreached.items()},
            "drawing_seconds": round(self.made.answer_seconds, 3),
            "reading_seconds": round(self.made.read_seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class ProfileResult:
    """The new profiles. `kept` are tasks that had a profile before; `interrupted`: tasks are left without a profile."""

    model: str
    digest: str
    experts: int
    profiled: tuple[StoredProfile, ...]
    kept: tuple[str, ...]
    interrupted: bool = False

    def json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "digest": self.digest,
            "experts": self.experts,
            "profiles": [each.json() for each in self.profiled],
            "kept": list(self.kept),
            "interrupted": self.interrupted,
        }


def make_profiles(model: Model, request: ProfileRequest, run: Run) -> ProfileResult:
    """Profiles task after task. When it is stopped, the finished profiles stay.

    Raises UsageError, NotFound, Incompatible for a dense model, what opening a model raises, Aborted when it is
    stopped before the first profile.
    """
    routed_layers(model.card)
    check_tcess(request.top, request.threshold)
    if request.text is not None:
        suite: Suite | None = None
        tasks: dict[str, tuple[Problem, ...]] = {_task_of_text(request): ()}
    else:
        suite = _suite(model, request, run.listen)
        tasks = tasks_of(suite, request.task, request.limit)
    digest, store = router_digest(model.card), profile_store()
    known = () if request.force else tuple(task for task in tasks if task in store.tasks(digest))
    if len(known) == len(tasks):
        which = f"the task {known[0]} has" if len(known) == 1 else f"all {len(known)} tasks have"
        raise UsageError(f"{which} a profile already", hint="--force makes it again")
    if known:
        run.listen(Notice(f"kept from an earlier run: {', '.join(known)}"))
    profiler, done, interrupted = Profiler(model, request, run), list[StoredProfile](), False
    try:
        for task, problems in tasks.items():
            if task in known:
                continue
            if suite is not None:
                made = profiler.from_answers(suite, task, problems)
            else:
                assert request.text is not None
                made = profiler.from_text(task, request.text)
            done.append(StoredProfile(made, store.put(digest, made.profile)))
    except Aborted:
        if not done:
            raise
        interrupted = True
    return ProfileResult(model.absolute_reference, digest, model.card.experts, tuple(done), known, interrupted)


def profile_store() -> ProfileStore:
    """The store of the profiles of all models."""
    return ProfileStore(paths.experts_folder())


def tasks_of(suite: Suite, task: str | None, limit: int) -> dict[str, tuple[Problem, ...]]:
    """The first `limit` problems of each task, or of `task` alone. `task` names a suite without tasks.

    Raises UsageError, NotFound.
    """
    found: dict[str, list[Problem]] = {}
    for problem in suite.problems:
        if problem.task:
            found.setdefault(problem.task, []).append(problem)
    if not found:
        if task is None:
            raise UsageError(f"the suite {suite.name} has no tasks", hint="give it a name: --task mathematics")
        found = {task: list(suite.problems)}
    elif task is not None:
        if task not in found:
            raise NotFound(f"the suite {suite.name} has no task {task!r}", hint=f"it has: {', '.join(found)}")
        found = {task: found[task]}
    for each in found:
        check_task(each)
    return {each: tuple(problems[:limit]) for each, problems in found.items()}


def _suite(model: Model, request: ProfileRequest, listen: Listener) -> Suite:
    if request.suite is None and not model.embedded:
        raise UsageError(
            "no questions are given for the model to answer",
            hint="--suite gsm8k --task mathematics, or --text FILE --task NAME",
        )
    return suites.find(request.suite or EMBEDDED_SUITE, listen)


def _task_of_text(request: ProfileRequest) -> str:
    if request.suite is not None:
        raise UsageError("--suite and --text exclude each other")
    if request.task is None:
        raise UsageError("--text needs the name of its task", hint="for example --task mathematics")
    check_task(request.task)
    return request.task
