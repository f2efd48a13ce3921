"""How long a node or the engine may be silent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SilenceLimits:
    """Seconds of silence after which a node or the engine counts as stalled.

    While the model loads: `answer` for an answer that a node owes, `loading` between two signs of progress. Later:
    `silence`, plus `times` the expected time of the batch's tokens. Less than 10 kB per second counts as silence.
    """

    loading: float = 120.0
    answer: float = 30.0
    silence: float = 15.0
    times: float = 4.0

    def of_tokens(self, tokens: int, per_token: float) -> float:
        """Seconds for a batch of so many tokens, each of which is expected to take `per_token` seconds."""
        return self.silence + self.times * tokens * per_token
