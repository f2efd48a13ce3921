"""Which experts a conversation needs: its first question is read up to the first router, and finds its task.

The idea is PreMoe's (arXiv 2505.17639); what is done otherwise stands in quant.experts.retrieval.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dsr.experts.damage import choose
from dsr.experts.profile import store_of_profiles
from dsr.experts.pruned_files import pruned_file, scout_file
from dsr.experts.request import AUTO, ExpertsRequest
from dsr.loading.trial import try_once
from dsr.models.model import Model
from quant.experts.profiles import Profile, router_digest
from quant.experts.prune import DEFAULT_SCORE, expert_layers, kept_number, least_keep, plan
from quant.experts.pruned_keys import Pruned
from quant.experts.retrieval import Match, key, match
from quant.measure.chunks import settle_threads
from quant.measure.routers import RouterReader, open_router_reader
from runtime.base.errors import BadModelFile, DoesNotFit, EngineFailed, Incompatible, UsageError
from runtime.base.events import Listener, Notice, ignore
from runtime.base.run import Run, Stop
from runtime.base.types import ByteCount, Message
from runtime.base.words import counted
from runtime.engine.prompt import Prompt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A question with a file in front may be long, and its end tells what it is about as well.
_MOST_TOKENS = 2048
_SMALL = 256 << 20  # bytes that one thread has read before it is known whether two are faster


@dataclass(frozen=True, slots=True)
class Selection:
    """The experts that a conversation is held with, and why. `local` is the file to open.

    `task` is None where all `of` experts of a layer are kept because no task was found; `certainty` is None where
    nothing was compared. `lost` is the share of the gate's weight that the others had in the profile, `kld` the
    measured divergence from the whole model, `hurts` that it is more than does no harm, `saved` how many bytes less.
    """

    local: Model
    task: str | None
    certainty: float | None
    kept: int
    of: int
    why: str = ""
    lost: float = 0.0
    saved: int = 0
    kld: float | None = None
    hurts: bool = False

    def line(self) -> str:
        """'experts: addsub (sure: 0.98), 5 of 16 kept, 6.1 MiB less, 1% of the gate's weight lost, KLD 0.01 ...'"""
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
                f"{self.lost:.1%} of the gate's weight lost",
            ]
            parts += [] if self.kld is None else [f"KLD {self.kld:.3f} measured"]
        return f"experts: {', '.join(parts)}{': ' if self.why else ''}{self.why}"

    def json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "certainty": None if self.certainty is None else round(self.certainty, 4),
            "kept": self.kept,
            "of": self.of,
            "lost": round(self.lost, 6),
            "bytes_saved": self.saved,
            "kld": None if self.kld is None else round(self.kld, 6),
        }


