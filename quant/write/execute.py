"""Execute a plan: read a source in pieces, store each in its type, and never leave a half-written file.

Unfinished files have other names, and a journal says what is on disk (`quant.write.output`). So the same call continues
where an earlier one was stopped, and gives the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quant.plan import QuantPlan, TensorPlan, loses_again, requires_importance
from quant.round.watch import Watch, part
from quant.sources.source import Source, TensorSpec
from quant.write.output import Journal, Keeper, Output, journal_of, work_digest, write_at
from quant.write.tasks import do_pieces
from runtime.base.disk_errors import disk_errors
from runtime.base.errors import BadModelFile, UsageError, VerificationFailed
from runtime.base.events import Listener, Notice, Progress
from runtime.base.run import Run
from runtime.base.types import ByteCount, counted
from runtime.gguf.types import BY_NAME, NOT_FOR_WEIGHTS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quant.round.cross import Inputs
    from quant.round.moments import Moments
    from quant.write.stages import InputsOf, Stages, Written

JOB = "quantizing"

# Weights that one thread reads and stores at a time: few enough to stop soon, enough to make Python's part small.
_PIECE = 1 << 18
# Weights of a piece whose errors are corrected: many rows at a time, because the work on a column has a fixed part.
_ROUNDED_PIECE = 1 << 21
_LEAST_ROWS = 1024  # and in a wide matrix


def quantize(
    source: Source,
    plan: QuantPlan,
    out: Path,
    run: Run,
    *,
    force: bool = False,
    allow_requantize: bool = False,
    split_max_size: int | None = None,
) -> tuple[Path, ...]:
    """Write `source` to `out` as the plan says, and return the files written (several when the output is split).

    An interrupted call continues where it was stopped; when the source's files have changed it starts again. The
    source's files are never overwritten. `source.read` is called from `run.threads` threads (None: as many as run well
    on this machine). `split_max_size` is the largest number of bytes of weights per file. When one file holds all, its
    name is `out`.

    Raises UsageError (OUT is the source or exists, the plan is for another model, weights are quantized already, an
    importance is missing), DoesNotFit (the disk is full or too small), VerificationFailed (weights that are not
    finite), Aborted (when a stop is wanted).
    """
    job = prepare(source, plan, out, allow_requantize=allow_requantize, split_max_size=split_max_size)
    return write(job, run, force=force)


@dataclass(frozen=True, slots=True)
class WriteJob:
    """A plan that was checked against its source, and the files that it becomes. `prepare` makes it."""

    source: Source
    plan: QuantPlan
    output: Output
    moments: Moments | None = None
    stages: Stages | None = None


def prepare(
    source: Source,
    plan: QuantPlan,
    out: Path,
    *,
    allow_requantize: bool = False,
    split_max_size: int | None = None,
    moments: Moments | None = None,
    stages: Stages | None = None,
) -> WriteJob:
    """Check everything that can be checked before writing. A plan that corrects errors needs `moments`; the matrices of
    `stages` correct errors of earlier layers, too.

    Raises UsageError, NotFound."""
    if not allow_requantize:
        refuse_requantizing(plan)
    _check(source, plan)
    if moments is None and any(tensor.rounding for tensor in plan.tensors):
        raise UsageError("the plan corrects errors of rounding, and there are no second moments")
    output = Output.of(plan, out, split_max_size)
    output.check_places(source.files)
    return WriteJob(source, plan, output, moments, stages)


def write(job: WriteJob, run: Run, *, force: bool = False) -> tuple[Path, ...]:
    """Write the files of a job, as `quantize` does."""
    plan, output = job.plan, job.output
    with disk_errors(output.out), ExitStack() as stack:
        digest = work_digest(job.source, plan, output, job.moments, job.stages)
        journal = Journal(journal_of(output.out))
        stack.callback(journal.close)
        renaming = journal.digest == digest and journal.complete and output.all_there()
        if not force:
            output.refuse_existing(journal, renaming=renaming)
        if not renaming:
            output.prepare(journal, digest, run.listen)
            meter = _Meter(plan, journal, output, run.listen)
            with ExitStack() as writing:
                keeper = writing.enter_context(Keeper(journal, output.open(writing)))
                if job.moments is not None:
                    from runtime.llama.blas import one_blas_thread

                    # Each piece computes in one thread: its bytes must not depend on their number.
                    writing.enter_context(one_blas_thread())
                _store_all(job, frozenset(journal.finished), keeper, run, meter)
        output.rename()
        journal.remove()
    return output.targets


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of one tensor: which to read, and the file and offset to write them to."""

    tensor: TensorPlan
    spec: TensorSpec
    first: int
    count: int
    file: int
    offset: int

    @property
    def bytes(self) -> int:
        return self.tensor.bytes // self.tensor.rows * self.count

    @property
    def last(self) -> bool:
        return self.first + self.count == self.tensor.rows


