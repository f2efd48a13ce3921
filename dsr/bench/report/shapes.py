"""The markers of a chart's series: each has a colour and a shape of its own."""

from __future__ import annotations

import math

from dsr.bench.report.chart import COLOURS

# Corners and by how many degrees the first is turned; a circle comes before them.
_CORNERS = ((4, 45), (3, -90), (4, 0), (3, 90), (5, -90))


def coloured(number: int) -> str:
    """The class of a series; all behind the last colour are grey."""
    return f"colour-{number}" if number < COLOURS else "colour-none"


def shape(number: int, x: float, y: float, radius: float, *, hollow: bool = False) -> str:
    kind = f"mark {coloured(number)}{' hollow' if hollow else ''}"
    if not 0 < number < COLOURS:
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>'
    corners, turned = _CORNERS[number - 1]
    angles = [math.radians(turned + 360 * corner / corners) for corner in range(corners)]
    radius *= 1.25  # for as much of an area as a circle's
    points = " ".join(f"{x + radius * math.cos(angle):.1f},{y + radius * math.sin(angle):.1f}" for angle in angles)
    return f'<polygon class="{kind}" points="{points}"/>'
