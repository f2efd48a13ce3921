"""Opens a path as a source: a GGUF file, or a folder with original weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quant.sources.source import GgufSource, Source
from runtime.base.errors import NotFound, UsageError
from runtime.base.events import Listener, ignore
from runtime.gguf.engine_lists import check_known


@contextmanager
def open_source(
    path: Path,
    *,
    name: str = "",
    pre: str | None = None,
    keep_mtp: bool = False,
    weights: bool = True,
    listen: Listener = ignore,
) -> Iterator[Source]:
    """The model at `path`, checked once. `name` is the name of a GGUF file's model; a folder has its own name.

    `pre` (the pre-tokenizer) and `keep_mtp` are for folders. Without `weights` a folder needs only its config.json, as
    for a dry run. Raises the errors of reading the files, UsageError for options that do not go with a GGUF file,
    Incompatible for a GGUF file that the engine does not know, and NotFound where weights are wanted and only
    config.json is there."""
    if path.is_dir():
        yield _open_folder(path, pre, keep_mtp, weights, listen)
        return
    if pre is not None:
        raise UsageError("--pre is for original weights: a GGUF file says which pre-tokenizer it has")
    if keep_mtp:
        raise UsageError("--keep-mtp is for original weights: dsr always keeps all layers of a GGUF file")
    with GgufSource(path, name) as source:
        check_known(source.card)
        yield source


def _open_folder(folder: Path, pre: str | None, keep_mtp: bool, weights: bool, listen: Listener) -> Source:
    from quant.convert.conversion import source_of  # late: it imports gguf
    from quant.sources.checkpoint import open_checkpoint
    from quant.sources.weight_files import may_be_weights

    names = sorted(file.name for file in folder.iterdir())
    checkpoint = open_checkpoint(folder, weights=weights or any(map(may_be_weights, names)))
    gguf = [name for name in names if name.lower().endswith(".gguf")]
    if not checkpoint.tensors and (weights or gguf):
        hint = (
            f"give the GGUF file: {folder / gguf[0]}"
            if gguf
            else "pull them with dsr pull --original; --recipe with --dry-run works without them"
        )
        raise NotFound(f"{folder}: there are no weights, only config.json", hint=hint)
    return source_of(checkpoint, pre=pre, keep_mtp=keep_mtp, listen=listen)
