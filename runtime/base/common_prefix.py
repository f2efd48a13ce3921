"""How far two sequences are equal from their beginning."""

from __future__ import annotations

from collections.abc import Sequence

_FIRST_BLOCK = 16


def common_length(one: Sequence[object], other: Sequence[object], start: int = 0) -> int:
    """The number of elements that `one` and `other[start:]` have in common before the first difference.

    Blocks of doubling size are compared as slices, in native code; the block with the difference is bisected.
    """
    most = max(0, min(len(one), len(other) - start))

    def equal(begin: int, end: int) -> bool:
        ours, theirs = one[begin:end], other[start + begin : start + end]
        return ours == theirs if type(ours) is type(theirs) else [*ours] == [*theirs]

    same, block = 0, _FIRST_BLOCK
    while equal(same, end := min(same + block, most)):
        if end == most:
            return most
        same, block = end, 2 * block
    while end - same > 1:
        middle = (same + end) // 2
        same, end = (middle, end) if equal(same, middle) else (same, middle)
    return same
