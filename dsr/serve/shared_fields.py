"""Values of fields that several APIs have."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"-?[0-9]{1,9}")


def token_of(key: str) -> int | str:
    """The token of a bias: its number, or its text."""
    return int(key) if _NUMBER.fullmatch(key) else key


def stops_of(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """The texts that end an answer, given as one text or as several."""
    return (given,) if given and isinstance(given, str) else tuple(given or ())


def seed_of(given: int | None) -> int | None:
    """A negative seed is a random one, as in llama.cpp."""
    return given % 2**32 if given is not None and given >= 0 else None