def refuse_requantizing(plan: QuantPlan) -> None:
    """Raise UsageError for a plan that quantizes weights which are quantized already."""
    again = [tensor for tensor in plan.tensors if loses_again(tensor)]
    if again:
        kinds = ", ".join(sorted({tensor.stored for tensor in again}))
        raise UsageError(
            f"{counted(len(again), 'tensor is', 'tensors are')} quantized already ({kinds}): quantizing again adds a "
            "second loss to the first, and the original weights would give a better file of the same size",
            hint="give the original weights, or accept the loss with --allow-requantize",
        )


def _check(source: Source, plan: QuantPlan) -> None:
    """Raise UsageError for a plan of another model, and for types that need an importance which is not there."""
    specs = {tensor.name: tensor for tensor in source.tensors}
    for tensor in plan.tensors:
        spec = specs.get(tensor.name)
        if spec is None or (spec.shape, spec.stored) != (tensor.shape, tensor.stored):
            raise UsageError(f"the plan is for another model: {tensor.name} is not what it says")
        needs = requires_importance(tensor.name, tensor.target) and tensor.stored != tensor.target
        if needs and not source.has_importance(tensor.name):
            raise UsageError(
                f"{tensor.name} in {tensor.target} needs an importance matrix"
                + (", and the given one has no entry for it" if source.importance else ""),
                hint="make one with dsr imatrix, and give it with --imatrix",
            )


