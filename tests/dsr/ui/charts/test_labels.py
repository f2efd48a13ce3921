"""Places for the labels of points."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsr.ui.charts.labels import Box, Label, placed


def test_names_avoid_points_and_each_other() -> None:
    area = Box(0, 0, 200, 100)
    [first, second] = placed([(50, 50), (60, 50)], ["left", "right"], area, 10, 4)
    assert first == Label(42, 50, "end", False)
    assert second == Label(68, 50, "start", False)
    assert placed([(50, 50)], ["a name that is longer than the picture is wide"], area, 10, 4) == [None]


@given(st.lists(st.tuples(st.floats(0, 400), st.floats(0, 300)), min_size=1, max_size=30))
def test_placed_names_never_overlap(points: list[tuple[float, float]]) -> None:
    found = placed(points, ["name"] * len(points), Box(0, 0, 400, 300), 10, 4)
    wide = 4 * 10 * 0.6
    boxes = []
    for label in found:
        if label is not None:
            left = label.x - {"start": 0.0, "end": wide, "middle": wide / 2}[label.anchor]
            boxes.append(Box(left, label.y - 5, left + wide, label.y + 5))
    assert not any(box.overlaps(other) for number, box in enumerate(boxes) for other in boxes[:number])
