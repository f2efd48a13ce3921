"""Draws the tokens of one reply from rows of logits, with or without a grammar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.base.errors import OutOfGrammar
from runtime.base.types import SamplingParams
from runtime.engine.backend import Constraint
from runtime.engine.entropy import EntropySampler
from runtime.llama.chain import Chain, ChainFactory
from runtime.llama.constraint import LlamaConstraint
from runtime.llama.sampler import TopTokens, candidate_count, top_tokens


class Drawing:
    """The `Draw` of one reply, with its own random state."""

    def __init__(
        self,
        chains: ChainFactory,
        params: SamplingParams,
        seed: int,
        prompt: Sequence[int],
        context: Any,
        logits: Callable[[int], NDArray[np.float32]],
        vocab_size: int,
        found: dict[int, TopTokens],
    ) -> None:
        """`logits` returns a row of the last decode in `context`; the top tokens of a row are left in `found`.

        Raises UsageError as `ChainFactory.chain`.
        """
        self._context, self._logits, self._found = context, logits, found
        self._minimised = EntropySampler(params.entropy, seed) if params.entropy is not None else None
        self._count = candidate_count(params, vocab_size)
        self._chain: Chain | None = None
        # numpy's argmax takes a tenth of the time of the C chain, which first copies the vocabulary.
        if self._minimised is None and not chains.is_argmax(params):
            self._chain = chains.chain(params, seed, prompt)

    def __call__(
        self, row: int, reply: Sequence[int] = (), constraint: Constraint | None = None, also: Sequence[int] = ()
    ) -> int:
        logits = self._logits(row)  # the engine aborts if a row has no logits
        if constraint is not None:
            assert isinstance(constraint, LlamaConstraint)
            return self._draw_allowed(logits, reply, constraint.mask(also))
        if self._minimised is not None:
            return self._minimised.draw(logits)
        chain, count = self._chain, self._count
        if chain is None:
            return int(logits.argmax())
        if chain.plain:
            return chain.draw_row(self._context, row) if count is None else chain.draw(self._top(logits, row, count))
        chain.follow(reply)
        if count is None:
            return chain.draw_changed(logits, None)
        return chain.draw_changed(logits, lambda more: self._top(logits, row, count + more))

    def _top(self, logits: NDArray[np.float32], row: int, count: int) -> TopTokens:
        self._found[row] = found = top_tokens(logits, count)
        return found

    def _draw_allowed(self, logits: NDArray[np.float32], reply: Sequence[int], allowed: NDArray[np.bool_]) -> int:
        """Draw as if the vocabulary had the `allowed` tokens only."""
        if not allowed.any():
            raise OutOfGrammar("no token continues the answer in its grammar")
        masked = np.where(allowed, logits, np.float32(-np.inf))
        if self._minimised is not None:
            return self._minimised.draw(masked)
        chain, count = self._chain, self._count
        if chain is None:
            return int(masked.argmax())
        chain.follow(reply)
        if count is None:
            return chain.draw_changed(logits, None, allowed)
        return chain.draw_changed(logits, lambda more: top_tokens(masked, count + more), allowed)
