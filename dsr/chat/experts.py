"""The experts of a conversation: the first question chooses them, and they stay until the user changes them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from dsr.loading.options import AUTO, ExpertsRequest
from dsr.models.model import Model
from dsr.ui.console import Console
from dsr.ui.interrupts import stopping
from dsr.ui.progress import showing
from runtime.base.run import Run, Stop

if TYPE_CHECKING:
    from dsr.experts.selection import Selection, Selector
    from quant.experts.task_match import Match


class Experts:
    """The request and the experts in use.

    `request` is None for all experts. `selection` is None for all experts, and before the first model.
    """

    def __init__(
        self, request: ExpertsRequest | None, console: Console, stop: Stop, threads: int | None = None
    ) -> None:
        self.request = request
        self.selection: Selection | None = None
        self.base: Model | None = None  # the model with all its experts
        self._console, self._stop, self._threads = console, stop, threads
        self._selector: Selector | None = None
        self._undecided = True
        self._warned: set[str | None] = set()  # the tasks of earlier warnings, None for no task
        self._open: Model | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def needs_question(self, model: Model) -> bool:
        """Whether the first question decides which file of this model to open."""
        return self.request is not None and self._undecided and self._selector_for(model, self.request).needs_question

    def model_for(self, model: Model, question: str | None) -> Model:
        """The model to open for a conversation with `model` that begins with `question`; None before any question.

        Raises what `Selector` raises.
        """
        self.base = model
        if self.request is None:
            self.selection = None
        elif self._selector is None or self._selector.model != model or self._undecided:
            self._decide(self._selector_for(model, self.request), question)
        self._open = model if self.selection is None else self.selection.model
        return self._open

    def before_question(self, question: str) -> bool:
        """Call this before each question. True when another file must be opened first.

        The first question decides. A later question that needs other experts gives a warning.
        """
        if self._selector is None or self.request is None or self._open is None:
            return False
        if self._undecided:
            self._decide(self._selector, question)
            return self.selection is not None and self.selection.model != self._open
        if self.selection is not None and self.selection.kept < self.selection.of and self._selector.can_compare:
            with self._run() as run:
                found = self._selector.match(question, run)
            if warning := task_warning(found, self.selection, self._warned):
                self._warned.add(found.task)
                self._console.warn(warning)
        return False

    def change(self, model: Model, request: ExpertsRequest | None) -> None:
        """Use other experts of `model` from now on. Raises what `Selector` raises, and changes nothing then."""
        if request is not None:
            self._selector_for(model, request)
        self.request, self._undecided = request, True
        if request is None:
            self._console.say("experts: all")

    def reset(self) -> None:
        """The next question decides again, unless the request names a task."""
        self._undecided = self.request is not None and self.request.task == AUTO

    def close(self) -> None:
        if self._selector is not None:
            self._selector.close()
        self._selector = None

    def _selector_for(self, model: Model, request: ExpertsRequest) -> Selector:
        # A chat with all experts does not import numpy.
        from dsr.experts.selection import Selector

        now = self._selector
        if now is None or now.model != model or now.request != request:
            new = Selector(model, request)
            self.close()
            self._selector, self._undecided = new, True
            return new
        return now

    def _decide(self, selector: Selector, question: str | None) -> None:
        with self._run() as run:
            self.selection = selector.select(question, run)
        self._undecided = question is None and selector.needs_question
        self._warned.clear()
        self._console.say(self.selection.line())
        if self.selection.exceeds_limit:
            self._console.warn("the answers will be worse with so few experts; --keep auto keeps as many as needed")

    @contextmanager
    def _run(self) -> Iterator[Run]:
        with showing(self._console) as listen, stopping(self._stop):
            yield Run(self._stop, listen, self._threads)


def task_warning(found: Match, selection: Selection, warned: Collection[str | None]) -> str | None:
    """The warning for a question that matches another task than `selection`, once for each task.

    A question without a task may be a mere "and why?", so that warning comes only once, too.
    """
    if selection.task is None or found.task in (selection.task, *warned):
        return None
    if found.task is None:
        return (
            f"this question matches no task, and only the experts for {selection.task} are loaded; "
            "for all: /experts off"
        )
    return (
        f"this looks like {found.task} (sure: {found.certainty:.2f}), but the experts for {selection.task} are loaded; "
        f"to change: /experts {found.task}"
    )
