"""Collects second moments: runs text through a model and sums x x^T over the inputs x of every matrix.

All moments together are larger than most memories (columns^2 x 4 bytes for each input: 45 GB for a model of 7 B), so
layers are collected in groups, as many at a time as the memory holds. The hidden states of the text are kept between
two groups, so that the text runs through each layer once. Where the graph cannot be cut, each group reads the text
from its beginning.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol, cast

from quant.measure.chunks import LEAST_CHUNK, Text, Tokenizer, settle_threads
from quant.measure.cut_check import Rows, WholePass
from quant.measure.graph_cuts import Cut, Graph
from quant.measure.hidden_states import HiddenStates
from quant.measure.moment_sums import InputFinder, MomentCollector, Share, missing, turns
from quant.measure.partial_pass import GraphDiffers, PartialPass, PartNode, Reading
from quant.measure.routers import Node
from quant.round.moments import Moments, begin, text_digest
from runtime.base.disk_errors import disk_errors
from runtime.base.errors import DoesNotFit, UsageError
from runtime.base.events import Notice, Progress
from runtime.base.run import Run
from runtime.base.types import ByteCount, counted
from runtime.machine.host import probe

TOGETHER = 16  # texts that share a pass: conversations are shorter than a pass
# Bytes of moments at a time where the graph can be cut, because more would save nothing. The widest matrix of a model
# of 7 B has 1.4 GB.
_ENOUGH = 2 << 30


class _Model(Tokenizer, Protocol):
    """The part of runtime.llama.Observer that collecting needs."""

    def observe(self, tokens: Sequence[int], /) -> Iterator[int]: ...
    def observe_together(self, texts: Sequence[Sequence[int]], /) -> Iterator[int]: ...
    def forget_weights(self) -> None: ...


class Part(Protocol):
    def wants(self, node: PartNode, /) -> bool: ...
    def sees(self, node: PartNode, /) -> bool: ...


class Watching:
    """What the callbacks of an Observer do: what `part` of the graph wants, or nothing."""

    part: Part | None = None

    def wants(self, node: Node) -> bool:
        return self.part is not None and self.part.wants(cast("PartNode", node))

    def sees(self, node: Node) -> bool:
        return self.part is not None and self.part.sees(cast("PartNode", node))


@dataclass(frozen=True, slots=True)
class Group:
    """Shares that are collected together, from the cut `start` on (None: from the text)."""

    shares: tuple[Share, ...]
    start: Cut | None = None

    @property
    def last(self) -> int:
        """The number of the last node that is needed."""
        return max(share.input.last for share in self.shares)

    @property
    def uses(self) -> int:
        """How many nodes are needed."""
        return sum(share.input.uses for share in self.shares)


def planned(shares: Sequence[Share], graph: Graph, states: HiddenStates, memory: int) -> list[Group]:
    """Divides shares into groups within `memory` bytes of moments, each with the place from which it computes."""
    groups: list[Group] = []
    for group in turns(shares, min(memory, _ENOUGH)):
        node = group[0].input.node
        if not groups:
            start = states.latest(node)
        else:
            before = groups[-1].start
            start = graph.best(before.index if before else 0, node) or before
        groups.append(Group(tuple(group), start))
    if any(group.start for group in groups):
        return groups
    return [Group(tuple(each)) for each in turns(shares, memory)]  # each reads the text: the fewer, the better


def _check_room(folder: Path, groups: Sequence[Group], tokens: int, make_room: Callable[[int], object]) -> None:
    """Raise DoesNotFit before the text is read, if the disk has no room for moments and hidden states."""
    kept = max((group.start.size for group in groups if group.start), default=0) * tokens // LEAST_CHUNK
    needed = ByteCount(sum(share.bytes for group in groups for share in group.shares) + 2 * kept)
    make_room(needed)
    free = ByteCount(shutil.disk_usage(folder).free)
    if needed > free:
        raise DoesNotFit(
            f"{folder}: the second moments need {needed}, and {free} are free",
            hint="free some space, or choose another disk: dsr imatrix MODEL --moments FOLDER",
        )


def sequences(
    model: Tokenizer, texts: Sequence[Text], context: int, most: int | None = None
) -> tuple[tuple[int, ...], ...]:
    """Each text as a sequence of tokens of its own; a long one in pieces of `context`, the rest of it too. Reading ends
    with the sequence that reaches `most` tokens.

    Where the model wants a first token, a text that spells it inside is several conversations, each a sequence, and it
    takes the place of each piece's first token, as in `chunks`. Raises UsageError for too little text."""
    found: list[tuple[int, ...]] = []
    first = model.first_token
    head = () if first is None else (first,)
    for text in texts:
        for tokens in _conversations(model.tokenize(text.content, add_bos=True), first):
            for start in range(0, len(tokens), context):
                piece = (*head, *tokens[start + len(head) : start + context])
                if len(piece) >= LEAST_CHUNK and (most is None or sum(map(len, found)) < most):
                    found.append(piece)
    if not found:
        raise UsageError(f"the text has fewer than {counted(LEAST_CHUNK, 'token')}", hint="give more text")
    return tuple(found)


def _conversations(tokens: Sequence[int], first: int | None) -> Iterator[Sequence[int]]:
    """The parts that begin with the token `first`."""
    begins = [place for place, token in enumerate(tokens) if token == first and place > 0]
    for begin_at, end in pairwise((0, *begins, len(tokens))):
        yield tokens[begin_at:end]


