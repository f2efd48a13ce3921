"""Reads whole windows of text and returns the logits of every token."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.base.errors import EngineFailed
from runtime.base.run import Run
from runtime.engine.backend import ROWS, Batch
from runtime.llama.backend import LlamaBackend, logits_address
from runtime.llama.open_options import OpenOptions


class Scorer(LlamaBackend):
    """A model opened to read windows of text, with logits for every token."""

    _rows = ROWS  # the most tokens of a pass

    def __init__(self, path: Path, *, window: int, run: Run | None = None) -> None:
        """`window` is the largest number of tokens in a text. Without `run.threads` one thread computes.

        Raises as LlamaBackend does.
        """
        run = run or Run()
        super().__init__(path, OpenOptions(context=window, threads=run.threads or 1, rows=self._rows), run)

    def _context_params(self) -> Any:
        params = super()._context_params()
        params.n_seq_max = 1
        # One pass through the graph per batch: it bounds the logits in memory, and llama-perplexity -b 512 does the
        # same, so that the numbers agree to the last digit.
        params.n_batch = params.n_ubatch = params.n_outputs_max = self.batch_size
        return params

    def score(self, tokens: Sequence[int], first: int = 0) -> Iterator[NDArray[np.float32]]:
        """Reads a text with an empty cache. Yields the logits of its tokens from number `first` on in blocks (rows,
        vocabulary). Each block is a view that is valid until the next one."""
        self.trim(0, 0)
        for start in range(0, len(tokens), self.batch_size):
            piece = tokens[start : start + self.batch_size]
            count = len(piece)
            wanted = range(min(max(first - start, 0), count), count)
            self.decode(Batch(list(piece), [*range(start, start + count)], [0] * count, [*wanted]))
            if wanted:
                address = logits_address(self._context, wanted[0])
                if not address:
                    raise EngineFailed("the last batch has no logits")
                block = (ctypes.c_float * (self._vocab_size * len(wanted))).from_address(address)
                yield np.ctypeslib.as_array(block).reshape(len(wanted), self._vocab_size)
