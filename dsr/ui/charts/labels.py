"""Places for the labels of points: no label covers a point, a line or another label."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dsr.ui.text import display_width

LETTER = 0.6  # mean width of a letter as a part of the font's size; most fonts need less
_DISTANCES = (8.0, 20.0, 34.0)
_EVERY = 6.0  # units between the points of a line that no label may cover


@dataclass(frozen=True, slots=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def holds(self, x: float, y: float) -> bool:
        return self.left <= x <= self.right and self.top <= y <= self.bottom

    def within(self, other: Box) -> bool:
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


@dataclass(frozen=True, slots=True)
class Label:
    """A text whose middle line is at `y` and whose `anchor` (start, middle, end) is at `x`. `far`: a thin line should
    lead from the point to it."""

    x: float
    y: float
    anchor: str
    far: bool


def width(text: str, size: float) -> float:
    """The width of a text in a font of `size`, in the same unit; an estimate from above."""
    return display_width(text) * size * LETTER


def placed(
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    inside: Box,
    size: float,
    radius: float,
    lines: Sequence[Sequence[tuple[float, float]]] = (),
) -> list[Label | None]:
    """A place for the text of each point; None if there is no room, or for "".

    The first points choose first. `inside` is the area of the chart, `size` that of the font, `radius` that of a
    marker.
    """
    taken = [Box(x - radius, y - radius, x + radius, y + radius) for x, y in points]
    taken += [Box(x - 1, y - 1, x + 1, y + 1) for line in lines for x, y in _along(line)]
    found: list[Label | None] = []
    for point, text in zip(points, texts, strict=True):
        place = next(_free(point, width(text, size), size, inside, taken), None) if text else None
        if place is not None:
            taken.append(place[1])
        found.append(place[0] if place else None)
    return found


def _along(line: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    for (x, y), (to_x, to_y) in pairwise(line):
        steps = max(1, round(math.hypot(to_x - x, to_y - y) / _EVERY))
        yield from ((x + (to_x - x) * step / steps, y + (to_y - y) * step / steps) for step in range(steps + 1))


def _free(
    point: tuple[float, float], wide: float, high: float, inside: Box, taken: Sequence[Box]
) -> Iterator[tuple[Label, Box]]:
    for label, box in _candidates(point, wide, high):
        if not box.within(inside) or any(box.overlaps(other) for other in taken):
            continue
        # The thin line from a point to its label crosses no other point or label.
        way = list(_along([point, (label.x, label.y)])) if label.far else []
        if not any(other.holds(*each) for other in taken if not other.holds(*point) for each in way):
            yield label, box


def _candidates(point: tuple[float, float], wide: float, high: float) -> Iterator[tuple[Label, Box]]:
    x, y = point
    for distance in _DISTANCES:
        far = distance > _DISTANCES[0]
        for across, down in ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (-1, -1), (1, 1), (-1, 1)):
            to_x, to_y = x + across * distance, y + down * (distance + (high / 2 if not across else 0))
            left = to_x - {1: 0.0, -1: wide, 0: wide / 2}[across]
            anchor = {1: "start", -1: "end", 0: "middle"}[across]
            box = Box(left, to_y - high / 2, left + wide, to_y + high / 2)
            yield Label(to_x, to_y, anchor, far), box
