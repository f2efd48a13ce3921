"""Runs a model whose weights stay on the disk until they are used: brings them into memory while it computes."""

from __future__ import annotations

import ctypes
import mmap
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from runtime.base.errors import EngineFailed
from runtime.engine.backend import PassProgress
from runtime.from_disk.by_size import BySize
from runtime.from_disk.in_turn import InTurn
from runtime.from_disk.policy import Frequency
from runtime.from_disk.reader import Reader, ReadFile, ThreadedReader
from runtime.from_disk.units import FromDisk, Units
from runtime.from_disk.use import DiskUse
from runtime.from_disk.weights import MAPPED_INSTEAD, Policy, StreamedWeights
from runtime.llama.graph import GraphNode, name_at, weight_of
from runtime.llama.next_router import Routers
from runtime.llama.queued_reads import NoQueue, QueuedReader
from runtime.llama.reserved_buffer import ReservedBuffer
from runtime.llama.returned_memory import give_back

_CHOSEN = b"ffn_moe_topk-"  # build_moe_ffn in src/llama-graph.cpp: the experts of each token, int32
_EXPERTS_OF = 2  # ggml_mul_mat_id (ggml.c): its third source are the experts of each token
_SMALL = 1 << 20  # bytes of a slice; to begin larger reads takes longer than to wake a thread for each
_SECONDS_BETWEEN = 1.0  # the first and between two signs of a pass that takes long
_WORTH_GIVING_BACK = 4 << 20  # bytes of working buffers; less is not worth the call, and new pages must be cleared