def _pieces(job: WriteJob, finished: frozenset[str]) -> Iterator[_Piece]:
    """All rows that are still to be written, in the order of the files."""
    plan, output = job.plan, job.output
    specs = {tensor.name: tensor for tensor in job.source.tensors}
    for file, ((begin, end), placed) in enumerate(zip(output.ranges, output.layouts, strict=True)):
        for tensor, offset in zip(plan.tensors[begin:end], placed.offsets, strict=True):
            if tensor.name in finished:
                continue
            rows = _rounded_rows(tensor) if tensor.rounding else max(_PIECE // tensor.row_length, 1)
            width = tensor.bytes // tensor.rows
            for first in range(0, tensor.rows, rows):
                count = min(rows, tensor.rows - first)
                yield _Piece(tensor, specs[tensor.name], first, count, file, offset + first * width)


def _rounded_rows(tensor: TensorPlan) -> int:
    """The rows of a piece whose errors are corrected: several whole matrices, or an equal part of one."""
    most = max(_ROUNDED_PIECE // tensor.row_length, _LEAST_ROWS)
    height = tensor.rows // tensor.slices
    return most // height * height if height <= most else -(-height // -(-height // most))


def _store_all(job: WriteJob, finished: frozenset[str], keeper: Keeper, run: Run, meter: _Meter) -> None:
    """Store all pieces that are still to be written: those of stages last, one stage after the other."""
    stages, moments = job.stages, job.moments
    staged = frozenset() if stages is None else stages.weights
    left = list(_pieces(job, finished))

    def by_moments(name: str, number: int, watch: Watch) -> Inputs | None:
        from quant.round.cross import Inputs

        moment = None if moments is None else moments.of(name, number, watch)
        return None if moment is None else Inputs(moment)

    def store(names: Container[str], inputs_of: InputsOf) -> None:
        own = [piece for piece in left if piece.tensor.name in names]
        _store(own, _storer(job, keeper.files, inputs_of), keeper, run, meter)

    store({piece.tensor.name for piece in left} - staged, by_moments)
    if stages is not None and not staged <= finished:
        for weights, inputs_of in stages.each(finished, _reader(job, keeper.files), run):
            store(weights, inputs_of)
    keeper.complete()


def _reader(job: WriteJob, files: Sequence[int]) -> Written:
    """Reads tensors that were written."""
    placed = {
        tensor.name: (tensor, files[file], offset)
        for file, ((begin, end), layout) in enumerate(zip(job.output.ranges, job.output.layouts, strict=True))
        for tensor, offset in zip(job.plan.tensors[begin:end], layout.offsets, strict=True)
    }

    def written(name: str) -> NDArray[np.uint8]:
        import numpy as np

        tensor, file, offset = placed[name]
        return np.frombuffer(os.pread(file, tensor.bytes, offset), np.uint8).reshape(tensor.rows, -1)

    return written


def _store(
    pieces: Sequence[_Piece], store: Callable[[_Piece, Watch], None], keeper: Keeper, run: Run, meter: _Meter
) -> None:
    """Store pieces, several at a time, and settle them in order."""

    def settled(piece: _Piece) -> None:
        if piece.last:
            keeper.finished(piece.tensor.name)
        meter.done += piece.bytes

    def report(under_way: Iterable[tuple[_Piece, float]]) -> None:
        meter.report(sum(piece.bytes * share for piece, share in under_way))

    do_pieces(pieces, store, run, settled, report)


class _Meter:
    """Reports the bytes written, those of an earlier call included, and those of pieces that are under way."""

    def __init__(self, plan: QuantPlan, journal: Journal, output: Output, listen: Listener) -> None:
        self._item, self._total = output.targets[0].name, sum(tensor.bytes for tensor in plan.tensors)
        self._listen = listen
        self.done = sum(tensor.bytes for tensor in plan.tensors if tensor.name in journal.finished)
        if self.done:
            listen(Notice(f"continuing: {ByteCount(self.done)} of {ByteCount(self._total)} are there already"))
        self.report(0)

    def report(self, under_way: float) -> None:
        self._listen(Progress(JOB, self._item, self.done + int(under_way), self._total, "bytes"))


def _storer(job: WriteJob, files: Sequence[int], inputs_of: InputsOf) -> Callable[[_Piece, Watch], None]:
    """What a thread does with a piece: read, store in its type, write. ggml and the reads release Python's lock."""
    source = job.source
    importance = source.importance or {}

    def store(piece: _Piece, watch: Watch) -> None:
        tensor, at = piece.tensor, piece.offset
        try:
            copied = (
                source.stored_rows(piece.spec, piece.first, piece.count) if tensor.stored == tensor.target else None
            )
            if copied is not None:
                _refuse_unsound(tensor, copied)
                write_at(files[piece.file], copied, at)
                return
            rows = source.read(piece.spec, piece.first, piece.count)
            done = 0
            for each in _parts(piece, rows, importance.get(tensor.name)):
                end = done + len(each.rows)
                stored = _stored(tensor, each, inputs_of, part(watch, done / piece.count, end / piece.count))
                write_at(files[piece.file], stored, at)
                at, done = at + stored.nbytes, end
        except BadModelFile:  # names the file already
            raise
        except VerificationFailed as error:
            raise source.unsound(tensor.name, error) from error

    return store


def _stored(tensor: TensorPlan, part: _Part, inputs_of: InputsOf, watch: Watch) -> NDArray[np.uint8]:
    """The rows of a part in the tensor's type, and with its rounding."""
    inputs = inputs_of(tensor.name, part.matrix, watch) if tensor.rounding else None
    if inputs is None:  # an expert that saw no token has none
        return _quantized(tensor, part.rows, part.importance, watch)
    from quant.round.rounding import round_rows
    from runtime.llama import check_rows

    target = inputs.target(part.rows, tensor.target, watch)
    stored = _quantized(tensor, target, part.importance, watch)
    rounded = round_rows(target, stored, tensor.target, inputs.moment, tensor.rounding, watch).stored
    check_rows(BY_NAME[tensor.target].number, rounded)
    return rounded


def _quantized(
    tensor: TensorPlan, rows: NDArray[np.float32], importance: NDArray[np.float32] | None, watch: Watch
) -> NDArray[np.uint8]:
    """Rows as the engine's quantizer stores them."""
    import numpy as np

    from runtime.llama import quantize_rows

    number, count = BY_NAME[tensor.target].number, max(_PIECE // tensor.row_length, 1)
    found = []
    for first in range(0, len(rows), count):
        found.append(quantize_rows(number, rows[first : first + count], importance))
        watch(0)
    return np.concatenate(found) if len(found) > 1 else found[0]


def _refuse_unsound(tensor: TensorPlan, stored: NDArray[np.uint8]) -> None:
    """Raise VerificationFailed for rows to copy whose values are not finite."""
    import numpy as np

    from runtime.llama import dequantize_rows

    if tensor.stored not in NOT_FOR_WEIGHTS:
        values = dequantize_rows(BY_NAME[tensor.stored].number, stored)
        if values.size and not np.isfinite((values.min(), values.max())).all():
            raise VerificationFailed("there are values that are not finite (NaN or infinite)")


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Rows of one matrix of a tensor, whose number is `matrix`, with the importance of its columns."""

    matrix: int
    rows: NDArray[np.float32]
    importance: NDArray[np.float32] | None


def _parts(piece: _Piece, rows: NDArray[np.float32], importance: NDArray[np.float32] | None) -> Iterator[_Part]:
    """The rows of a piece by the matrix that they belong to."""
    tensor = piece.tensor
    if importance is None and not tensor.rounding:
        yield _Part(0, rows, None)
        return
    each = None if importance is None else importance.reshape(-1, tensor.row_length)
    height = tensor.rows // tensor.slices
    at = 0
    while at < piece.count:
        matrix, row = divmod(piece.first + at, height)
        end = min(at + height - row, piece.count)
        yield _Part(matrix, rows[at:end], None if each is None else each[matrix])
        at = end
