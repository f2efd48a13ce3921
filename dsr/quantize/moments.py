"""The second moments of a source: read from a folder, or collected and kept in the cache."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dsr.quantize.enough_tokens import enough_tokens
from dsr.store import kept_moments
from quant.measure.chunks import Text
from quant.measure.texts import CALIBRATION
from quant.recipe.mixtures import unquantized
from quant.sources.source import GgufSource, Source
from quant.write import execute
from quant.write.scratch import scratch_folder
from runtime.base.disk_errors import disk_errors
from runtime.base.errors import BadModelFile, Incompatible, NotFound
from runtime.base.run import Run
from runtime.gguf.reader import read_card
from runtime.machine.host import probe
from runtime.machine.machine import usable
from runtime.placement.trial import try_file

if TYPE_CHECKING:
    from quant.measure.imatrix import Imatrix
    from quant.round.moments import Moments

# Conversations are read whole. Longer ones would need a larger KV cache, and add little.
LONGEST = 2048
_SHARE = 2  # moments take half of what is usable, and the weights the other half, or they are mapped
_LEAST = 1 << 28  # bytes of moments at a time, also where memory is short: fewer would read the text too often


def moments_of(source: Source, folder: Path | None, run: Run) -> Moments:
    """The moments of `source` in `folder`; without a folder those in the cache, which are collected if need be.

    Raises NotFound, BadModelFile, Incompatible (moments of other weights), EngineFailed, DoesNotFit, Aborted."""
    from quant.round.moments import read_complete, source_digest

    digest = source_digest(source)
    if folder is not None:
        moments = read_complete(folder)
        moments.check_source(digest)
        return moments
    most = enough_tokens(source)
    place = kept_moments.place(digest, CALIBRATION.digest, most)
    lock = kept_moments.take(place)
    try:
        moments = read_complete(place)
        if moments.text() is None:  # an older version kept none
            moments = _collected(source, digest, most, place, run)
    except (NotFound, BadModelFile, Incompatible):
        moments = _collected(source, digest, most, place, run)
    moments.held = lock
    return moments


def _collected(source: Source, digest: str, most: int, place: Path, run: Run) -> Moments:
    def room(needed: int) -> None:
        kept_moments.make_room(place, needed)

    with original_file(source, place.parent, run) as path:
        return collect(path, digest, (), most, place, run, room)


@contextmanager
def original_file(source: Source, folder: Path, run: Run) -> Iterator[Path]:
    """A model file of the source's weights: its own, or one in `folder` that is deleted afterwards."""
    if isinstance(source, GgufSource):
        yield source.files[0]
        return
    with disk_errors(folder), scratch_folder(folder, ".source-") as scratch:
        path = scratch / "source.gguf"
        execute.quantize(source, unquantized(source), path, run)
        yield path


def collect(
    path: Path,
    digest: str,
    texts: Sequence[Text],
    most: int | None,
    folder: Path,
    run: Run,
    make_room: Callable[[int], object] = int,
) -> Moments:
    """Run the built-in conversations, or `texts`, through the model at `path`, and write the moments to `folder`.

    `most` is the number of tokens to read. `make_room` is told the bytes that will be written. The file is tried
    first."""
    from quant.measure.moments import collect_moments

    card = read_card(path)
    try_file(card, run)
    memory = max(usable(probe().memory_available) // _SHARE, _LEAST)
    return collect_moments(
        path,
        digest,
        texts or CALIBRATION.each_for_model(card),
        folder,
        run,
        context=min(LONGEST, card.context_length),
        memory=memory,
        most=most,
        mapped=card.weights_size > memory and sys.platform == "linux",
        make_room=make_room,
    )


def importance_of(moments: Moments) -> Imatrix:
    """The importance matrix of the same text: the diagonals of the moments."""
    from quant.measure.imatrix import Entry, Imatrix

    entries = {name: Entry(sums, counts) for name, (sums, counts) in moments.diagonals().items()}
    return Imatrix(entries, datasets=tuple(dict.fromkeys(moments.index.datasets)))
