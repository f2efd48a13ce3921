"""The budget of an answer, and the drawer that keeps it: one mechanism for all strategies.

All samples of a strategy share an `Allowance`, which the engine counts. When it is used up, what runs ends as if the
user stopped it, and what would begin does not. Every strategy then ends with what it has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from runtime.base.errors import UsageError
from runtime.base.events import Event, SampleFinished
from runtime.base.types import Completion
from runtime.engine.allowance import Allowance
from runtime.engine.sequence import Request

_BUDGET = re.compile(r"(\d{1,9})|(\d{1,6}(?:\.\d{1,3})?)\s*s")


class Drawer(Protocol):
    """Draws samples: an `Engine`, or a `Replay` of samples that one drew."""

    @property
    def slots(self) -> int: ...
    def stream(self, requests: Sequence[Request]) -> Iterator[Event]: ...
    def cancel(self, samples: Iterable[int]) -> None: ...


@dataclass(frozen=True, slots=True)
class Budget:
    """Tokens of all samples together, or seconds; the other one is None."""

    tokens: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """'4000' tokens or '30s' of time. Raises UsageError."""
        found = _BUDGET.fullmatch(text.strip().lower())
        if found is None or not float(found[1] or found[2]):
            raise UsageError(f"{text!r} is not a budget", hint="as in 4000 for tokens, or 30s for seconds")
        return cls(tokens=int(found[1])) if found[1] else cls(seconds=float(found[2]))

    def __str__(self) -> str:
        return f"{self.tokens:,} tokens" if self.tokens is not None else f"{self.seconds:g} s"


class BoundedDrawer:
    """Draws with another drawer, as far as the allowance goes.

    A request that already has an allowance keeps it, so a stage can have a part of the whole.
    """

    def __init__(self, drawer: Drawer, allowance: Allowance) -> None:
        self._drawer = drawer
        self._allowance = allowance

    @property
    def slots(self) -> int:
        return self._drawer.slots

    def cancel(self, samples: Iterable[int]) -> None:
        self._drawer.cancel(samples)

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        """As `Engine.stream`. What may not begin is finished as "cancelled" at once."""
        allowance = self._allowance
        if requests and allowance.over:
            allowance.refuse()
        if allowance.refused:
            for request in requests:
                yield SampleFinished(Completion(request.sample, "", "", (), 0, "cancelled", 0.0))
            return
        allowance.begin(len(requests))
        for event in self._drawer.stream([replace(each, allowance=each.allowance or allowance) for each in requests]):
            yield event
            # A sample that draws is stopped by the engine; those that read or wait are stopped here.
            if allowance.refused or allowance.seconds_left == 0:
                allowance.refuse()
                self._drawer.cancel([each.sample for each in requests])
