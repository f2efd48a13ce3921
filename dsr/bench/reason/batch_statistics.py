"""Counts the passes of the engine by size while samples are drawn, to compare their time with a prediction.

Samples of many questions begin and end at different times, so the steps differ.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from dsr.loading.predict import Predictor
from dsr.store.predictions import PredictedRun
from runtime.engine.backend import Backend, Batch


class BatchStatistics:
    """Counts the passes of a backend by size, and the seconds of drawing."""

    def __init__(self, forecast: Predictor | None) -> None:
        self._forecast = forecast
        self._passes: Counter[tuple[int, int]] = Counter()  # (tokens, of them drawn from)
        self._attended: Counter[tuple[int, int]] = Counter()  # cached tokens before those of the passes, by the same
        self.seconds = 0.0

    def watched(self, backend: Backend) -> Backend:
        """Returns the backend, whose passes are counted from now on."""
        return cast("Backend", _Watched(backend, self))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Counts the time of the block as drawing."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started

    def count(self, batch: Batch) -> None:
        size = len(batch.tokens), len(batch.outputs)
        self._passes[size] += 1
        self._attended[size] += sum(batch.positions) // size[0]

    def compared(self, model: str) -> PredictedRun | None:
        """Returns predicted and measured speed; None without a prediction, and when too little was drawn."""
        if self._forecast is None:
            return None
        passes = [
            (tokens, drawn, self._attended[tokens, drawn] // count, count)
            for (tokens, drawn), count in self._passes.items()
        ]
        return self._forecast.compared_passes(model, passes, self.seconds)


class _Watched:
    def __init__(self, backend: Backend, statistics: BatchStatistics) -> None:
        self._backend = backend
        self._statistics = statistics

    def decode(self, batch: Batch) -> None:
        self._backend.decode(batch)
        self._statistics.count(batch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)
