"""The second moments of a source: read from a folder, or collected and kept in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dsr.store.paths import cache_folder
from quant.measure.chunks import Text
from quant.measure.texts import CALIBRATION
from quant.recipe.mixtures import unquantized
from quant.sources.source import GgufSource, Source
from quant.write import execute
from quant.write.scratch import scratch_folder
from runtime.base.disk_errors import disk_errors
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
_SHARE = 2  # moments take half of what is usable, because the model is open at the same time
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
    place = cache_folder() / "moments" / digest[:32]
    if isinstance(source, GgufSource):
        return collect(source.files[0], digest, (), None, place, run)
    with disk_errors(place), scratch_folder(place.parent, ".source-") as scratch:
        path = scratch / "source.gguf"
        execute.quantize(source, unquantized(source), path, run)
        return collect(path, digest, (), None, place, run)


def collect(path: Path, digest: str, texts: Sequence[Text], most: int | None, folder: Path, run: Run) -> Moments:
    """Run the built-in conversations, or `texts`, through the model at `path`, and write the moments to `folder`.

    `most` is the number of tokens to read. The file is tried first."""
    from quant.measure.moments import collect_moments

    card = read_card(path)
    try_file(card, run)
    return collect_moments(
        path,
        digest,
        texts or CALIBRATION.each_for_model(card),
        folder,
        run,
        context=min(LONGEST, card.context_length),
        memory=max(usable(probe().memory_available) // _SHARE, _LEAST),
        most=most,
    )


def importance_of(moments: Moments) -> Imatrix:
    """The importance matrix of the same text: the diagonals of the moments."""
    from quant.measure.imatrix import Entry, Imatrix

    entries = {name: Entry(sums, counts) for name, (sums, counts) in moments.diagonals().items()}
    return Imatrix(entries, datasets=tuple(dict.fromkeys(moments.index.datasets)))
