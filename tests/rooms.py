"""Draws docs/architecture.svg, the map of the rooms, from the code's own imports: `python tests/rooms.py`.

A room is a folder (or, directly under a package, a file). An arrow goes from the room that imports to the room that
is imported; imports inside functions count, imports for type checkers alone do not. A room stands above every room
that it imports. If a imports b and b imports c, the arrow from a to c is not drawn. Arrows from one package to another
are not drawn either.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "architecture.svg"
# A package and what it is; each may import those below it.
PACKAGES = {
    "dsr": "the application: the only part that knows a user",
    "quant": "makes models smaller",
    "runtime": "answers questions; never prints, never reads settings",
    "prompts": "prompt texts with their sources",
}

Graph = dict[str, set[str]]

_ACROSS = 1120  # pixels, of the picture
_WIDE, _HIGH, _ROW, _HEAD = 112, 32, 76, 62
_COLOURS = {"dsr": ("#dbeafe", "#1d4ed8"), "quant": ("#fef3c7", "#b45309"), "runtime": ("#dcfce7", "#15803d"),
            "prompts": ("#f3e8ff", "#7e22ce")}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Box:
    """A room in the picture, with its upper left corner."""

    room: str
    x: float
    y: float

    @property
    def middle(self) -> float:
        return self.x + _WIDE / 2


def rooms(sources: Mapping[str, str]) -> Graph:
    """Each room with the rooms it imports, by the imports of all modules."""
    names = {room_of(module) for module in sources}
    graph: Graph = {name: set() for name in names}
    for module, source in sources.items():
        room = room_of(module)
        for imported in _imported(ast.parse(source)):
            other = room_of(_module(imported, sources))
            if other in names and other != room:
                graph[room].add(other)
    return graph


def room_of(module: str) -> str:
    """`dsr.bench.reason.judge` is in `dsr.bench`; `dsr.cli` is a room itself."""
    return ".".join(module.split(".")[:2])


def _module(imported: str, sources: Mapping[str, str]) -> str:
    """`from dsr.chat import session` names a module, `from dsr.chat.session import tell` a part of one."""
    return imported if imported in sources else imported.rpartition(".")[0]


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        else:
            yield from _imported(node)


def our_sources() -> dict[str, str]:
    """The text of every module, by its name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return found


# --- order ---------------------------------------------------------------------------------------------------------


def reachable(graph: Mapping[str, Collection[str]], start: str) -> set[str]:
    """Everything that `start` imports, directly or by way of others; itself only in a circle."""
    found: set[str] = set()
    open_ends = [start]
    while open_ends:
        for other in graph[open_ends.pop()]:
            if other not in found:
                found.add(other)
                open_ends.append(other)
    return found


def levels(graph: Graph) -> dict[str, int]:
    """The row of each room, 0 at the bottom: above all that it imports. Rooms of one circle share a row."""
    far = {room: reachable(graph, room) for room in graph}
    found: dict[str, int] = {}

    def level(room: str) -> int:
        if room not in found:
            circle = {other for other in far[room] if room in far[other]} | {room}
            below = {other for each in circle for other in graph[each]} - circle
            found.update(dict.fromkeys(circle, 0))
            found.update(dict.fromkeys(circle, 1 + max(map(level, sorted(below)), default=-1)))
        return found[room]

    for room in sorted(graph):
        level(room)
    return found


def arrows(graph: Graph) -> list[tuple[str, str]]:
    """The imports that do not follow from others: without a -> c where a -> b -> c."""
    far = {room: reachable(graph, room) for room in graph}

    def follows(room: str, other: str) -> bool:
        return any(
            other in far[between] and room not in far[between] and between not in far[other]
            for between in graph[room] - {other}
        )

    return [(room, other) for room in sorted(graph) for other in sorted(graph[room]) if not follows(room, other)]


def circles(graph: Graph) -> list[tuple[str, str]]:
    """Pairs of rooms that import each other."""
    pairs = [(room, other) for room in sorted(graph) for other in sorted(graph[room]) if room < other]
    return [(room, other) for room, other in pairs if room in graph[other]]


# --- drawing -------------------------------------------------------------------------------------------------------


def picture(sources: Mapping[str, str]) -> str:
    """The map as an SVG file."""
    graph = rooms(sources)
    parts: list[str] = []
    top = 8.0
    for package in PACKAGES:
        inner = {
            room: {other for other in graph[room] if other.startswith(f"{package}.")}
            for room in graph
            if room.startswith(f"{package}.") and room not in ("dsr.__main__",)
        }
        drawn, high = _package(package, inner, graph, top)
        parts += drawn
        top += high + 26
    style = "text{font-family:system-ui,sans-serif;fill:#111827}"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {_ACROSS} {top:.0f}" font-size="13">',
        "<title>The rooms of dsr, by their imports</title>",
        f"<style>{style}</style>",
        f'<rect width="{_ACROSS}" height="{top:.0f}" fill="#ffffff"/>',
        *parts,
        "</svg>\n",
    ])  # fmt: skip


