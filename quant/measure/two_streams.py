"""Runs a text through a model twice, stage by stage: with the original weights, and with those of the file so far.

Hidden states of both streams stay in memory between two stages. The original stream waits in front of the next stage,
so that the text runs through each of its layers once. The other one waits in front of the stage before, because the
matrices of that stage change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol

from quant.measure.cross_sums import CrossSums, SeenInputs
from quant.measure.graph_cuts import Cut, Graph
from quant.measure.moments import Watching
from quant.measure.partial_pass import PartialPass
from quant.measure.stages import Stage
from quant.round.watch import Watch

Tokens = Sequence[int]


class SwitchedModel(Protocol):
    """The part of runtime.llama.SwitchedObserver that is needed here."""

    def observe_together(self, texts: Sequence[Tokens], /) -> Iterator[int]: ...
    def use_file(self) -> None: ...
    def use_others(self) -> None: ...


@dataclass(slots=True)
class _Stream:
    """Where a stream waits (None: at the text), and by group of texts the values there."""

    at: Cut | None = None
    states: dict[int, list[bytes]] = field(default_factory=dict)


class TwoStreams:
    """The two streams. Each stage is collected from where they wait."""

    def __init__(
        self,
        model: SwitchedModel,
        watching: Watching,
        graph: Graph,
        groups: Sequence[Sequence[Tokens]],
        shapes: Mapping[str, tuple[int, int]],
        threads: Executor | None,
        watch: Watch,
        read: Callable[[int], object],
    ) -> None:
        """Texts of a group share a pass. `shapes` are the third and fourth axis of each matrix.

        `watch` ends the work between two products; `read` is told the tokens of each pass."""
        self._model, self._watching, self._graph, self._threads = model, watching, graph, threads
        self._groups, self._shapes = groups, shapes
        self._watch, self._read = watch, read
        self._original, self._rounded = _Stream(), _Stream()

    @property
    def at(self) -> Cut | None:
        """Where the stream with the weights of the file so far waits."""
        return self._rounded.at

    def collect(self, stage: Stage, after: Stage | None) -> dict[str, CrossSums]:
        """The sums of the stage's inputs, by the first of their matrices. `after` is the next stage.

        The streams wait in front of `stage` afterwards, and the original one in front of `after`."""
        sums = [CrossSums(each, self._shapes[each.weights[0]]) for each in stage.inputs]
        self._go(self._original, stage.start)
        end = stage.start if after is None else after.start
        for number, texts in enumerate(self._groups):
            self._model.use_file()
            original = self._run(self._original, number, texts, stage, end)
            self._model.use_others()
            rounded = self._run(self._rounded, number, texts, stage, stage.start)
            self._model.use_file()
            for each in sums:
                each.add(original.of(each.weight), rounded.of(each.weight), self._threads, self._watch)
        self._original.at, self._rounded.at = end, stage.start
        return {each.weight: each.finished(self._watch) for each in sums}

    def go_on(self, stage: Stage) -> None:
        """Go in front of a stage that needs no sums."""
        self._model.use_others()
        self._go(self._rounded, stage.start)
        self._model.use_file()

    def _go(self, stream: _Stream, end: Cut | None) -> None:
        if end is None or end == stream.at:
            return
        for number, texts in enumerate(self._groups):
            self._run(stream, number, texts, None, end)
        stream.at = end

    def _run(
        self, stream: _Stream, number: int, texts: Sequence[Tokens], stage: Stage | None, end: Cut | None
    ) -> SeenInputs:
        """Run a group from where the stream waits, and keep the values at `end`. Sees the inputs of `stage`."""
        inputs = SeenInputs(stage.inputs if stage else ())
        kept, saved = iter(stream.states.get(number, ())), list[bytes]()
        if end == stream.at:
            end = None
        part = PartialPass(
            self._graph,
            inputs,
            last=stage.last if stage else end.index if end else 0,
            uses=len(stage.inputs) if stage else 0,
            start=stream.at,
            end=end,
            load=lambda _: next(kept),
            save=saved.append,
            same_nodes=True,
        )
        self._watching.part = part
        for count in self._model.observe_together(texts):
            part.finish_pass()
            self._read(count)
        self._watching.part = None
        if end is not None:
            stream.states[number] = saved
        return inputs
