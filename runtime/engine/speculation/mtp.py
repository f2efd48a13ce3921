"""Drafts from the model's own layers that predict ahead (multi-token prediction)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from runtime.engine.speculation.drafter import Acceptance, Worth

# A layer that goes on from its own guesses gets worse with each, and recurrent models keep a state for each token of a
# draft. llama.cpp's default is 3.
LONGEST_AHEAD = 4

# Of the second token DeepSeek-V3 accepts 85 to 90 % (arXiv 2412.19437, section 5.4.3). Of later ones it will be less,
# but only drafts can be judged.
_EXPECTED = 0.85


class PredictingLayers(Protocol):
    """What `runtime.llama` offers of a model that was opened with these layers."""

    def guess(self, token: int, position: int, count: int) -> list[int]:
        """At most `count` tokens that follow `token`, which is pending at `position`, where a text has got to."""
        ...


class MtpDrafter:
    """Asks the layers, which follow the model by themselves, once for each token."""

    kind = "mtp"

    def __init__(self, layers: PredictingLayers) -> None:
        self._layers = layers
        self._acceptance = Acceptance([_EXPECTED] * LONGEST_AHEAD)
        self.begin(())

    def begin(self, tokens: Sequence[int]) -> None:
        self._length = 0
        self._guess: list[int] = []
        self.follow(tokens)

    def follow(self, tokens: Sequence[int]) -> None:
        self._acceptance.judge(0, self._guess, tokens)
        self._guess = []
        self._length += len(tokens)
        if tokens:
            self._last = tokens[-1]

    def propose(self, most: int, worth: Worth) -> list[int]:
        return self._guessed(worth(self._acceptance.chances(0, min(most, LONGEST_AHEAD))))

    def learn(self) -> None:
        self._guessed(1)

    def _guessed(self, count: int) -> list[int]:
        if not count or not self._length:
            return []
        self._guess = self._layers.guess(self._last, self._length - 1, count)
        return self._guess