class Retriever:
    """Finds the experts for the questions of one model. A context manager: from the first question on it has the
    model's first layers open."""

    def __init__(
        self,
        local: Model,
        request: ExpertsRequest,
        *,
        threads: int | None = None,
        stop: Stop | None = None,
    ) -> None:
        """Raises Incompatible (a dense model), UsageError (a number to keep that does not go), NotFound (no such
        task), and what reading a profile raises."""
        self.local, self.request = local, request
        self._threads, self._stop = threads, stop
        self._card = local.card
        expert_layers(self._card)
        if request.keep.casefold() != AUTO:
            keep = kept_number(request.keep, self._card.experts)
            if keep < (least := least_keep(self._card)):
                raise UsageError(
                    f"--keep {request.keep} is {counted(keep, 'expert')}, and each token uses {least}",
                    hint=f"--keep {least} at least, or --keep auto",
                )
        self._digest = router_digest(self._card)
        self._store = store_of_profiles()
        self._profiles: dict[str, Profile] = {}
        if request.task != AUTO:
            self._profiles[request.task] = self._store.get(self._digest, request.task)
        self._unreadable: list[str] = []
        for task in self._store.tasks(self._digest):
            try:
                self._profiles[task] = self._store.get(self._digest, task)
            except (BadModelFile, Incompatible) as error:  # the others can be used all the same
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
    def compares(self) -> bool:
        """Whether there is anything to compare a question with."""
        return bool(self._comparable())

    @property
    def needs_question(self) -> bool:
        """Whether it takes a question to decide."""
        return self.request.task == AUTO and self.compares

    def select(self, question: str | None, listen: Listener = ignore) -> Selection:
        """The experts for a conversation that begins with `question`, None where nobody asked yet."""
        while self._unreadable:
            listen(Notice(f"left out: {self._unreadable.pop()}"))
        if self.request.task != AUTO:
            return self._pruned(self.request.task, None, listen)
        if not self._profiles:
            return self._all(None, self._why_no_profile())
        if not self._comparable():
            tasks = ", ".join(self._profiles)
            return self._all(None, f"{tasks}: profiled from text, without questions to compare with; name a task")
        if question is None:
            return self._all(None, "the first question decides")
        found = self.recognise(question, listen)
        if found.task is None:
            nearest = f" ({found.ranking[0][0]}: {found.certainty:.2f})" if found.ranking else ""
            return self._all(found.certainty, f"the question is like no task{nearest}")
        return self._pruned(found.task, found.certainty, listen)

    def recognise(self, question: str, listen: Listener = ignore) -> Match:
        """Compare a question with the stored tasks. Raises Incompatible (the template fails), EngineFailed, Aborted."""
        return match(self._key(question, listen), self._comparable())

    def _comparable(self) -> dict[str, NDArray[np.float32]]:
        return {task: profile.keys for task, profile in self._profiles.items() if len(profile.keys)}

    def _key(self, question: str, listen: Listener) -> NDArray[np.float32]:
        """The question alone is read, as the questions of a profile were, whatever was said before."""
        reader, prompt_of = self._opened(listen)
        prompt = prompt_of([Message("user", question)]).tokenized(reader.model.tokenize)
        return key(reader.first_logits(list(prompt.tokens[-_MOST_TOKENS:])))

    def _opened(self, listen: Listener) -> tuple[RouterReader, Callable[[list[Message]], Prompt]]:
        if self._reader is None:
            chat_format = self.local.chat_format()
            window, file = min(_MOST_TOKENS, self._card.context_length), self._first_layers(listen)
            run = Run(self._stop or Stop(), listen)
            reader = self._stack.enter_context(open_router_reader(file, window, run))
            settle_threads(reader.model, 1 if file.stat().st_size < _SMALL else self._threads)
            self._reader = reader, chat_format.prompt
        return self._reader

    def _first_layers(self, listen: Listener) -> Path:
        """A file with the model's first layers, or the model where the engine does not take them alone.

        Some architectures are told apart by their number of layers (DeepSeek-V2-Lite in llama.cpp's deepseek2.cpp).
        """
        try:
            path = scout_file(self._card, self._digest, stop=self._stop, listen=listen)[0]
            try_once(self.local.with_file(path))
            return path
        except (DoesNotFit, EngineFailed, BadModelFile):
            try_once(self.local)
            return self._card.path

    def _why_no_profile(self) -> str:
        if Pruned.of(self._card) is not None:
            return "the others were removed from this file for good"
        command = f"dsr experts profile {shlex.quote(self.local.absolute_reference)}"
        more = "" if self.local.embedded else " --task NAME --suite FILE"
        return f"no task of this model was profiled; to do so: {command}{more}"

    def _all(self, certainty: float | None, why: str, task: str | None = None) -> Selection:
        return Selection(self.local, task, certainty, self._card.experts, self._card.experts, why)

    def _pruned(self, task: str, certainty: float | None, listen: Listener) -> Selection:
        card, profile = self._card, self._profiles[task]
        try_once(self.local)
        kept = choose(
            card,
            self._digest,
            [profile],
            self.request.keep,
            DEFAULT_SCORE,
            threads=self._threads,
            stop=self._stop,
            listen=listen,
        )
        if kept.keep == card.experts:
            asked = self.request.keep.casefold() != AUTO
            return self._all(certainty, "" if asked else "with fewer its answers would change", task)
        chosen = plan(card, [profile], kept.keep)
        try:
            path, new = pruned_file(card, chosen, self._digest, stop=self._stop, listen=listen)
        except DoesNotFit as error:
            return self._all(certainty, f"there is no room for the file with {kept.keep}: {error.message}", task)
        if new:
            listen(Notice(f"experts: written for the next time, too: {path}"))
        return Selection(
            local=self.local.with_file(path),
            task=task,
            certainty=certainty,
            kept=chosen.keep,
            of=chosen.experts,
            lost=chosen.mean_lost,
            saved=chosen.weights_before - chosen.weights_after,
            kld=kept.damage.kld.value,
            hurts=kept.hurts,
        )
