"""Counts the batches of the engine by size while samples are drawn, to compare their time with the prediction.

Samples of many questions begin and end at different times, so the batches differ in size.
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
    """Counts the batches of a backend by size, and the seconds of drawing."""

    def __init__(self, predictor: Predictor | None) -> None:
        self._predictor = predictor
        self._batches: Counter[tuple[int, int]] = Counter()  # (tokens, outputs) -> batches
        self._attended: Counter[tuple[int, int]] = Counter()  # (tokens, outputs) -> cached tokens before them
        self.seconds = 0.0

    def count_batches(self, backend: Backend) -> Backend:
        """Returns the backend in a form whose batches are counted."""
        return cast("Backend", _CountedBackend(backend, self))

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
        self._batches[size] += 1
        self._attended[size] += sum(batch.positions) // size[0]

    def predicted_run(self, model: str) -> PredictedRun | None:
        """Returns the predicted and the measured speed; None without a prediction or if too little was drawn."""
        if self._predictor is None:
            return None
        batches = [
            (tokens, drawn, self._attended[tokens, drawn] // count, count)
            for (tokens, drawn), count in self._batches.items()
        ]
        return self._predictor.compared_passes(model, batches, self.seconds)


class _CountedBackend:
    def __init__(self, backend: Backend, statistics: BatchStatistics) -> None:
        self._backend = backend
        self._statistics = statistics

    def decode(self, batch: Batch) -> None:
        self._backend.decode(batch)
        self._statistics.count(batch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)
