"""The original weights of a repository: what they are is known before the first gigabyte.

Two small files are read first: the index, which says which files are the weights, and config.json, which says whether
`dsr quantize` can convert them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dsr.hub.client import Hub, Listing
from dsr.hub.select_files import checkpoint_files
from quant.sources.shards import check_size, json_object
from quant.sources.weight_files import index_of
from runtime.base.errors import BadModelFile, Incompatible, VerificationFailed
from runtime.base.events import Listener, Notice

_CONFIG = "config.json"


def original_files(listing: Listing, hub: Hub, force: bool, listen: Listener) -> tuple[str, ...]:
    """The files of the checkpoint in a repository. A notice says why `dsr quantize` may not convert it.

    Raises the errors of `checkpoint_files`, and Incompatible or BadModelFile for a checkpoint that dsr cannot convert
    (unless `force`)."""
    chosen = checkpoint_files(tuple(listing.sizes), _index(listing, hub, listen))
    if _CONFIG not in listing.sizes:
        listen(Notice(f"{listing.repo} has no {_CONFIG}, so dsr quantize cannot convert it"))
        return chosen
    try:
        config = _read(listing, hub, _CONFIG, listen)
        if not config.get("architectures"):
            listen(Notice(f"{listing.repo}: its {_CONFIG} names no architecture, so dsr quantize cannot convert it"))
            return chosen
        _check_convertible(config, listing)
    except (Incompatible, BadModelFile) as error:
        if force:
            listen(Notice(f"{error.message}; dsr takes it because of --force"))
            return chosen
        if isinstance(error, BadModelFile):
            raise
        hint = f"{error.hint}; to download it anyway, use --force" if error.hint else "to download it anyway: --force"
        raise Incompatible(error.message, hint=hint) from error
    return chosen


def local_index(paths: Mapping[str, int], read: Callable[[str], bytes | None]) -> Mapping[str, Any] | None:
    """The index among files that are here already."""
    name = index_of(paths)
    raw = None if name is None else read(name)
    return None if name is None or raw is None else json_object(raw, Path(name))


def _index(listing: Listing, hub: Hub, listen: Listener) -> Mapping[str, Any] | None:
    """The index, without which no checkpoint is known, forced or not."""
    name = index_of(listing.sizes)
    try:
        return None if name is None else _read(listing, hub, name, listen)
    except BadModelFile as error:
        raise VerificationFailed(error.message, hint="choose another repository") from error


def _read(listing: Listing, hub: Hub, name: str, listen: Listener) -> Mapping[str, Any]:
    """The object in a JSON file of the repository. Raises BadModelFile."""
    size = listing.file(name).size
    check_size(Path(name), size)
    raw = hub.first_bytes(listing, name, size, listen) if size else b""
    return json_object(raw, Path(name))


def _check_convertible(config: Mapping[str, Any], listing: Listing) -> None:
    from quant.convert.conversion import check_convertible  # late: it imports gguf

    check_convertible(config, Path(_CONFIG), listing.sizes)