def collect_moments(
    path: Path,
    source: str,
    texts: Sequence[Text],
    folder: Path,
    run: Run,
    *,
    context: int,
    memory: int,
    most: int | None = None,
    mapped: bool = False,
    make_room: Callable[[int], object] = int,
) -> Moments:
    """Run `texts` through the model at `path`, and write the moments to `folder`; an interrupted call continues.

    `source` is the digest of the weights, `memory` the most bytes of moments at a time; `context` and `most` are those
    of `sequences`. With `mapped` weights, memory holds those of few layers at a time, and no GPU takes part.
    `make_room` is told the bytes that will be written.

    Raises UsageError (too little text), EngineFailed, DoesNotFit, DsrError (the folder), Aborted."""
    from runtime.llama import MappedObserver, Observer
    from runtime.llama.blas import one_blas_thread

    watching = Watching()
    callbacks = watching.wants, watching.sees
    with ExitStack() as stack:
        stack.enter_context(one_blas_thread())
        model: Observer = stack.enter_context(
            MappedObserver(path, *callbacks, window=context, sequences=TOGETHER, run=run)
            if mapped
            else Observer(path, *callbacks, window=context, sequences=TOGETHER, run=run)
        )
        # Finding the best number computes with all weights.
        asked = run.threads or (probe().cores if mapped else None)
        threads = stack.enter_context(ThreadPoolExecutor(settle_threads(model, asked)))
        parts = sequences(model, texts, context, most)
        moments = begin(folder, source, text_digest(parts), sum(map(len, parts)), [text.name for text in texts])
        with disk_errors(folder):
            moments.keep_text(parts)
        if moments.index.complete:
            return moments
        if moments.index.parts:
            run.listen(Notice(f"{folder}: continuing"))
        collecting = _Collecting(path.name, model, watching, parts, moments, threads, make_room, run)
        try:
            collecting.collect(memory, cutting=True)
        except GraphDiffers as error:
            run.listen(Notice(f"{path.name}: {error.message}, so the text is read for each group of layers"))
            collecting.collect(memory, cutting=False)
    with disk_errors(folder):
        moments.finish()
    return moments


@dataclass(frozen=True, slots=True)
class _Collecting:
    name: str
    model: _Model
    watching: Watching
    parts: Sequence[Sequence[int]]
    moments: Moments
    threads: ThreadPoolExecutor
    make_room: Callable[[int], object]
    run: Run

    def collect(self, memory: int, *, cutting: bool) -> None:
        """Collect what is missing. Raises GraphDiffers if `cutting` does not lead to the same inputs."""
        graph, finder = self._read_graph()
        folder = self.moments.folder
        shares = missing(finder.inputs, self.moments.index.parts)
        states = HiddenStates(folder, graph, self.moments.index.digest)
        if cutting:
            groups = planned(shares, graph, states, memory)
        else:
            groups = [Group(tuple(each)) for each in turns(shares, memory)]
        states.keep_only(groups[0].start if groups else None)
        tokens = sum(map(len, self.parts))
        _check_room(folder, groups, tokens, self.make_room)
        whole = self._whole(groups)
        for number, (group, after) in enumerate(pairwise((*groups, None))):
            assert group is not None
            if group.start is not None and not self._is_same(graph, group, whole):
                raise GraphDiffers("its layers compute something else from hidden states that were kept")
            end = after.start if after is not None and after.start != group.start else None
            self._collect_group(graph, states, group, end, (number * tokens, len(groups) * tokens))
            states.keep_only(after.start if after is not None else None)
            self.model.forget_weights()

    def _read_graph(self) -> tuple[Graph, InputFinder]:
        finder = InputFinder()
        reading = Reading(finder.wants)
        self._short(reading)
        reading.restore()
        return Graph(reading.steps), finder

    def _whole(self, groups: Sequence[Group]) -> WholePass:
        whole = WholePass(
            [share.weight for group in groups for share in group.shares],
            [each.start for each in groups if each.start],
            self.model.forget_weights,
        )
        if any(group.start for group in groups):
            self._short(whole)
        return whole

    def _is_same(self, graph: Graph, group: Group, whole: WholePass) -> bool:
        """Whether a short text leads to the same inputs from kept values as in the whole model."""
        assert group.start is not None
        rows = Rows([share.weight for share in group.shares])
        load = whole.content(group.start).read
        part = PartialPass(graph, rows, last=group.last, uses=group.uses, start=group.start, load=load)
        self._short(part)
        part.finish_pass()
        return rows.like(whole.rows)

    def _short(self, part: Part) -> None:
        self.watching.part = part
        for _ in self.model.observe(self.parts[0][:LEAST_CHUNK]):
            break
        self.watching.part = None

    def _collect_group(
        self, graph: Graph, states: HiddenStates, group: Group, end: Cut | None, progress: tuple[int, int]
    ) -> None:
        """Sum the moments of a group and write them, and the hidden states at the cut `end` for the next group."""
        done, total = progress
        collector = MomentCollector(group.shares, self.threads)
        with ExitStack() as stack:
            load = stack.enter_context(states.read(group.start)) if group.start else bytes
            save = stack.enter_context(states.write(end)) if end else len
            part = PartialPass(
                graph, collector, last=group.last, uses=group.uses, start=group.start, end=end, load=load, save=save
            )
            self.watching.part = part
            for count in self.model.observe_together(self.parts):
                part.finish_pass()
                done += count
                self.run.listen(Progress("collecting", self.name, done, total, "tokens"))
            self.watching.part = None
        with disk_errors(self.moments.folder):
            for each, sums in collector.parts():
                self.moments.add(each, sums)
