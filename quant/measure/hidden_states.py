"""Keeps the hidden states of a whole text at a cut of the graph in a file, for the layers behind the cut."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from quant.measure.graph_cuts import Cut, Graph
from runtime.base.disk_errors import disk_errors
from runtime.base.errors import BadModelFile

_NAME = re.compile(r"hidden-(\d+)-([0-9a-f]{16})\.bin")
_BEGUN = ".begun"


class HiddenStates:
    """The files in `folder` for cuts of `graph`, of the weights and the text that `work` is the digest of. A file gets
    its name once it is complete."""

    def __init__(self, folder: Path, graph: Graph, work: str) -> None:
        self._folder, self._graph = folder, graph
        self._digest = hashlib.sha256(f"{graph.digest} {work}".encode()).hexdigest()[:16]

    def latest(self, before: int) -> Cut | None:
        """The last cut before node `before` that has a file."""
        names = [_NAME.fullmatch(path.name) for path in self._folder.iterdir()]
        found = [int(name[1]) for name in names if name and name[2] == self._digest and int(name[1]) < before]
        return self._graph.cut(max(found)) if found else None

    @contextmanager
    def read(self, cut: Cut) -> Iterator[Callable[[int], bytes]]:
        """A function that returns the next bytes. It raises BadModelFile where the file has fewer."""
        path = self._path(cut)
        with disk_errors(path), path.open("rb") as file:

            def load(size: int) -> bytes:
                content = file.read(size)
                if len(content) != size:
                    raise BadModelFile(path, f"has {len(content)} bytes where {size} were kept", hint="delete it")
                return content

            yield load

    @contextmanager
    def write(self, cut: Cut) -> Iterator[Callable[[bytes], object]]:
        """A function that writes bytes. The file is complete at the end of the block.

        Raises DoesNotFit for a full disk, DsrError."""
        path = self._path(cut)
        begun = path.with_suffix(_BEGUN)
        with disk_errors(path):
            try:
                with begun.open("wb") as file:
                    yield file.write
                    file.flush()
                    os.fsync(file.fileno())
                begun.replace(path)
            finally:
                begun.unlink(missing_ok=True)

    def keep_only(self, cut: Cut | None) -> None:
        """Delete all files but that of `cut`, also unfinished ones and those of other work. Raises DsrError."""
        kept = None if cut is None else self._path(cut)
        with disk_errors(self._folder):
            for path in self._folder.glob("hidden-*"):
                if path != kept and (_NAME.fullmatch(path.name) or path.suffix == _BEGUN):
                    path.unlink(missing_ok=True)

    def _path(self, cut: Cut) -> Path:
        return self._folder / f"hidden-{cut.index}-{self._digest}.bin"
