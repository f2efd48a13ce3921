"""A chart as SVG; how the charts of a report are drawn is tested with the report."""

from __future__ import annotations

import xml.etree.ElementTree as xml

from dsr.ui.charts.chart import Axis, Chart, Mark, best_first
from dsr.ui.charts.chart_svg import plot_file

SVG = "{http://www.w3.org/2000/svg}"


def mark(label: str, across: float, up: float, series: str = "", hollow: bool = False) -> Mark:
    return Mark(label, f"the mark {label}", (f"{up:.0f} %",), across, up, up - 5, up + 5, series, hollow)


def chart(*marks: Mark, joined: bool = False) -> Chart:
    return Chart("test", "a & b", Axis("tokens"), Axis("percent"), marks, lead="How to read it.", joined=joined)


def texts(content: str) -> list[str]:
    return [each.text or "" for each in xml.fromstring(content).iter(f"{SVG}text")]


def test_a_plot_has_its_title_its_lead_and_a_label_for_each_mark() -> None:
    content = plot_file(chart(mark("direct", 10, 80), mark("vote", 50, 90)))
    assert content.startswith("<svg ") and content.endswith("</svg>\n")
    found = texts(content)
    assert found[:2] == ["a & b", "How to read it."]
    assert {"direct", "vote", "tokens", "percent"} <= set(found)


def test_marks_without_room_for_a_label_are_listed_below() -> None:
    found = texts(plot_file(chart(*(mark(f"{number} {'long' * 9}", 10, 80) for number in range(12)))))
    listed = " ".join(found[found.index("tokens") :])
    assert "Without a label: the mark" in listed
    labelled = [text for text in found if text.endswith("longlong")]
    assert 0 < len(labelled) < 12
    assert listed.count("the mark") == 12 - len(labelled)


def test_marks_of_a_series_are_joined_and_the_series_are_in_a_legend() -> None:
    content = plot_file(chart(mark("a", 4, 85, "own"), mark("b", 8, 90, "own"), mark("c", 4, 50, "other"), joined=True))
    assert content.count("<polyline") == 2
    assert texts(content)[2:4] == ["own", "other"]


def test_a_plot_of_nothing_says_so() -> None:
    assert texts(plot_file(chart())) == ["a & b", "Nothing was measured."]


def test_the_best_marks_get_their_labels_first() -> None:
    marks = mark("worse", 20, 70), mark("oracle", 5, 99, hollow=True), mark("first", 10, 80), mark("more", 30, 90)
    assert [each.label for each in best_first(chart(*marks), up=1).marks] == ["first", "more", "oracle", "worse"]
