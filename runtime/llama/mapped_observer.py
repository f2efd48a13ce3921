"""An Observer of a model that is larger than memory: parts of its graph need the weights of few layers at a time."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from runtime.base.errors import DoesNotFit, EngineFailed
from runtime.base.run import Run
from runtime.gguf.reader import read_card
from runtime.llama.defaults import LOAD_DIRECT
from runtime.llama.graph import GraphNode, Observer
from runtime.llama.load_model import MORE_MEMORY
from runtime.llama.mapped_weights import MappedWeights


class MappedObserver(Observer):
    """An Observer on the CPU that reads the matrices of layers from the file whenever it computes with them."""

    def __init__(
        self,
        path: Path,
        wants: Callable[[GraphNode], bool],
        sees: Callable[[GraphNode], bool],
        *,
        window: int,
        sequences: int = 1,
        run: Run | None = None,
    ) -> None:
        self._mapped = MappedWeights(read_card(path))
        with ExitStack() as opening:
            opening.callback(self._mapped.close)
            super().__init__(path, wants, sees, window=window, sequences=sequences, run=run)
            opening.pop_all()

    def forget_weights(self) -> None:
        self._mapped.forget()

    def close(self) -> None:
        super().close()
        self._mapped.close()

    def _load(self, run: Run) -> Any:
        try:
            model = super()._load(run)
        except (DoesNotFit, EngineFailed):
            if (why := self._mapped.buffer.failure) is None:
                raise
            raise DoesNotFit(f"{self._path}: {why}", hint=MORE_MEMORY) from None
        self._mapped.settle()
        return model

    def _model_params(self, **given: Any) -> Any:
        overrides = ctypes.cast(self._mapped.buffer.overrides, ctypes.c_void_p)
        return super()._model_params(**given, load_mode=LOAD_DIRECT, tensor_buft_overrides=overrides, n_gpu_layers=0)

    def _use_devices(self, params: Any) -> object:
        return None
