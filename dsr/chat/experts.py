"""The experts of a conversation: the first question chooses them, and they stay until the user chooses others."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from dsr.experts.request import AUTO, ExpertsRequest
from dsr.models.model import Model
from dsr.ui.console import Console
from dsr.ui.interrupts import stopping
from dsr.ui.progress import showing
from runtime.base.events import Listener
from runtime.base.run import Stop

if TYPE_CHECKING:
    from dsr.experts.retrieve import Retriever, Selection
    from quant.experts.retrieval import Match


class Experts:
    """The wanted and the loaded experts. `selection` is None for all experts, and before the first model."""

    def __init__(self, wanted: ExpertsRequest | None, console: Console, stop: Stop, threads: int | None = None) -> None:
        self.wanted = wanted
        self.selection: Selection | None = None
        self._console, self._stop, self._threads = console, stop, threads
        self._retriever: Retriever | None = None
        self._undecided = True
        self._told: set[str | None] = set()  # tasks that were warned of, None for no task
        self.base: Model | None = None  # the model with all its experts
        self._open: Model | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def waits(self, local: Model) -> bool:
        """Whether a question is needed to choose the experts of this model."""
        return self.wanted is not None and self._undecided and self._retriever_for(local, self.wanted).needs_question

    def file_for(self, local: Model, question: str | None) -> Model:
        """The model file to open for a conversation with `local` that begins with `question`.

        Raises what `Retriever` does.
        """
        self.base = local
        if self.wanted is None:
            self.selection = None
        elif self._retriever is None or self._retriever.local != local or self._undecided:
            self._decide(self._retriever_for(local, self.wanted), question)
        self._open = local if self.selection is None else self.selection.local
        return self._open

    def turn(self, question: str) -> bool:
        """Whether another file must be opened before this question is answered.

        The first question decides. A later question that needs other experts makes a warning.
        """
        if self._retriever is None or self.wanted is None or self._open is None:
            return False
        if self._undecided:
            self._decide(self._retriever, question)
            return self.selection is not None and self.selection.local != self._open
        if self.selection is not None and self.selection.kept < self.selection.of and self._retriever.compares:
            with self._listening() as listen:
                found = self._retriever.recognise(question, listen)
            if warning := drift(found, self.selection, self._told):
                self._told.add(found.task)
                self._console.warn(warning)
        return False

    def change(self, local: Model, wanted: ExpertsRequest | None) -> None:
        """Choose other experts of `local` from now on. Raises as `Retriever` does; then nothing has changed."""
        if wanted is not None:
            self._retriever_for(local, wanted)
        self.wanted, self._undecided = wanted, True
        if wanted is None:
            self._console.say("experts: all")

    def forget(self) -> None:
        """The next question chooses again, where a question chooses."""
        self._undecided = self.wanted is not None and self.wanted.task == AUTO

    def close(self) -> None:
        if self._retriever is not None:
            self._retriever.close()
        self._retriever = None

    def _retriever_for(self, local: Model, wanted: ExpertsRequest) -> Retriever:
        # Imported late: a chat with all experts does not need numpy.
        from dsr.experts.retrieve import Retriever

        now = self._retriever
        if now is None or now.local != local or now.request != wanted:
            new = Retriever(local, wanted, threads=self._threads, stop=self._stop)
            self.close()
            self._retriever, self._undecided = new, True
            return new
        return now

    def _decide(self, retriever: Retriever, question: str | None) -> None:
        with self._listening() as listen:
            self.selection = retriever.select(question, listen)
        self._undecided = question is None and retriever.needs_question
        self._told.clear()
        self._console.say(self.selection.line())
        if self.selection.hurts:
            self._console.warn("so few experts will hurt its answers; --keep auto keeps as many as it takes")

    @contextmanager
    def _listening(self) -> Iterator[Listener]:
        with showing(self._console) as listen, stopping(self._stop):
            yield listen


def drift(found: Match, present: Selection, told: Collection[str | None]) -> str | None:
    """A warning for a question that is `found` to need other experts than those `present`, once for each task.

    A question like no task may be just "and why?", so that warning comes only once too.
    """
    if present.task is None or found.task in (present.task, *told):
        return None
    if found.task is None:
        return f"this is like no task, and only the experts for {present.task} are loaded; for all: /experts off"
    return (
        f"this looks like {found.task} (sure: {found.certainty:.2f}), and the experts for {present.task} are loaded; "
        f"to change: /experts {found.task}"
    )
