"""Where the figures that were measured of a source are kept."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from quant.round.moments import Moments, source_digest
from quant.sources.source import Source

_NAME = 60  # characters of the model's name in that of the file, which may have 255 bytes


def figures_file(folder: Path, source: Source, moments: Moments | None, *facts: object) -> Path:
    """The file in `folder` for figures that depend on the weights and the importance of `source`, on `moments` and on
    `facts`."""
    out = hashlib.sha256("\0".join(map(str, facts)).encode())
    out.update(f"\0{source_digest(source)}\0{moments.index.digest if moments else 'plain'}".encode())
    for name, values in sorted((source.importance or {}).items()):
        out.update(f"{name}\0".encode() + np.ascontiguousarray(values, "<f4").tobytes())
    return folder / f"{source.name[:_NAME]}-{out.hexdigest()[:16]}.json"
