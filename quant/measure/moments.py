"""Collects second moments: runs text through a model and sums x x^T over the inputs x of every matrix.

All moments together are larger than most memories (columns^2 x 4 bytes for each input: 45 GB for a model of 7 B), so
the text is read several times, each time for as many layers as the memory holds.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quant.measure.chunks import LEAST_CHUNK, Text, Tokenizer, settle_threads
from quant.measure.routers import Node
from quant.round.moments import Moments, Part, begin, text_digest
from runtime.base.disk_errors import disk_errors
from runtime.base.errors import DoesNotFit, EngineFailed, UsageError
from runtime.base.events import Notice, Progress
from runtime.base.run import Run
from runtime.base.types import ByteCount, counted

_TOGETHER = 16  # texts that share a pass: conversations are shorter than a pass
_OUTPUT = "output.weight"


@dataclass(slots=True)
class Input:
    """A tensor of the graph that `weights` are multiplied with: `slices` moments of `columns` each."""

    columns: int
    slices: int
    weights: list[str] = field(default_factory=list)

    @property
    def slice_bytes(self) -> int:
        return 4 * self.columns * self.columns


@dataclass(frozen=True, slots=True)
class Share:
    """Slices `first` to `end` of an input, which are collected together."""

    input: Input
    first: int
    end: int

    @property
    def weight(self) -> str:
        """The matrix whose product shows the input."""
        return self.input.weights[0]


class InputFinder:
    """Finds the inputs in one pass, from the order in which the engine asks for the nodes. It computes nothing."""

    def __init__(self) -> None:
        self.inputs: list[Input] = []
        self._of: dict[tuple[int, ...], Input] = {}
        self._known: set[str] = set()

    def wants(self, node: Node) -> bool:
        if node.operation not in ("MUL_MAT", "MUL_MAT_ID"):
            return False
        weight, rows = node.source(0), node.source(1)
        name = weight.name
        # An embedding is looked up, so its rows cannot be corrected, also where it is the output matrix.
        if name in self._known or not (name.startswith("blk.") or name == _OUTPUT) or not rows.is_float32:
            return False
        slices = weight.shape[2] * weight.shape[3]
        chosen = node.source(2).identity if node.operation == "MUL_MAT_ID" else 0
        key = (rows.identity, chosen, slices, weight.shape[0])
        if key not in self._of:
            self._of[key] = Input(weight.shape[0], slices)
            self.inputs.append(self._of[key])
        self._of[key].weights.append(name)
        self._known.add(name)
        return False


def turns(inputs: Sequence[Input], memory: int) -> Iterator[list[Share]]:
    """Divides inputs into groups that are collected one after the other, each within `memory` bytes or of one slice."""
    group: list[Share] = []
    room = memory
    for each in inputs:
        first = 0
        while first < each.slices:
            fitting = min(max(room, 0) // each.slice_bytes, each.slices - first)
            # A few experts at the end of a group would only cost another part: they wait for the next group.
            if group and (fitting == 0 or (fitting < each.slices - first and each.slices * each.slice_bytes <= memory)):
                yield group
                group, room = [], memory
                continue
            count = max(fitting, 1)
            group.append(Share(each, first, first + count))
            room -= count * each.slice_bytes
            first += count
    if group:
        yield group


class MomentCollector:
    """Sums the moments of a group of inputs."""

    def __init__(self, shares: Sequence[Share]) -> None:
        self._shares = {share.weight: share for share in shares}
        self._last = shares[-1].weight
        self.sums = {share.weight: _zeros(share) for share in shares}
        self.counts = {share.weight: np.zeros(share.end - share.first, np.int64) for share in shares}

    def wants(self, node: Node) -> bool:
        return node.operation in ("MUL_MAT", "MUL_MAT_ID") and node.source(0).name in self._shares

    def sees(self, node: Node) -> bool:
        """Add the input of a node; False after the last one, so that the rest of the pass is not computed."""
        share = self._shares[node.source(0).name]
        for number, rows in _by_slice(node, share):
            place = number - share.first
            self.sums[share.weight][place] += rows.T @ rows
            self.counts[share.weight][place] += len(rows)
        return share.weight != self._last

    def parts(self) -> Iterator[tuple[Part, NDArray[np.float32]]]:
        """What was summed. Raises EngineFailed for inputs that are not finite."""
        for name, share in self._shares.items():
            sums = self.sums[name]
            if not np.isfinite(np.einsum("scc->sc", sums)).all():
                raise EngineFailed(
                    f"the input of {name} is not finite, so it has no moments",
                    hint="use the original weights in BF16 or F32: F16 may overflow",
                )
            file = f"{name}.{share.first}.npy"
            counts = tuple(map(int, self.counts[name]))
            yield Part(file, tuple(share.input.weights), share.input.columns, share.first, counts), sums


def _zeros(share: Share) -> NDArray[np.float32]:
    columns = share.input.columns
    return np.zeros((share.end - share.first, columns, columns), np.float32)


def _by_slice(node: Node, share: Share) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The inputs of each slice of a share, (inputs, columns)."""
    weight, values = node.source(0), node.source(1).values()
    if node.operation == "MUL_MAT_ID":
        chosen = node.source(2).values()[0, 0]
        rows = values[0]
        for expert in range(share.first, share.end):
            token, place = np.nonzero(chosen == expert)
            if len(token):
                yield expert, np.ascontiguousarray(rows[token, place % rows.shape[1]])
        return
    batches, heads, count, columns = values.shape
    depth, width = weight.shape[2], weight.shape[3]
    each = values.reshape(batches // width, width, heads // depth, depth, count, columns)
    for number in range(share.first, share.end):
        own = each[:, number // depth, :, number % depth]
        yield number, np.ascontiguousarray(own).reshape(-1, columns)


def _check_room(folder: Path, inputs: Sequence[Input], moments: Moments) -> None:
    """Raise DoesNotFit before the text is read, if the disk has no room for all moments."""
    written = sum(4 * part.columns * part.columns * len(part.counts) for part in moments.index.parts)
    needed = ByteCount(sum(each.slices * each.slice_bytes for each in inputs) - written)
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
) -> Moments:
    """Run `texts` through the model at `path`, and write the moments to `folder`; an interrupted call continues.

    `source` is the digest of the weights, `memory` the most bytes of moments at a time; `context` and `most` are those
    of `sequences`.

    Raises UsageError (too little text), EngineFailed, DoesNotFit, DsrError (the folder), Aborted."""
    from runtime.llama import Observer
    from runtime.llama.blas import one_blas_thread

    watcher: InputFinder | MomentCollector | None = None

    def wants(node: Node) -> bool:
        return watcher is not None and watcher.wants(node)

    def sees(node: Node) -> bool:
        return isinstance(watcher, MomentCollector) and watcher.sees(node)

    # The threads of numpy would fight with the engine's.
    with (
        one_blas_thread(),
        Observer(path, wants, sees, window=context, sequences=_TOGETHER, run=run) as model,
    ):
        settle_threads(model, run.threads)
        parts = sequences(model, texts, context, most)
        tokens = sum(map(len, parts))
        moments = begin(folder, source, text_digest(parts), tokens, [text.name for text in texts])
        if moments.index.complete:
            return moments
        watcher = finder = InputFinder()
        for _ in model.observe(parts[0][:LEAST_CHUNK]):
            break
        there = {(part.weights[0], part.first) for part in moments.index.parts}
        _check_room(folder, finder.inputs, moments)
        groups = list(turns(finder.inputs, memory))
        done, total = 0, tokens * len(groups)
        if there:
            run.listen(Notice(f"{folder}: continuing"))
        for group in groups:
            if all((share.weight, share.first) in there for share in group):
                done += tokens
                continue
            watcher = collector = MomentCollector(group)
            for count in model.observe_together(parts):
                done += count
                run.listen(Progress("collecting", path.name, done, total, "tokens"))
            watcher = None
            with disk_errors(folder):
                for part, sums in collector.parts():
                    if (part.weights[0], part.first) not in there:
                        moments.add(part, sums)
    with disk_errors(folder):
        moments.finish()
    return moments
