"""The card of a model that is still on the hub, from the first bytes of its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from dsr.hub.client import Hub, Listing
from runtime.base.events import Listener, ignore
from runtime.gguf.card import ModelCard

_HEADER_START = 8 << 20
_HEADER_LONGEST = 256 << 20


def remote_card(listing: Listing, files: Sequence[str], hub: Hub, listen: Listener = ignore) -> ModelCard:
    """The card of a model that is still on the hub, from the first bytes of each of its files."""
    from runtime.gguf.header import Header, HeaderTruncated, parse_header
    from runtime.gguf.reader import card_from_headers

    headers: list[Header] = []
    for path in files:
        length, size = _HEADER_START, listing.sizes[path]
        while True:
            data = hub.first_bytes(listing, path, min(length, size), listen)
            try:
                headers.append(parse_header(data, size, Path(path)))
                break
            except HeaderTruncated as error:
                if len(data) >= size or length >= _HEADER_LONGEST:
                    raise
                length = min(max(2 * length, error.needed), _HEADER_LONGEST)
    return card_from_headers([Path(PurePosixPath(path).name) for path in files], headers)
