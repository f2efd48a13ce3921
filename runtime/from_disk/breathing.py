"""Decides how much memory weights from the disk may take while the needs of other programs change. Pure."""

from __future__ import annotations

_WORTHWHILE = 1 / 64  # of the memory: smaller changes are not made, so that it does not swing


def breathe(most: int, held: int, free: int, spare: int, least: int, whole: int) -> int:
    """The bytes that units may take, where they may take `most` and take `held`, and `free` bytes are free.

    `spare` bytes stay free, but units always have `least` bytes, and never more than all of them have: `whole`."""
    wanted = min(max(held + free - spare, least), whole)
    return wanted if abs(wanted - most) > most * _WORTHWHILE else most
