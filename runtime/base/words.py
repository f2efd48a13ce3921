"""Numbers with their nouns, for messages to people."""

from __future__ import annotations


def counted(count: int, one: str, many: str = "") -> str:
    """'1 tensor', '3 tensors'. `many` is the plural if it is not `one` with an s: "tensor is", "tensors are"."""
    return f"{count} {one if count == 1 else many or one + 's'}"
