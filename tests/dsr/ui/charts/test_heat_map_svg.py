"""Heat maps as one SVG file."""

from __future__ import annotations

import xml.etree.ElementTree as xml

from dsr.ui.charts.heat_map import HeatMap
from dsr.ui.charts.heat_map_svg import heat_maps_file

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*maps: HeatMap) -> xml.Element:
    return xml.fromstring(heat_maps_file(maps, title="the title", note="the note", columns="expert"))


def texts(root: xml.Element) -> list[str]:
    return [each.text or "" for each in root.iter(f"{SVG}text")]


def test_cells_are_paths_of_their_level() -> None:
    root = drawn(HeatMap("task", (("layer 1", (0.0, 1.0, 1.5, 16.0)), ("layer 2", (0.1, 0.0, 0.0, 1.0)))))
    assert {each.get("class"): each.get("d") for each in root.iter(f"{SVG}path")} == {
        "level-0": "M0 1h1v1h-1z",
        "level-4": "M1 0h2v1h-2zM3 1h1v1h-1z",
        "level-8": "M3 0h1v1h-1z",
    }


def test_titles_rows_columns_and_levels_are_named() -> None:
    found = texts(drawn(HeatMap("task", (("layer 1", (0.0, 1.0, 2.0)),))))
    assert found[:2] == ["the title", "the note"]
    assert found[2:12] == ["less", "1/8", "1/4", "1/2", "1", "2", "4", "8", "16", "never"]
    assert found[12:] == ["task", "layer 1", "0", "1", "2", "expert"]


def test_two_maps_are_side_by_side_and_the_third_is_below() -> None:
    rows = tuple((f"layer {number}", (0.0, 1.0, 4.0)) for number in range(30))
    root = drawn(*(HeatMap(name, rows) for name in "abc"))
    a, b, c = (each.get("transform", "").split()[0] for each in root.iter(f"{SVG}g"))
    place = [[float(number) for number in each.removeprefix("translate(").split()] for each in (a, b, c)]
    assert (a.split("(")[1], len(place)) == (c.split("(")[1], 3)
    assert "translate(" in b and b != a


def test_rows_of_many_layers_are_not_all_named() -> None:
    rows = tuple((f"layer {number}", (1.0,) * 256) for number in range(61))
    found = texts(drawn(HeatMap("task", rows)))
    assert [each for each in found if each.startswith("layer")] == [f"layer {number}" for number in range(0, 61, 2)]


def test_a_name_from_a_file_is_text() -> None:
    assert "<&>" in texts(drawn(HeatMap("<&>\x1b", (("layer 1", (1.0,)),))))
