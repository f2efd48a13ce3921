"""Second tries for broken calls of tools, while other answers go on."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from dsr.serve.process.turns import Do, Turn
from runtime.base.errors import DsrError
from runtime.base.events import Event, SampleFinished, TextDrawn, ThoughtEnded, TokenDrawn, ToolCallGrew
from runtime.engine.backend import Backend
from runtime.engine.call_repair import CallRepair
from runtime.engine.sequence import Request


class Teller(Protocol):
    """Tells what happens to the samples of an ask. `over`: nothing more may be told."""

    over: bool

    def listen(self, event: Event) -> None: ...


class Repairing:
    """Listens to the samples of an ask that may call tools. `told` gets their events, with a second try for each.

    `prepare` does something in the thread that makes prompts: a second try has one, and the engine must not wait for
    it. All methods but `_prepare` run in the thread of the engine, which `do` reaches.
    """

    def __init__(
        self, requests: Sequence[Request], backend: Backend, turn: Turn, told: Teller, do: Do, prepare: Do
    ) -> None:
        self._repairs = {request.sample: CallRepair(request) for request in requests}
        self._backend, self._turn, self._told = backend, turn, told
        self._do, self._do_prepare = do, prepare

    def listen(self, event: Event) -> None:
        sample = _sample_of(event)
        if sample is None:
            self._told.listen(event)
            return
        repair = self._repairs[sample]
        for each in repair.feed(event):
            self._told.listen(each)
        if repair.broken is not None and isinstance(event, SampleFinished):
            self._do_prepare(partial(self._prepare, repair))

    def _prepare(self, repair: CallRepair) -> None:
        try:
            again = repair.request(self._backend)
        except Exception:  # a fault of dsr itself; the answer ends all the same
            traceback.print_exc()
            again = None
        self._do(partial(self._submit, repair, again))

    def _submit(self, repair: CallRepair, again: Request | None) -> None:
        if self._told.over:
            return
        if again is not None and not self._turn.withdrawn:
            try:
                self._turn.submit([again], partial(self._again, repair))
                return
            except DsrError:  # no room for it, or too many wait: the sample ends as it is
                pass
        for event in repair.give_up():
            self._told.listen(event)

    def _again(self, repair: CallRepair, event: Event) -> None:
        for each in repair.feed_again(event):
            self._told.listen(each)


def _sample_of(event: Event) -> int | None:
    if isinstance(event, SampleFinished):
        return event.completion.sample
    return event.sample if isinstance(event, (TextDrawn, ToolCallGrew, TokenDrawn, ThoughtEnded)) else None