def _package(package: str, inner: Graph, graph: Graph, top: float) -> tuple[list[str], float]:
    """A package's frame with its rooms and arrows, and its height."""
    fill, ink = _COLOURS[package]
    boxes = {box.room: box for box in _placed(inner, top)}
    rows = len({box.y for box in boxes.values()})
    high = _HEAD - 22 + rows * _ROW - (_ROW - _HIGH) + 22 if boxes else _HEAD - 20.0
    used = sorted({room_of(other).split(".")[0] for room in graph if room.split(".")[0] == package
                   for other in graph[room]} - {package}, key=list(PACKAGES).index)  # fmt: skip
    uses = f"; imports {', '.join(used)}" if used else ""
    parts = [
        f'<rect x="4" y="{top:.0f}" width="{_ACROSS - 8}" height="{high:.0f}" rx="10" fill="{fill}" '
        f'fill-opacity="0.45" stroke="{ink}"/>',
        f'<text x="18" y="{top + 24:.0f}" font-size="16" font-weight="700">{package}/</text>',
        f'<text x="106" y="{top + 24:.0f}">{escape(PACKAGES[package])}{uses}</text>',
    ]
    for start, end in arrows(inner):
        parts.append(_arrow(boxes[start], boxes[end], ink))
    for box in boxes.values():
        parts += [
            f'<rect x="{box.x:.0f}" y="{box.y:.0f}" width="{_WIDE}" height="{_HIGH}" rx="6" fill="#ffffff" '
            f'stroke="{ink}"/>',
            f'<text x="{box.middle:.0f}" y="{box.y + 20:.0f}" text-anchor="middle" font-weight="600">'
            f"{box.room.partition('.')[2]}</text>",
        ]
    return parts, high


def _placed(inner: Graph, top: float) -> Iterator[Box]:
    """The rooms of a package in rows, each above those that it imports, near them where there is room."""
    row_of = levels(inner)
    highest = max(row_of.values(), default=-1)
    centre: dict[str, float] = {}
    found = []
    for level in range(highest + 1):
        row = [room for room in sorted(inner) if row_of[room] == level]
        row.sort(key=lambda room: (_mean([centre[other] for other in inner[room] if other in centre]), room))
        step = (_ACROSS - 40) / len(row)
        for number, room in enumerate(row):
            centre[room] = 20 + step * (number + 0.5)
            y = top + _HEAD - 22 + (highest - level) * _ROW
            found.append(Box(room, centre[room] - _WIDE / 2, y))
    yield from found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else _ACROSS / 2


def _arrow(start: Box, end: Box, ink: str) -> str:
    """From the lower edge of the importing room to the upper edge of the other; in a row, an arc below both."""
    if start.y == end.y:
        one, other = start.middle, end.middle
        y = start.y + _HIGH
        path = f"M{one:.0f} {y:.0f} Q{(one + other) / 2:.0f} {y + 26:.0f} {other:.0f} {y + 2:.0f}"
        slope = other - (one + other) / 2, -24.0
        tip = other, y + 2
    else:
        one, other, y, to = start.middle, end.middle, start.y + _HIGH, end.y - 2
        bend = max(28.0, (to - y) / 2)
        aside = _WIDE * 0.9 if end.y - start.y > _ROW and abs(other - one) < _WIDE else 0.0  # around a box between
        path = (
            f"M{one:.0f} {y:.0f} C{one + aside:.0f} {y + bend:.0f} {other + aside:.0f} {to - bend:.0f} "
            f"{other:.0f} {to:.0f}"
        )
        slope, tip = (0.0, 1.0), (other, to)
    length = max((slope[0] ** 2 + slope[1] ** 2) ** 0.5, 1e-6)
    across, down = slope[0] / length, slope[1] / length
    corners = [tip, (tip[0] - 7 * across - 4 * down, tip[1] - 7 * down + 4 * across),
               (tip[0] - 7 * across + 4 * down, tip[1] - 7 * down - 4 * across)]  # fmt: skip
    points = " ".join(f"{x:.0f},{y:.0f}" for x, y in corners)
    return (
        f'<path d="{path}" fill="none" stroke="{ink}" stroke-opacity="0.55" stroke-width="1.3"/>'
        f'<polygon points="{points}" fill="{ink}" fill-opacity="0.75"/>'
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(our_sources()), encoding="utf-8")
    sys.stdout.writelines(f"import each other: {one} and {other}\n" for one, other in circles(rooms(our_sources())))
