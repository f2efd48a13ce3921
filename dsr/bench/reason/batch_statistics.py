"""What the engine was asked to compute while samples were drawn, so that the time it took can be held against a
forecast: samples of many questions come and go, and no two steps are alike."""

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
    """Counts the passes of a backend by their size, and the seconds that drawing takes."""

    def __init__(self, forecast: Predictor | None) -> None:
        self._forecast = forecast
        self._passes: Counter[tuple[int, int]] = Counter()  # (tokens, of them drawn from)
        self._attended: Counter[tuple[int, int]] = Counter()  # cached tokens before those of the passes, by the same
        self.seconds = 0.0

    def watched(self, backend: Backend) -> Backend:
        """The same backend, counted."""
        return cast("Backend", _Watched(backend, self))

    @contextmanager
    def running(self) -> Iterator[None]:
        """The block is time that drawing takes."""
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
        """What was drawn, beside what was foretold; None where nothing was, and for too little."""
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