class StreamedModel:
    """One model with weights on the disk. Load it with `overrides`, `open`, then make a context with `watch`."""

    def __init__(
        self, units: Units, files: Sequence[Path], policy: Policy, options: FromDisk, stop: Callable[[], bool]
    ) -> None:
        self.units, self._files, self._policy, self._options, self._stop = units, files, policy, options, stop
        self.buffer = ReservedBuffer(units)
        self.stopped = False
        self._weights: StreamedWeights | None = None
        self._seen: list[int] = []
        self._scratch: tuple[int, int] | None = None  # address and size of the memory in which the engine computes
        self._tokens = 0  # of the pass
        self.progress = PassProgress()
        self._told = 0.0  # when something of the pass was told; its beginning counts
        self._failure: BaseException | None = None
        self._visit = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_bool, ctypes.c_void_p)(self._called)

    @property
    def overrides(self) -> ctypes.c_void_p:
        """`tensor_buft_overrides` of llama_model_params, so that the engine leaves these weights out."""
        return ctypes.cast(self.buffer.overrides, ctypes.c_void_p)

    def open(self) -> None:
        """After the model was loaded. Raises EngineFailed, or DsrError if a file cannot be opened."""
        places = self.buffer.settle(self.units.stacks)
        region, move = self.buffer.region, self.buffer.move
        self._weights = StreamedWeights(
            self.units, self._files, region, places, self._options.memory, self._policy, self._stop, move, self._reader
        )

    def watch(self, params: Any) -> None:
        """Set the llama_context_params so that the engine shows what it computes."""
        params.cb_eval = ctypes.cast(self._visit, type(params.cb_eval))

    @property
    def weights(self) -> StreamedWeights:
        assert self._weights is not None
        return self._weights

    @property
    def use(self) -> DiskUse:
        return self.weights.use

    def begin(self, tokens: int, more: int = 0) -> None:
        """Before each pass of so many tokens, in which weights may take `more` bytes than planned.

        Raises WeightsLost if a file was changed."""
        self._seen.clear()
        self._failure, self.stopped, self._scratch, self._tokens = None, False, None, tokens
        self._told = time.monotonic()
        self.weights.begin(self._options.room(tokens) + more)

    def end(self, *, finished: bool) -> None:
        """After each pass; `finished`: the engine ended it, or it ended here. Raises what went wrong in it.

        Raises WeightsLost if a file was changed meanwhile, EngineFailed if a layer computed without its weights."""
        # Weights and working buffers share memory: those of a long pass make room for weights.
        if self._scratch is not None and self._tokens * self._options.row_bytes >= _WORTH_GIVING_BACK:
            give_back(*self._scratch)
        if not finished:
            return
        if self._failure is not None:
            raise self._failure
        self.weights.check()
        every = list(range(len(self.units.layers)))
        if not self.stopped and self._seen != every * max(1, len(self._seen) // len(every)):
            raise EngineFailed(
                "the engine computed a layer without saying which of its weights it needs", hint=MAPPED_INSTEAD
            )

    def close(self) -> None:
        if self._weights is not None:
            self._weights.close()
            # The region itself goes only when Python collects it, which may be after the next model is opened.
            self.buffer.region.madvise(mmap.MADV_DONTNEED)

    def _called(self, address: int, asking: bool, _: object) -> bool:
        # An exception here would be printed and lost, so it is stored and the pass ends.
        try:
            if self.stopped or self._failure is not None:
                return asking  # stop behind the next node
            return self._asked(address) if asking else self._computed(address)
        except BaseException as error:
            self._failure = error
            return False

    def _reader(self, files: Sequence[ReadFile], memory: memoryview) -> Reader:
        return ThreadedReader(files, memory)

    @abstractmethod
    def _asked(self, address: int) -> bool:
        """Before a node is computed: whether to stop behind it."""

    @abstractmethod
    def _computed(self, address: int) -> bool:
        """Behind such a node: whether to go on."""

    @abstractmethod
    def _bring(self, index: int, node: GraphNode) -> None:
        """Begin to read what the layer at `index` needs, and what those behind it will need."""

    def _saw(self, index: int, node: GraphNode) -> bool:
        """The layer at `index` computes now; `node` is one of its values. False if a stop was wanted."""
        started, waited = time.perf_counter(), self.use.waited
        self._note(index, node)
        self._bring(index, node)
        self.stopped = not self.weights.wait()
        self.use.callback += time.perf_counter() - started - (self.use.waited - waited)
        return not self.stopped

    def _note(self, index: int, node: GraphNode) -> None:
        self._seen.append(index)
        if self._scratch is None:
            self._scratch = node.buffer
        if (now := time.monotonic()) - self._told >= _SECONDS_BETWEEN:
            self._told = now
            self.progress.listen(index / len(self.units.layers))


class StreamedExperts(StreamedModel):
    """A mixture of experts whose routed experts are on the disk."""

    def __init__(
        self, units: Units, files: Sequence[Path], options: FromDisk, used: int, stop: Callable[[], bool]
    ) -> None:
        """`used`: experts that a token uses in a layer."""
        seed = np.array(options.seed).reshape(len(units.layers), units.experts) if options.seed else None
        policy = Frequency(len(units.layers), units.experts, used, seed=seed)
        super().__init__(units, files, policy, options, stop)
        self._routers = Routers(len(units.layers), units.experts)
        self._index: dict[int, int] = {}  # by the address of a tensor
        self._choice = 0  # address of the last choice that was computed and not used yet; 0: none

    def open(self) -> None:
        super().open()
        self._index = {self.buffer.tensors[stack.name].identity: stack.index for stack in self.units.stacks}

    def _reader(self, files: Sequence[ReadFile], memory: memoryview) -> Reader:
        if max(stack.size for stack in self.units.stacks) <= _SMALL:
            with suppress(NoQueue):
                return BySize(QueuedReader(files, memory), super()._reader(files, memory))
        return super()._reader(files, memory)

    def begin(self, tokens: int, more: int = 0) -> None:
        super().begin(tokens, more)
        self._choice = 0

    def _asked(self, address: int) -> bool:
        # A layer may choose twice, as GroveMoE does for its chunk experts: the weights tell the choice that matters.
        if self._choice and (index := self._index.get(weight_of(address))) is not None:
            choice, self._choice = GraphNode(self._choice), 0
            if GraphNode(address).source(_EXPERTS_OF).identity != choice.identity:
                raise EngineFailed("the engine chose the experts of a layer in an unknown way", hint=MAPPED_INSTEAD)
            return not self._saw(index, choice)
        return name_at(address).startswith(_CHOSEN)

    def _computed(self, address: int) -> bool:
        self._choice = address
        return not self.stopped

    def _bring(self, index: int, node: GraphNode) -> None:
        self.weights.need(index, np.bincount(node.values().ravel(), minlength=self.units.experts))
        self.weights.expect(index + 1, self._routers.next_choice(index, node))


class StreamedLayers(StreamedModel):
    """A dense model of which some layers are on the disk."""

    def __init__(self, units: Units, files: Sequence[Path], options: FromDisk, stop: Callable[[], bool]) -> None:
        super().__init__(units, files, InTurn(len(units.layers)), options, stop)
        self._index: dict[int, int] = {}  # by the address of a tensor

    def open(self) -> None:
        super().open()
        self._index = {self.buffer.tensors[stack.name].identity: stack.index for stack in self.units.stacks}

    def _asked(self, address: int) -> bool:
        index = self._index.get(weight_of(address))
        if index is None or (self._seen and self._seen[-1] == index):
            return False
        self._saw(index, GraphNode(address))
        return True

    def _bring(self, index: int, node: GraphNode) -> None:
        # The layer before is computed only now, together with this node: both are needed.
        self.weights.need(index, np.ones(1, np.int64), with_last=True)
        layers = len(self.units.layers)
        for ahead in range(1, min(layers, self.weights.most // self.weights.largest - 1)):
            self.weights.expect((index + ahead) % layers, [0])

    def _computed(self, address: int) -> bool:
        return True


def streamed(
    units: Units, files: Sequence[Path], options: FromDisk, used: int, stop: Callable[[], bool]
) -> StreamedModel:
    """The model for these units. `used`: experts that a token uses in a layer."""
    if units.routed:
        return StreamedExperts(units, files, options, used, stop)
    return StreamedLayers(units, files, options, stop)
