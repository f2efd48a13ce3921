"""Decides how many tokens of a prompt are computed together. Pure.

A pass of many tokens needs nearly all experts of each layer, and any pass needs all layers of a dense model. So a
prompt reads about as many times the weights on the disk as it has passes: the fewer, the better.
"""

from __future__ import annotations

from runtime.engine.backend import ROWS
from runtime.from_disk.units import FromDisk, Units

# The most tokens of a pass. For so many, computing takes longer than reading the whole model: a processor with 1 TFLOPS
# computes 2048 tokens of DeepSeek R1 in 150 s, and a disk with 1 GB/s reads its 131 GiB in 141 s. Longer passes would
# only let Ctrl-C and other answers wait longer.
MOST_ROWS = 2048


def most_tokens(units: Units, used: int, opened: FromDisk, rows: int) -> int:
    """The most tokens of one pass, at most `rows`, whose weights have room for any choice of the router; at least 1.

    A token uses `used` units of a layer. More tokens than usual also leave room to read the next layer while one
    computes.
    """
    together = 1 if units.routed else 2  # a dense layer is in use until the next one begins
    least, ahead = (_largest(units, count) for count in (together, together + 1))
    few = opened.memory // (max(units.paged_sizes) * used + opened.row_bytes) if units.routed else 1
    return max(1, min(rows, max(_beside(opened, ahead), min(ROWS, _beside(opened, least)), few)))


def _largest(units: Units, count: int) -> int:
    """The most bytes of so many layers that follow each other."""
    sizes = units.paged_sizes
    return units.experts * max(
        sum(sizes[(n + k) % len(sizes)] for k in range(min(count, len(sizes)))) for n in range(len(sizes))
    )


def _beside(opened: FromDisk, held: int) -> int:
    """The tokens whose working buffers fit in memory together with so many bytes of weights."""
    if opened.memory < held:
        return 0
    return (opened.memory - held) // opened.row_bytes if opened.row_bytes else MOST_ROWS
