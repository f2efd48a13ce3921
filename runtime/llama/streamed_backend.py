"""A model that is larger than memory, opened in llama.cpp: its weights are read from the disk when they are needed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from runtime.base.errors import Aborted, DoesNotFit, EngineFailed, Incompatible, Lost
from runtime.base.events import Progress, ignore
from runtime.base.run import Run
from runtime.engine.backend import Batch, PassProgress
from runtime.engine.embedding import EmbedOptions
from runtime.from_disk.breathing import breathe
from runtime.from_disk.passes import most_tokens
from runtime.from_disk.preread import forget, preread
from runtime.from_disk.units import resident, units_of
from runtime.from_disk.use import DiskUse
from runtime.from_disk.weights import MAPPED_INSTEAD
from runtime.gguf.reader import read_card
from runtime.llama.backend import ABORTED, LlamaBackend
from runtime.llama.defaults import LOAD_DIRECT, LOAD_NONE
from runtime.llama.embedder import Embedder
from runtime.llama.open_options import OpenOptions
from runtime.llama.streamed_model import streamed

_LOOK = 1.0  # seconds between looks at the free memory


class StreamedBackend(LlamaBackend):
    """A LlamaBackend whose `options.from_disk` says which weights stay on the disk."""

    def __init__(
        self,
        path: Path,
        options: OpenOptions,
        run: Run | None = None,
        free: Callable[[], int] | None = None,
        progress: PassProgress | None = None,
    ) -> None:
        """`free` tells the bytes of memory that are free now: see `FromDisk.spare`. `progress` hears how far a long
        pass has come.

        Raises as LlamaBackend does, and DsrError for a file that cannot be read."""
        assert options.from_disk is not None
        if options.mtp or options.nodes or options.gpus or options.adapters:
            raise Incompatible(
                "a model whose weights stay on the disk runs without MTP, nodes, GPUs and adapters", hint=MAPPED_INSTEAD
            )
        run, card = run or Run(), read_card(path)
        units = units_of(card, options.from_disk.layers)
        self._most_tokens = most_tokens(units, card.experts_used, options.from_disk, options.rows)
        self._streamed = streamed(units, card.files, options.from_disk, card.experts_used, lambda: run.stop.wanted)
        self._streamed.progress = progress or PassProgress()
        self._memory = options.from_disk.memory
        self._files, self._resident = card.files, resident(card, units)
        self._cached = False
        self._free, self._looked = free, time.monotonic()
        self._computing, self._closing = Lock(), Event()
        self._resting = Thread(target=self._rest, name="from-disk-rest", daemon=True)
        with ExitStack() as opening:
            opening.callback(self._streamed.close)
            super().__init__(path, options, run)
            opening.pop_all()
        if free is not None and options.from_disk.spare is not None:
            self._resting.start()

    def close(self) -> None:
        self._closing.set()
        if self._resting.is_alive():
            self._resting.join()
        super().close()
        self._streamed.close()  # behind the model, which computes from this memory

    @property
    def disk_use(self) -> DiskUse:
        """What was read since the model was opened. It goes on counting."""
        return self._streamed.use

    @property
    def reads_directly(self) -> bool:
        """Whether its file is read past the system's cache."""
        return self._streamed.weights.direct

    @property
    def batch_size(self) -> int:
        return min(super().batch_size, self._most_tokens)

    @property
    def chunk_size(self) -> int:
        # A chunk reads nearly all weights, whether it has 128 tokens or 2048: with small chunks, a running answer would
        # wait for as many readings of the model.
        return self.batch_size

    def embedder(self, options: EmbedOptions, run: Run) -> Embedder:
        raise Incompatible(
            "a model whose weights stay on the disk gives no embeddings",
            hint="take one that fits into memory: dsr list --catalog",
        )

    def _compute(self, batch: Batch) -> int:
        with self._computing:
            self._streamed.begin(len(batch.tokens), self._more_memory())
            code = super()._compute(batch)
            self._streamed.end(finished=code == 0)
            return ABORTED if self._streamed.stopped else code

    def _rest(self) -> None:
        """A thread: while nothing is computed, weights go as far as other programs need their memory."""
        assert self._free is not None and self._options.from_disk is not None
        while not self._closing.wait(_LOOK):
            if self._computing.acquire(blocking=False):
                try:
                    weights, spare = self._streamed.weights, self._options.from_disk.spare or 0
                    most = max(0, weights.held + self._free() - spare)
                    if most < weights.held:
                        weights.limit(most)
                except Lost:
                    return  # the next pass tells it
                finally:
                    self._computing.release()

    def _more_memory(self) -> int:
        """The bytes that weights may take beyond the plan, by a look at the free memory now and then."""
        opened = self._options.from_disk
        assert opened is not None
        if self._free is not None and opened.spare is not None and time.monotonic() - self._looked > _LOOK:
            self._looked, weights = time.monotonic(), self._streamed.weights
            whole = weights.whole + self._most_tokens * opened.row_bytes
            self._memory = breathe(self._memory, weights.held, self._free(), opened.spare, opened.memory, whole)
        return self._memory - opened.memory

    def _load(self, run: Run) -> Any:
        self._cached = self._preread(run)
        try:
            model = super()._load(replace(run, listen=ignore) if self._cached else run)
        except (DoesNotFit, EngineFailed):
            if (why := self._streamed.buffer.failure) is None:
                raise
            raise DoesNotFit(f"{self._path}: {why}", hint=self._streamed.buffer.remedy) from None
        finally:
            if self._cached:
                forget(self._files)
        self._streamed.open()
        return model

    def _preread(self, run: Run) -> bool:
        """Read the weights of every token, in pieces that a stop ends. False where memory has no room for two copies:
        then the engine reads them past the cache, so that nothing else in memory has to go for them."""
        size = sum(each.size for each in self._resident)
        if self._free is None or self._free() < 2 * size:
            return False

        def tell(done: int) -> None:
            run.listen(Progress("loading", self._path.name, done * 100 // size, 100, "percent"))

        if not preread(self._files, self._resident, lambda: run.stop.wanted, tell):
            run.stop.take()
            raise Aborted("stopped while loading")
        return True

    def _model_params(self, **given: Any) -> Any:
        mode = LOAD_NONE if self._cached else LOAD_DIRECT
        return super()._model_params(  # no GPU takes part
            **given, load_mode=mode, tensor_buft_overrides=self._streamed.overrides, n_gpu_layers=0
        )

    def _use_devices(self, params: Any) -> object:
        return None

    def _context_params(self) -> Any:
        params = super()._context_params()
        self._streamed.watch(params)
        return params
