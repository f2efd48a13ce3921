"""Runs a text through a model twice, stage by stage: with the original weights, and with those of the file so far.

Hidden states of both streams stay in memory between two stages, so that the text runs through each layer about once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Protocol

from quant.measure.cross_sums import CrossSums, SeenInputs
from quant.measure.graph_cuts import Cut, Graph
from quant.measure.moments import Watching
from quant.measure.partial_pass import PartialPass
from quant.measure.stages import Stage

Tokens = Sequence[int]


class SwitchedModel(Protocol):
    """The part of runtime.llama.SwitchedObserver that is needed here."""

    def observe_together(self, texts: Sequence[Tokens], /) -> Iterator[int]: ...
    def use_file(self) -> None: ...
    def use_others(self) -> None: ...


class TwoStreams:
    """The two streams at the cut of the stage that was collected last; first, at the text."""

    def __init__(
        self,
        model: SwitchedModel,
        watching: Watching,
        graph: Graph,
        groups: Sequence[Sequence[Tokens]],
        shapes: Mapping[str, tuple[int, int]],
        threads: Executor | None,
    ) -> None:
        """Texts of a group share a pass. `shapes` are the third and fourth axis of each matrix."""
        self._model, self._watching, self._graph, self._threads = model, watching, graph, threads
        self._groups, self._shapes = groups, shapes
        self._states: tuple[list[list[bytes]], ...] = tuple([[] for _ in groups] for _ in range(2))
        self.at: Cut | None = None

    def collect(self, stage: Stage, *, summing: bool = True) -> dict[str, CrossSums]:
        """The sums of the stage's inputs, by the first of their matrices. Afterwards the streams are at its start.

        Without `summing` they only go there, and there are no sums."""
        sums = [CrossSums(each, self._shapes[each.weights[0]]) for each in stage.inputs] if summing else []
        for number, texts in enumerate(self._groups):
            self._model.use_file()
            original = self._run(0, number, texts, stage)
            self._model.use_others()
            rounded = self._run(1, number, texts, stage)
            self._model.use_file()
            for each in sums:
                each.add(original.of(each.weight), rounded.of(each.weight), self._threads)
        self.at = stage.start
        return {each.weight: each.finished() for each in sums}

    def _run(self, stream: int, number: int, texts: Sequence[Tokens], stage: Stage) -> SeenInputs:
        inputs = SeenInputs(stage.inputs)
        states, saved = self._states[stream], list[bytes]()
        kept = iter(states[number])
        end = stage.start if stage.start != self.at else None
        part = PartialPass(
            self._graph,
            inputs,
            last=stage.last,
            uses=len(stage.inputs),
            start=self.at,
            end=end,
            load=lambda _: next(kept),
            save=saved.append,
            same_nodes=True,
        )
        self._watching.part = part
        for _ in self._model.observe_together(texts):
            part.finish_pass()
        self._watching.part = None
        if end is not None:
            states[number] = saved
        return inputs
