"""How busy an engine is."""

from __future__ import annotations

from typing import NamedTuple


class Standing(NamedTuple):
    """Requests that draw, that read their prompt and that wait; `held` cells of the KV cache are theirs, and `cached`
    cells hold earlier texts, which give way. Texts of `moved` tokens are in host memory.
    """

    drawing: int = 0
    reading: int = 0
    waiting: int = 0
    held: int = 0
    cached: int = 0
    moved: int = 0
