"""Rounds a model stage by stage: each matrix for the inputs that the stages before it give in the file.

The original model and the file so far read the same text side by side (`two_streams`). Which matrices are rounded
together, and where the streams wait meanwhile, follows from the graph (`stages`).
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from quant.measure.chunks import LEAST_CHUNK, settle_threads
from quant.measure.cross_sums import CrossSums
from quant.measure.cut_check import Rows, WholePass
from quant.measure.graph_cuts import Cut, Graph
from quant.measure.moment_sums import Input, InputFinder
from quant.measure.moments import TOGETHER, Part, Watching
from quant.measure.partial_pass import PartialPass, Reading
from quant.measure.stages import Stage, passes_of, stages_of, work_of
from quant.measure.two_streams import TwoStreams
from quant.plan import ORIGINAL_TYPES, QuantPlan, TensorPlan
from quant.round.grids import grid_of
from quant.round.moments import text_digest
from quant.write.stages import InputsOf, Written
from runtime.base.errors import Aborted, DsrError
from runtime.base.events import Progress
from runtime.base.run import Run
from runtime.base.types import ByteCount
from runtime.gguf.types import BY_NAME
from runtime.machine.host import probe

if TYPE_CHECKING:
    from runtime.llama import SwitchedObserver

_MOST_WORK = 8  # passes through all layers, of both streams: more where few places of the graph can be cut
_SUMS = 2  # squares of an input's columns: that of its sums, which becomes the moment, and that of the differences
# For each column: while a moment is factored six panels of 512 rows in float64; the inputs of a pass, and differences.
_PANELS = 512 * 8 * 6


class NoStages(DsrError):
    """A model cannot be rounded stage by stage; the message says why."""


class CrossStages:
    """The stages of a plan. `path` is the model file of the original weights; `text` are the tokens to read."""

    def __init__(self, path: Path, plan: QuantPlan, text: Sequence[Sequence[int]], context: int) -> None:
        """`context` is the longest sequence of `text`. `check` comes next."""
        self._path, self._text, self._context = path, text, context
        self._changed = {tensor.name: tensor for tensor in plan.tensors if _changes(tensor)}
        self._rounded = frozenset(tensor.name for tensor in plan.tensors if tensor.rounding)
        self.digest = text_digest(text)
        self.tokens = sum(map(len, text))
        self.weights: frozenset[str] = frozenset()

    def check(self, memory: int, run: Run) -> None:
        """Find the stages. Raises NoStages where that is not possible or needs more than `memory` bytes, EngineFailed,
        DoesNotFit, Aborted."""
        with self._opened(run) as opened:
            opened.check(memory)
            self.weights = frozenset(name for stage in opened.stages for name in stage.weights) & self._rounded

    def each(self, finished: Container[str], written: Written, run: Run) -> Iterator[tuple[frozenset[str], InputsOf]]:
        """The stages with a matrix that is not `finished`, each with its inputs in the file so far."""
        with self._opened(run) as opened:
            left = [any(name not in finished for name in stage.weights & self.weights) for stage in opened.stages]
            there = {name for name in self._changed if name not in self.weights}
            opened.meter.begin(passes_of(opened.stages, left) * self.tokens)
            for number, (stage, after) in enumerate(pairwise((*opened.stages, None))):
                assert stage is not None
                if not any(left[number:]):
                    return
                own = stage.weights & self.weights
                opened.place(there, stage, written)
                if left[number]:
                    sums = opened.streams.collect(stage, after)
                    opened.clear(there, after)
                    yield own, _inputs_of(stage, sums)
                    del sums
                else:
                    opened.streams.go_on(stage)
                there |= own

    @contextmanager
    def _opened(self, run: Run) -> Iterator[_Opened]:
        from runtime.llama import SwitchedObserver

        watching = Watching()
        with ExitStack() as stack:
            model = stack.enter_context(
                SwitchedObserver(
                    self._path, watching.wants, watching.sees, window=self._context, sequences=TOGETHER, run=run
                )
            )
            count = settle_threads(model, run.threads or probe().cores)
            threads = stack.enter_context(ThreadPoolExecutor(count))
            yield _Opened(
                model, watching, self._text, self._changed, self._rounded, threads, _Meter(self._path.name, run)
            )


class _Meter:
    """Tells how many tokens the streams have read, and ends the work when a stop is wanted."""

    def __init__(self, name: str, run: Run) -> None:
        self._name, self._run = name, run
        self._done = self._total = 0

    def begin(self, total: int) -> None:
        self._total = total
        self.read(0)

    def read(self, tokens: int) -> None:
        self._done += tokens
        self._run.listen(Progress("collecting inputs of", self._name, self._done, self._total, "tokens"))

    def watch(self, share: float) -> None:
        if self._run.stop.take():
            raise Aborted


class _Opened:
    """An open model, its graph and its stages."""

    def __init__(
        self,
        model: SwitchedObserver,
        watching: Watching,
        text: Sequence[Sequence[int]],
        changed: dict[str, TensorPlan],
        rounded: frozenset[str],
        threads: ThreadPoolExecutor,
        meter: _Meter,
    ) -> None:
        from runtime.llama.graph import packed

        self.model, self._watching, self._text, self._changed = model, watching, text, changed
        self.meter = meter
        self._groups = list(packed(text, model.batch_size, TOGETHER))
        self.graph, self._finder = self._read(text[0][:LEAST_CHUNK])
        inputs = [each for each in self._finder.inputs if not rounded.isdisjoint(each.weights)]
        self._products = self._finder.products
        own = {number: name for number, name in self._products.items() if name in rounded}
        self.stages = list(stages_of(inputs, own, self.graph))
        self.streams = TwoStreams(
            model, watching, self.graph, self._groups, self._finder.shapes, threads, meter.watch, meter.read
        )
        self._placed: set[str] = set()

    def place(self, there: Container[str], stage: Stage, written: Written) -> None:
        """Give the model what the file has of the tensors that are `there`, as far as the way to a stage needs them."""
        self.clear(there, stage)
        for name in sorted(self._wanted(there, stage) - self._placed):
            self.meter.watch(0)
            kind, stored = BY_NAME[self._changed[name].target], written(name)
            if name in self._products.values():  # a product with quantized weights would round its inputs, too
                kind, stored = BY_NAME["F32"], _in_float32(kind.number, stored)
            self.model.put(name, kind, stored)
            self._placed.add(name)

    def clear(self, there: Container[str], after: Stage | None) -> None:
        """Forget the tensors that the way to the next stage does not need."""
        unneeded = self._placed - (self._wanted(there, after) if after else set())
        self.model.drop(unneeded)
        self._placed -= unneeded

    def _wanted(self, there: Container[str], stage: Stage) -> set[str]:
        start = -1 if self.streams.at is None else self.streams.at.index
        needed = {name for number, name in self._products.items() if start < number <= stage.last}
        looked_up = self._changed.keys() - set(self._products.values())
        return {name for name in needed | looked_up if name in there and self.model.shows(name)}

    def check(self, memory: int) -> None:
        """Raise NoStages where the stages cannot be collected, or need more than `memory` bytes."""
        again, _ = self._read([token for text in self._groups[0] for token in text][: self.model.batch_size])
        if not self.stages or not self.graph.is_like(again):
            raise NoStages("the graph of the model changes with the text")
        if any(each.last != each.node for stage in self.stages for each in stage.inputs):
            raise NoStages("a layer runs several times")
        whole = sum(step.work for step in self.graph.steps)
        if work_of(self.stages, self.graph) > _MOST_WORK * whole:
            raise NoStages("its graph cannot be cut between the layers")
        needed = self._memory()
        if needed > memory:
            raise NoStages(f"it needs {ByteCount(needed)}, and {ByteCount(memory)} may be used")
        if not self._is_same():
            raise NoStages("its layers compute something else from hidden states that were kept")

    def _memory(self) -> int:
        """The most bytes that a stage needs: sums and moments, hidden states of two streams, weights in float32."""
        most = 0
        for before, stage, after in zip((None, *self.stages), self.stages, (*self.stages[1:], None), strict=False):
            squares = sum(each.slices * each.slice_bytes for each in stage.inputs)
            factors = sum(self._vectors(each) * each.slices * each.slice_bytes for each in stage.inputs)
            panels = _PANELS * max(each.columns for each in stage.inputs)
            start = None if before is None else before.start
            states = max(self._states(stage.start, start), self._states(after.start if after else None, stage.start))
            collecting = self._weights(start, stage, stage.weights) + panels
            rounding = factors + panels + (self._weights(stage.start, after, stage.weights) if after else 0)
            most = max(most, _SUMS * squares + states + max(collecting, rounding))
        return most

    def _vectors(self, each: Input) -> int:
        """How many factors the moments of an input have: one for each size of groups of columns."""
        grids = (grid_of(self._changed[name].target) for name in each.weights if name in self._changed)
        return len({grid.vector for grid in grids if grid})

    def _states(self, *cuts: Cut | None) -> int:
        return sum(cut.size // LEAST_CHUNK for cut in cuts if cut) * sum(map(len, self._text))

    def _weights(self, start: Cut | None, stage: Stage, but: frozenset[str]) -> int:
        """Bytes of what is put in the place of weights on the way to a stage."""
        on_way = {
            name for number, name in self._products.items() if (start.index if start else -1) < number <= stage.last
        }
        products = sum(4 * self._changed[name].parameters for name in on_way & self._changed.keys() - but)
        looked_up = self._changed.keys() - set(self._products.values())
        return products + sum(self._changed[name].bytes for name in looked_up)

    def _is_same(self) -> bool:
        """Whether a short text leads to the same inputs from the kept values of each cut as in the whole model."""
        cuts = [stage.start for stage in self.stages if stage.start]
        whole = WholePass([each.weights[0] for stage in self.stages for each in stage.inputs], cuts)
        tokens = self._text[0][:LEAST_CHUNK]
        self._run(whole, tokens)
        for before, stage in pairwise(self.stages):
            if (start := before.start) is None:
                continue
            rows = Rows([each.weights[0] for each in stage.inputs])
            load = whole.content(start).read
            part = PartialPass(
                self.graph, rows, last=stage.last, uses=len(stage.inputs), start=start, load=load, same_nodes=True
            )
            self._run(part, tokens)
            part.finish_pass()
            if not rows.like(whole.rows):
                return False
        return True

    def _read(self, tokens: Sequence[int]) -> tuple[Graph, InputFinder]:
        finder = InputFinder()

        def also(node: Any) -> None:
            finder.wants(node)
            self.model.look(node)

        reading = Reading(also)
        self._run(reading, tokens)
        reading.restore()
        return Graph(reading.steps), finder

    def _run(self, part: Part, tokens: Sequence[int]) -> None:
        self._watching.part = part
        for _ in self.model.observe(tokens):
            break
        self._watching.part = None


def _inputs_of(stage: Stage, sums: Mapping[str, CrossSums]) -> InputsOf:
    of = {name: sums[each.weights[0]] for each in stage.inputs for name in each.weights}
    return lambda name, number, watch: of[name].inputs(number, watch)


def _changes(tensor: TensorPlan) -> bool:
    """Whether the file has other values than the original."""
    return tensor.target != tensor.stored and tensor.target not in ORIGINAL_TYPES


def _in_float32(number: int, stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from runtime.llama import dequantize_rows

    return dequantize_rows(number, stored).view(np.uint8)
