"""The experts of a conversation: dsr reads its first question up to the first router and matches its task.

The idea is PreMoe's (arXiv 2505.17639); `quant.experts.task_match` says how dsr differs.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dsr.experts.keep import choose_keep
from dsr.experts.profile import profile_store
from dsr.experts.pruned_cache import probe_file, pruned_file
from dsr.loading.options import AUTO, ExpertsRequest
from dsr.loading.tried_files import try_once
from dsr.models.model import Model
from quant.experts.expert_tensors import expert_layers
from quant.experts.profile import Profile, router_digest
from quant.experts.prune_plan import keep_count, min_keep, plan_prune
from quant.experts.pruned_metadata import read_kept_experts
from quant.experts.scores import DEFAULT_SCORE
from quant.experts.task_match import Match, match_task, question_key
from quant.measure.chunks import settle_threads
from quant.measure.routers import RouterReader, open_router_reader
from runtime.base.errors import BadModelFile, DoesNotFit, EngineFailed, Incompatible, UsageError
from runtime.base.events import Notice
from runtime.base.run import Run
from runtime.base.types import ByteCount, Message, counted
from runtime.engine.template import Prompt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Of a long question (with a file in front), the last tokens are enough.
_MAX_TOKENS = 2048
_SMALL = 256 << 20  # bytes of a file that one thread reads before two threads could be measured


@dataclass(frozen=True, slots=True)
class Selection:
    """`model` is the file to open: `kept` experts in each layer, `of` the `of` experts of the model.

    `task` is None when no task matches, so that all experts are kept. `certainty` is None when nothing was compared.
    `lost_weight` is the share of the routing weight that the removed experts have in the task's profile. `kld` is
    the measured divergence from the whole model; `exceeds_limit`: it is above the limit. `saved` is in bytes.
    """

    model: Model
    task: str | None
    certainty: float | None
    kept: int
    of: int
    why: str = ""
    lost_weight: float = 0.0
    saved: int = 0
    kld: float | None = None
    exceeds_limit: bool = False

    def line(self) -> str:
        """'experts: addsub (sure: 0.98), 5 of 16 kept, 6.1 MiB less, 1% of routing weight lost, KLD 0.01 ...'"""
        named = "" if self.task is None else self.task
        if self.task is not None and self.certainty is not None:
            named += f" (sure: {self.certainty:.2f})"
        parts = [named] if named else []
        if self.kept == self.of:
            parts.append(f"all {self.of} kept")
        else:
            parts += [
                f"{self.kept} of {self.of} kept",
                f"{ByteCount(self.saved)} less",
                f"{self.lost_weight:.1%} of the routing weight lost",
            ]
            parts += [] if self.kld is None else [f"KLD {self.kld:.3f} measured"]
        return f"experts: {', '.join(parts)}{': ' if self.why else ''}{self.why}"

    def json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "certainty": None if self.certainty is None else round(self.certainty, 4),
            "kept": self.kept,
            "of": self.of,
            "lost": round(self.lost_weight, 6),
            "bytes_saved": self.saved,
            "kld": None if self.kld is None else round(self.kld, 6),
        }


class Selector:
    """Finds the experts for the questions of one model. A context manager: it keeps the model's first layers open."""

    def __init__(self, model: Model, request: ExpertsRequest) -> None:
        """Raises Incompatible (a dense model), UsageError (an impossible number to keep), NotFound (no such task), and
        what reading a profile raises."""
        self.model, self.request = model, request
        self._card = model.card
        expert_layers(self._card)
        if request.keep.casefold() != AUTO:
            keep = keep_count(request.keep, self._card.experts)
            if keep < (least := min_keep(self._card)):
                raise UsageError(
                    f"--keep {request.keep} is {counted(keep, 'expert')}, but each token uses {least}",
                    hint=f"--keep {least} or more, or --keep auto",
                )
        self._digest = router_digest(self._card)
        self._store = profile_store()
        self._profiles: dict[str, Profile] = {}
        if request.task != AUTO:
            self._profiles[request.task] = self._store.get(self._digest, request.task)
        self._unreadable: list[str] = []
        for task in self._store.tasks(self._digest):
            try:
                self._profiles[task] = self._store.get(self._digest, task)
            except (BadModelFile, Incompatible) as error:  # the other profiles are usable
                self._unreadable.append(error.message)
        self._stack = ExitStack()
        self._reader: tuple[RouterReader, Callable[[list[Message]], Prompt]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._reader = None
        self._stack.close()

    @property
    def can_compare(self) -> bool:
        """Whether there are profiles with questions to compare with."""
        return bool(self._keys())

    @property
    def needs_question(self) -> bool:
        """Whether the first question decides."""
        return self.request.task == AUTO and self.can_compare

    def select(self, question: str | None, run: Run) -> Selection:
        """The experts for a conversation that begins with `question`, None before the first question."""
        while self._unreadable:
            run.listen(Notice(f"ignored: {self._unreadable.pop()}"))
        if self.request.task != AUTO:
            return self._pruned(self.request.task, None, run)
        if not self._profiles:
            return self._all(None, self._why_no_profile())
        if not self.can_compare:
            tasks = ", ".join(self._profiles)
            return self._all(None, f"{tasks}: profiled from text, without questions to compare with; name a task")
        if question is None:
            return self._all(None, "the first question decides")
        found = self.match(question, run)
        if found.task is None:
            nearest = f" ({found.ranking[0][0]}: {found.certainty:.2f})" if found.ranking else ""
            return self._all(found.certainty, f"the question matches no task{nearest}")
        return self._pruned(found.task, found.certainty, run)

    def match(self, question: str, run: Run) -> Match:
        """Compares a question with the profiled tasks.

        Raises Incompatible (the template fails), EngineFailed, Aborted.
        """
        return match_task(self._key(question, run), self._keys())

    def _keys(self) -> dict[str, NDArray[np.float32]]:
        return {task: profile.keys for task, profile in self._profiles.items() if len(profile.keys)}

    def _key(self, question: str, run: Run) -> NDArray[np.float32]:
        """The key of the question alone, without earlier turns, like the keys of a profile."""
        reader, prompt_of = self._opened(run)
        prompt = prompt_of([Message("user", question)]).tokenized(reader.model.tokenize)
        return question_key(reader.first_logits(list(prompt.tokens[-_MAX_TOKENS:])))

    def _opened(self, run: Run) -> tuple[RouterReader, Callable[[list[Message]], Prompt]]:
        if self._reader is None:
            chat_format = self.model.chat_format()
            window, file = min(_MAX_TOKENS, self._card.context_length), self._first_layers(run)
            reader = self._stack.enter_context(open_router_reader(file, window, replace(run, threads=None)))
            settle_threads(reader.model, 1 if file.stat().st_size < _SMALL else run.threads)
            self._reader = reader, chat_format.prompt
        return self._reader

    def _first_layers(self, run: Run) -> Path:
        """A file with the model's first layers, or the whole model if the engine does not open them alone.

        The engine distinguishes some architectures by their number of layers (DeepSeek-V2-Lite, deepseek2.cpp).
        """
        try:
            path = probe_file(self._card, self._digest, run=run)[0]
            try_once(self.model.with_file(path), run)
            return path
        except (DoesNotFit, EngineFailed, BadModelFile):
            try_once(self.model, run)
            return self._card.path

    def _why_no_profile(self) -> str:
        if read_kept_experts(self._card) is not None:
            return "this file has no other experts"
        command = f"dsr experts profile {shlex.quote(self.model.absolute_reference)}"
        more = "" if self.model.embedded else " --task NAME --suite FILE"
        return f"this model has no task profile; make one: {command}{more}"

    def _all(self, certainty: float | None, why: str, task: str | None = None) -> Selection:
        return Selection(self.model, task, certainty, self._card.experts, self._card.experts, why)

    def _pruned(self, task: str, certainty: float | None, run: Run) -> Selection:
        card, profile = self._card, self._profiles[task]
        try_once(self.model, run)
        choice = choose_keep(card, self._digest, [profile], self.request.keep, DEFAULT_SCORE, run=run)
        if choice.keep == card.experts:
            asked = self.request.keep.casefold() != AUTO
            return self._all(certainty, "" if asked else "with fewer experts its answers would change", task)
        plan = plan_prune(card, [profile], choice.keep)
        try:
            path, new = pruned_file(card, plan, self._digest, run=run)
        except DoesNotFit as error:
            return self._all(certainty, f"no room for the file with {choice.keep}: {error.message}", task)
        if new:
            run.listen(Notice(f"experts: wrote {path} for this and later conversations"))
        return Selection(
            model=self.model.with_file(path),
            task=task,
            certainty=certainty,
            kept=plan.keep,
            of=plan.experts,
            lost_weight=plan.lost_weight,
            saved=plan.weights_before - plan.weights_after,
            kld=choice.point.kld.value,
            exceeds_limit=choice.exceeds_limit,
        )
