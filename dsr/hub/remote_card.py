"""The card of a model that is still on the hub, from the first bytes of its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from dsr.hub.client import Hub, Listing
from runtime.base.events import Listener, ignore
from runtime.gguf.card import ModelCard

_FIRST_START, _NEXT_START = 8 << 20, 1 << 20  # the vocabulary is in the first shard


def remote_card(listing: Listing, files: Sequence[str], hub: Hub, listen: Listener = ignore) -> ModelCard:
    """The card of a model that is still on the hub, from the first bytes of each of its files.

    Raises the errors of `card_from_headers`.
    """
    from runtime.gguf.header import LONGEST_HEADER, Header, HeaderTruncated, parse_header
    from runtime.gguf.reader import card_from_headers

    headers: list[Header] = []
    for path in files:
        length, size = _NEXT_START if headers else _FIRST_START, listing.sizes[path]
        while True:
            data = hub.first_bytes(listing, path, min(length, size), listen)
            try:
                headers.append(parse_header(data, size, Path(path)))
                break
            except HeaderTruncated as error:
                if len(data) >= size or length >= LONGEST_HEADER:
                    raise
                length = min(max(2 * length, error.needed), LONGEST_HEADER)
    return card_from_headers([Path(PurePosixPath(path).name) for path in files], headers)
