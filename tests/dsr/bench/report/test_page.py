"""A report as HTML and Markdown: whole, alone, and safe from what names hold."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsr.bench.report.markdown import markdown
from dsr.bench.report.page import html
from dsr.bench.report.report import build_report
from dsr.store.measurement import Conditions, Figure, Kind, Measurement
from dsr.ui.charts.chart_svg import chart_file, chart_svg
from dsr.ui.charts.layout import PHONE, WIDE
from tests.dsr.bench.report.pages import check
from tests.dsr.bench.report.rows import DAY, HERE, HOSTILE, ROWS, RUN, chart, many, quality


def test_the_page_is_whole_and_stands_alone() -> None:
    check(html(build_report(ROWS, [RUN])), drawn=5)
    check(html(build_report(many(), [RUN])), drawn=5)


def test_the_check_of_a_page_can_fail() -> None:
    for broken in ("<p><b></p>", "<p>", "<script></script>", '<img src="http://x">', "<svg></svg>"):
        with pytest.raises(AssertionError):
            check(broken, drawn=0)


def test_a_hostile_name_is_text() -> None:
    hostile = [
        replace(
            each,
            model=HOSTILE,
            digest=HOSTILE,
            test=f"{each.test} {HOSTILE}",
            parameters={**each.parameters, HOSTILE: HOSTILE},
            conditions=replace(HERE, processor=HOSTILE, disturbed=HOSTILE),
        )
        for each in ROWS
    ]
    made = build_report(hostile, [replace(RUN, model=HOSTILE)])
    page = html(made)
    check(page, drawn=5)
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page
    text = markdown(made, {each.name: f"{each.name}.svg" for each in made.charts})
    prose = [line for line in text.splitlines() if not line.startswith("    ")]
    assert not [line for line in prose if "<script" in re.sub(r"`[^`]*`|\\<", "", line)]
    for block in text.split("\n\n"):
        table = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in table}) <= 1


def test_the_same_rows_give_the_same_page() -> None:
    first, second = (html(build_report(ROWS, [RUN])) for _ in range(2))
    assert first == second
    assert "14 measurements of 3 files, 2026-09-21." in first


def test_the_page_tells_what_disturbed_and_where_it_was_measured() -> None:
    made = build_report(ROWS, [RUN])
    assert made.disturbed == ("nano, 1 of 7 measurements of speed: other work took 40% of the processor (tg128)",)
    assert made.machine[0] == "a processor, 2 cores, 8.00 GiB of memory; dsr 0.1, llama-cpp-python 0.3.36"
    assert made.warnings == ()
    elsewhere = replace(ROWS[0], conditions=replace(HERE, processor="another", engine="0.4"))
    assert build_report([elsewhere, *ROWS[1:]], ()).warnings == (
        "Measured on 2 machines: do not compare their speeds.",
        "Measured with engines 0.3.36 and 0.4: do not compare their speeds.",
    )


def test_the_page_tells_how_to_repeat_it() -> None:
    made = build_report([*ROWS, replace(quality("it's.gguf", 0.1), at=DAY + 1)], ())
    assert made.commands == (
        "dsr bench speed nano",
        "dsr bench quality q4.gguf q2.gguf 'it'\"'\"'s.gguf' --against /home/me/f16.gguf --chunks 20",
        "dsr bench reason nano --limit 100",
        "dsr bench reason nano",
        "dsr bench experts nano",
        "dsr bench report --open",
    )
    assert dict(made.methods)["speed"] == "threads 2"


def test_what_one_command_measured_is_repeated_by_it() -> None:
    whole = [replace(row, command="dsr bench all nano --recipes q4_0") for row in ROWS]
    made = build_report([*whole, quality("other.gguf", 0.1)], ())
    assert made.commands[0] == "dsr bench all nano --recipes q4_0"
    assert len(made.commands) == 3 and made.commands[1].startswith("dsr bench quality other.gguf --against ")


def test_a_picture_is_a_file_of_its_own() -> None:
    import xml.etree.ElementTree as xml

    root = xml.fromstring(chart_file(chart(ROWS, "votes")))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme: dark" in (root.findtext("{http://www.w3.org/2000/svg}style") or "")


NAMES = st.text(max_size=40)
NUMBERS = st.one_of(st.floats(), st.floats(0, 1), st.sampled_from((0.0, 1e-7, 0.5, 100.0, 1e9)))
FIGURES = st.builds(Figure, NUMBERS, st.one_of(st.none(), NUMBERS), st.integers(0, 10**6))
FIGURE_NAMES = st.sampled_from(
    ("kld_mean", "ppl", "top1_agreement", "bpw", "accuracy", "tokens", "tokens_per_second", "bytes", "predicted_bytes")
)
ANY_ROWS = st.builds(
    Measurement,
    kind=st.sampled_from(get_args(Kind)),
    model=NAMES,
    digest=st.one_of(NAMES, st.sampled_from("abc")),
    size=st.integers(0, 1 << 50),
    test=st.one_of(NAMES, st.sampled_from(("pp512", "tg128", "votes 2", "greedy", "own 8 of 16", "memory"))),
    parameters=st.dictionaries(
        st.sampled_from(("votes", "kept", "profile", "suite", "against", "text", "chunks", "text_digest")),
        st.one_of(NAMES, st.integers(), st.floats(), st.booleans(), st.none()),
    ),
    figures=st.dictionaries(FIGURE_NAMES, FIGURES),
    conditions=st.builds(
        Conditions, NAMES, st.integers(0, 512), st.integers(0, 1 << 50), NAMES, NAMES, st.floats(), NAMES
    ),
    at=st.floats(),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ANY_ROWS, min_size=1, max_size=8))
def test_whatever_was_kept_makes_a_page(rows: list[Measurement]) -> None:
    made = build_report(rows, ())
    drawn = [each for each in made.charts if each.marks]
    check(html(made), drawn=len(drawn))
    for each in drawn:
        for screen in (PHONE, WIDE):
            assert "nan" not in chart_svg(each, screen).split("<title")[0]
    assert markdown(made, {each.name: "x.svg" for each in drawn}).endswith("\n")
