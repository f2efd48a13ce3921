"""What guesses the next tokens, and how often such guesses were right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

# (the chance of each next guess to be right, given that those before it were) -> how many of them to check
Worth = Callable[[Sequence[float]], int]

_PRIOR_WEIGHT = 2.0  # the first guesses count as if two had been judged before
_MEMORY = 0.95  # what a judgement still counts when the next one comes


class Drafter(Protocol):
    """Follows one text and guesses how it goes on. What becomes of a guess it learns from `follow`."""

    @property
    def kind(self) -> str: ...

    def begin(self, tokens: Sequence[int]) -> None:
        """A new text, so far `tokens`."""
        ...

    def follow(self, tokens: Sequence[int]) -> None:
        """The text went on with `tokens`."""
        ...

    def propose(self, most: int, worth: Worth) -> list[int]:
        """The next tokens, at most `most` and as many as `worth` allows; none without a guess."""
        ...

    def learn(self) -> None:
        """Guess a token that nobody will check, where `propose` gave none. Where drafts are not worth it any more,
        nothing else would tell that they are again."""
        ...


class Acceptance:
    """How often guesses turn out right, by the kind of evidence for them: a number, below that of the priors."""

    def __init__(self, priors: Sequence[float]) -> None:
        self._tried = [_PRIOR_WEIGHT] * len(priors)
        self._right = [_PRIOR_WEIGHT * prior for prior in priors]

    def chances(self, evidence: int, count: int) -> list[float]:
        """Of `count` guesses in a row, each of which has one more piece of evidence than the one before."""
        last = len(self._tried) - 1
        kinds = [min(evidence + index, last) for index in range(count)]
        return [self._right[kind] / self._tried[kind] for kind in kinds]

    def judge(self, evidence: int, guesses: Sequence[int], truth: Sequence[int]) -> None:
        """Compare what was guessed with what came, up to the first mistake: what follows that says nothing."""
        for index, (guess, token) in enumerate(zip(guesses, truth, strict=False)):
            kind = min(evidence + index, len(self._tried) - 1)
            self._tried[kind] = self._tried[kind] * _MEMORY + 1
            self._right[kind] = self._right[kind] * _MEMORY + (guess == token)
            if guess != token:
                return
