"""The state of speculation in an engine: which text the drafter follows, how it went, and whether it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from runtime.engine.sequence import Sequence
from runtime.engine.speculation.draft_controller import DraftController
from runtime.engine.speculation.drafter import Drafter


@dataclass(frozen=True, slots=True)
class DraftStatistics:
    """What became of the drafts of some samples. `tokens` were drawn in `steps` passes through the model.

    `off` says why drafting ended, None when it went on.
    """

    kind: str
    drafted: int = 0
    accepted: int = 0
    steps: int = 0
    tokens: int = 0
    off: str | None = None

    @property
    def tokens_per_step(self) -> float:
        return self.tokens / self.steps if self.steps else 0.0


class Speculation:
    """One drafter at the side of one sequence at a time."""

    def __init__(self, drafter: Drafter, now: Callable[[], float] = time.perf_counter) -> None:
        self._drafter = drafter
        self._controller = DraftController(now)
        self._sequence: Sequence | None = None
        self._followed = 0
        self._impossible = False
        self._drafted = self._accepted = self._steps = self._tokens = 0

    def propose(self, sequence: Sequence, most: int) -> list[int]:
        """At most `most` tokens that may follow what is pending."""
        if self._impossible:
            return []
        self._follow(sequence)
        self._controller.start()
        if self._controller.off_after is not None or most < 1:
            return []
        draft = self._drafter.propose(most, self._controller.worth)[:most]
        if not draft and self._controller.may_learn():
            self._drafter.learn()
            self._controller.learnt()
        return draft

    def done(self, drafted: int, tokens: int) -> None:
        """A step that checked `drafted` tokens drew `tokens`: all but the last of them had been drafted."""
        self._controller.done(drafted, tokens)
        self._drafted += drafted
        self._accepted += tokens - 1
        self._steps += 1
        self._tokens += tokens

    def give_up(self) -> None:
        """Draft no more: this model cannot remove rejected draft tokens from its cache."""
        self._impossible = True

    def take(self) -> DraftStatistics:
        """What happened since this was asked last."""
        off = None
        if self._impossible:
            off = "this model cannot forget wrong drafts"
        elif self._controller.off_after is not None:
            off = f"after {self._controller.off_after} tokens: it did not pay"
        taken = DraftStatistics(self._drafter.kind, self._drafted, self._accepted, self._steps, self._tokens, off)
        self._drafted = self._accepted = self._steps = self._tokens = 0
        return taken

    def _follow(self, sequence: Sequence) -> None:
        if sequence is not self._sequence:
            self._sequence = sequence
            self._controller.begin()
            self._drafter.begin([*sequence.request.prompt.tokens, *sequence.tokens])
        elif self._controller.off_after is None:
            self._drafter.follow(sequence.tokens[self._followed :])
        self._followed = len(sequence.tokens)
