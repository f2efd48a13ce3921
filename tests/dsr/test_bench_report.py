"""`dsr bench report`: from rows to a page that a browser shows."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from dsr import paths
from dsr.cli import app
from dsr.measurements import Measurements
from dsr.predictions import Figures, Run
from dsr.records import Conditions, Figure, Row
from dsr.services.bench.report.charts import charts
from dsr.services.bench.report.drawing import Chart, svg
from dsr.services.bench.report.gathering import gather, share_interval, short_name
from dsr.services.bench.report.labels import Box, Label, placed
from dsr.services.bench.report.markdown import markdown
from dsr.services.bench.report.page import html, picture
from dsr.services.bench.report.scales import Scale, fitting, written
from dsr.services.bench.report.sheet import sheet
from dsr.services.bench.report.table import columns
from runtime.errors import NotFound

HERE = Conditions("a processor", 2, 8 << 30, "0.1", "0.3.36", load=0.02)
BUSY = replace(HERE, load=0.4, disturbed="other work took 40% of the processor")
DAY = 1_790_000_000.0  # 2026-09-21
HOSTILE = "</title><script>alert('x')</script>&\"|`[a](http://evil)\x1b[2J\u202e.gguf"


def row(kind: Any, test: str, figures: dict[str, Figure], model: str = "nano", **parameters: Any) -> Row:
    size = {"nano": 8 << 20, "q4.gguf": 4 << 20, "q2.gguf": 2 << 20}.get(model, 1 << 20)
    return Row(kind, model, f"digest of {model}", size, test, parameters, figures, HERE, DAY)


def quality(model: str, kld: float) -> Row:
    figures = {
        "kld_mean": Figure(kld, kld / 10, 1000),
        "ppl": Figure(12.3456, 0.1234, 1000),
        "top1_agreement": Figure(0.98765, 0.001, 1000),
        "bpw": Figure(4.876),
    }
    return row("quality", "20 x 512 of builtin", figures, model, against="/home/me/f16.gguf", text="builtin", chunks=20)


def votes(model: str, count: int, speed: float) -> Row:
    return row("speed", f"votes {count}", {"tokens_per_second": Figure(speed, 1.0, 5)}, model, votes=count)


ROWS = (
    quality("q4.gguf", 0.03),
    quality("q2.gguf", 0.3),
    row("speed", "pp512", {"tokens_per_second": Figure(2401.3, 10.2, 5)}, votes=1, threads=2),
    replace(row("speed", "tg128", {"tokens_per_second": Figure(52.66, 1.04, 5)}, votes=1, threads=2), conditions=BUSY),
    row("speed", "memory", {"bytes": Figure(90 << 20), "predicted_bytes": Figure(88 << 20)}),
    *(votes("nano", count, 50.0 * count) for count in (1, 2, 4, 8)),
    row("reason", "direct", {"accuracy": Figure(0.5, 0.05, 100), "tokens": Figure(60.0)}, suite="nano", problems=100),
    row("reason", "greedy", {"accuracy": Figure(0.9, 0.03, 100), "tokens": Figure(57.0)}, suite="nano", problems=100),
    row("reason", "pass@8 (oracle)", {"accuracy": Figure(1.0, 0.0, 100), "tokens": Figure(460.0)}, suite="nano"),
    row("experts", "own 4 of 16", {"accuracy": Figure(0.75, 0.04, 100)}, suite="nano"),
    row("experts", "own 8 of 16", {"accuracy": Figure(0.85, 0.04, 100)}, suite="nano"),
)
RUN = Run(DAY, "nano", 2048, 8, "f16", Figures(100.0, 95 << 20), Figures(90.0, 100 << 20), 100.0, 2, "p")


def chart(rows: Sequence[Row], name: str, runs: Sequence[Run] = ()) -> Chart:
    [found] = [each for each in charts(gather(rows, runs)) if each.name == name]
    return found


# What is gathered.


def test_files_come_largest_first_with_their_rows() -> None:
    files = gather(ROWS, ()).files
    assert [(file.name, len(file.rows)) for file in files] == [("nano", 12), ("q4", 1), ("q2", 1)]


def test_a_model_is_found_by_reference_file_name_and_digest() -> None:
    for named in ("nano", "q4.gguf", "q4", "/elsewhere/q4.gguf", "digest of q4"):
        [file] = gather(ROWS, (), [named]).files
        assert file.name == ("nano" if named == "nano" else "q4")


def test_what_was_not_measured_is_told_with_what_was() -> None:
    with pytest.raises(NotFound, match=r"nothing was measured of qwq; there is nano, q2\.gguf, q4\.gguf") as caught:
        gather(ROWS, (), ["nano", "qwq"])
    assert caught.value.hint == "dsr bench all qwq"


def test_two_files_of_one_name_are_told_apart() -> None:
    other = replace(ROWS[0], model="/other/q4.gguf", digest="abcdef123")
    assert [file.name for file in gather([ROWS[0], other], ()).files] == ["q4 (abcdef)", "q4 (digest)"]


def test_runs_of_other_models_are_left_out_only_when_models_are_named() -> None:
    runs = [RUN, replace(RUN, model="other")]
    assert gather(ROWS, runs).runs == tuple(runs)
    assert gather(ROWS, runs, ["nano"]).runs == (RUN,)


@pytest.mark.parametrize(
    ("model", "name"),
    [("nano", "nano"), ("/a/b/x-Q4_K_M.GGUF", "x-Q4_K_M"), ("C:\\m\\x.gguf", "x"), ("org/repo:q4", "org/repo:q4")],
)
def test_short_names(model: str, name: str) -> None:
    assert short_name(model) == name


def test_the_interval_of_a_share_is_wilsons() -> None:
    # Wilson for 9 of 10: 0.5958 to 0.9821.
    low, high = share_interval(Figure(0.9, None, 10))
    assert (round(low, 4), round(high, 4)) == (0.5958, 0.9821)
    # Rows keep half of the interval over 1.96; so it comes back as it was, whatever the count says.
    kept = Figure(0.9, (0.9821 - 0.5958) / 2 / 1.96, 99)
    assert share_interval(kept) == pytest.approx((0.5958, 0.9821), abs=1e-4)


# The table.


def test_a_row_for_each_file() -> None:
    found = {
        column.title: (column.about, *(cell.marked for cell in column.cells))
        for column in columns(gather(ROWS, ()).files)
    }
    assert found == {
        "file": ("", "nano", "q4", "q2"),
        "size": ("", "8.00 MiB", "4.00 MiB", "2.00 MiB"),
        "bits per weight": ("", "–", "4.88", "4.88"),
        "KLD": ("against f16, on builtin", "–", "0.0300 ± 0.0030", "0.3000 ± 0.0300"),
        "same top token": ("", "–", "98.77 %", "98.77 %"),
        "perplexity": ("", "–", "12.35 ± 0.12", "12.35 ± 0.12"),
        "right": ("greedy, nano", "90.0 % (83 to 94) of 100", "–", "–"),
        "prompt tokens/s": ("pp512", "2401 ± 10", "–", "–"),
        "tokens/s": ("tg128", "52.7 ± 1.0 †", "–", "–"),
        "memory": ("", "90.0 MiB", "–", "–"),
    }


def test_cells_that_cannot_be_compared_say_why() -> None:
    other = replace(quality("q2.gguf", 0.2), parameters={"against": "bf16.gguf", "text": "wiki.txt"})
    [divergence] = [each for each in columns(gather([ROWS[0], other], ()).files) if each.title == "KLD"]
    assert divergence.about == ""
    assert [cell.about for cell in divergence.cells] == ["against f16, on builtin", "against bf16, on wiki.txt"]


# The charts.


def test_size_against_divergence_leaves_the_reference_itself_out() -> None:
    found = chart([*ROWS, quality("nano", 3e-8)], "loss")
    assert [(mark.label, mark.across, mark.up) for mark in found.marks] == [("q2", 2.0, 0.3), ("q4", 4.0, 0.03)]
    assert found.up.logarithmic and not found.across.logarithmic


def test_quantizations_are_named() -> None:
    [mark] = chart([quality("/m/nano-q4_k_m.gguf", 0.1)], "loss").marks
    assert mark.label == "Q4_K_M"


def test_a_file_that_was_measured_again_is_one_mark() -> None:
    again = replace(quality("q4.gguf", 0.04), test="40 x 512 of builtin")
    assert [mark.up for mark in chart([quality("q4.gguf", 0.03), again], "loss").marks] == [0.04]


def test_strategies_that_a_user_can_have_are_named_first() -> None:
    found = chart(ROWS, "strategies")
    assert [(mark.label, mark.up, mark.hollow) for mark in found.marks] == [
        ("greedy", 90.0, False),
        ("direct", 50.0, False),
        ("pass@8", 100.0, True),
    ]


def test_speed_by_votes_takes_no_other_speeds() -> None:
    found = chart(ROWS, "votes")
    assert [(mark.across, mark.up, mark.series) for mark in found.marks] == [
        (1, 50.0, "nano"),
        (2, 100.0, "nano"),
        (4, 200.0, "nano"),
        (8, 400.0, "nano"),
    ]
    assert found.across.ticks == (1, 2, 4, 8)


def test_memory_of_benches_and_of_runs() -> None:
    found = chart(ROWS, "memory", [RUN, RUN])
    assert [(mark.across, mark.up) for mark in found.marks] == [(88.0, 90.0), (95.0, 100.0)]
    assert found.marks[1].tip == "nano: 95.0 MiB predicted, 100.0 MiB measured (-5%)"


def pruned(task: str, kind: str, kept: int, right: float) -> Row:
    told = {"task": task, "profile": kind, "kept": kept, "experts": 16, "score": "easy-ep"}
    return row("experts", f"{task}: {kind} {kept} of 16, easy-ep", {"accuracy": Figure(right, 0.1, 10)}, **told)


def test_accuracy_by_experts_is_the_mean_of_tasks() -> None:
    rows = [pruned("a", "own", 4, 0.5), pruned("b", "own", 4, 1.0), pruned("a", "other", 4, 0.1)]
    rows += [pruned("a", "own", 9, 0.9), pruned("b", "other", 4, 0.3)]
    # Only one task keeps 9, so that is no mean over tasks.
    found = chart(rows, "experts").marks
    assert [(mark.across, mark.up, mark.series) for mark in found] == [(4.0, 20.0, "other"), (4.0, 75.0, "own")]


def test_every_line_of_experts_ends_at_all_of_them() -> None:
    rows = [pruned("a", "own", 4, 0.5), pruned("a", "random", 4, 0.25), pruned("a", "own", 16, 1.0)]
    found = chart(rows, "experts").marks
    assert [(mark.series, mark.across, mark.up) for mark in found] == [
        ("own", 4.0, 50.0),
        ("own", 16.0, 100.0),
        ("random", 4.0, 25.0),
        ("random", 16.0, 100.0),
    ]


def test_a_file_has_one_colour_in_all_charts() -> None:
    rows = [votes("q4.gguf", 1, 9.0), votes("nano", 1, 5.0), votes("q2.gguf", 1, 7.0)]
    assert chart(rows, "votes").series == ("nano", "q4", "q2")


def test_a_chart_without_data_says_which_command_makes_it() -> None:
    page = html(sheet([ROWS[0]], ()))
    assert page.count("<svg") == 1
    for command in ("speed q4.gguf", "reason q4.gguf", "experts q4.gguf"):
        assert f"<pre><code>dsr bench {command}</code></pre>" in page


# Drawing.


def test_ticks_are_round() -> None:
    assert Scale(0, 13, 0, 100, False).ticks(7) == (0, 2, 4, 6, 8, 10, 12)
    assert Scale(0.0002, 0.4, 0, 100, True).ticks(7) == pytest.approx((0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3))
    assert Scale(1e-9, 1, 0, 100, True).ticks(4) == pytest.approx((1e-9, 1e-6, 1e-3, 1))
    assert Scale(41, 44, 0, 100, True).ticks(4) == (41, 42, 43, 44)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.05, "0.05"),
        (1500, "1\u202f500"),
        (3e-6, "3·10⁻⁶"),
        (1e-6, "10⁻⁶"),
        (12.0, "12"),
        (0.0001, "0.0001"),
    ],
)
def test_ticks_are_written_shortly(value: float, text: str) -> None:
    assert written(value) == text


def test_a_scale_turns_downwards() -> None:
    scale = Scale(1, 100, 300, 0, True)
    assert [scale.at(value) for value in (1, 10, 100)] == [300, 150, 0]


@given(
    st.lists(st.floats(1e-9, 1e18), min_size=1, max_size=5),
    st.booleans(),
    st.booleans(),
)
def test_every_value_has_its_place(values: list[float], logarithmic: bool, zero: bool) -> None:
    scale = fitting(values, 0, 100, logarithmic=logarithmic, zero=zero)
    assert all(-1e-6 <= scale.at(value) <= 100 + 1e-6 for value in values)
    assert len(scale.ticks(7)) <= 12


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


# The page.

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Structure(HTMLParser):
    """What a page is made of; `wrong` tells of tags that do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.children: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        self.wrong += [f"{tag} is not closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._begin(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._begin(tag, attrs)

    def _begin(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.children += [(self.open[-1], tag)] if self.open else []
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}>")

    def values(self, name: str) -> list[str]:
        return [value for _, each, value in self.attributes if each == name]


def check(page: str, drawn: int) -> None:
    found = Structure(page)
    assert found.wrong == []
    assert "script" not in found.tags
    assert not {"src", "href", "style"} & {name for _, name, _ in found.attributes}
    assert not [name for _, name, _ in found.attributes if name.startswith("on")]
    addresses = {value for _, _, value in found.attributes if "http" in value}
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert found.tags.count("svg") == drawn
    assert found.children.count(("svg", "title")) == found.children.count(("svg", "desc")) == drawn
    ids = found.values("id")
    assert len(set(ids)) == len(ids) == 2 * drawn
    assert [each for both in found.values("aria-labelledby") for each in both.split()] == ids
    assert "\x1b" not in page and "\u202e" not in page


def test_the_page_is_whole_and_stands_alone() -> None:
    check(html(sheet(ROWS, [RUN])), drawn=5)


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
    made = sheet(hostile, [replace(RUN, model=HOSTILE)])
    page = html(made)
    check(page, drawn=5)
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page
    text = markdown(made, {each.name: f"{each.name}.svg" for each in made.charts})
    prose = [line for line in text.splitlines() if not line.startswith("    ")]
    assert not [line for line in prose if "<script" in line.replace("\\<", "")]
    table = [line.replace("\\|", "") for line in prose if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1


def test_the_same_rows_give_the_same_page() -> None:
    first, second = (html(sheet(ROWS, [RUN])) for _ in range(2))
    assert first == second
    assert "14 measurements of 3 files, 2026-09-21." in first


def test_the_page_tells_what_disturbed_and_where_it_was_measured() -> None:
    made = sheet(ROWS, [RUN])
    assert made.disturbed == ("nano, 1 of 7 measurements of speed: other work took 40% of the processor (tg128)",)
    assert made.machine[0] == "a processor, 2 cores, 8.00 GiB of memory; dsr 0.1, llama-cpp-python 0.3.36"
    assert made.warnings == ()
    elsewhere = replace(ROWS[0], conditions=replace(HERE, processor="another", engine="0.4"))
    assert sheet([elsewhere, *ROWS[1:]], ()).warnings == (
        "Measured on 2 machines: speeds are not to be compared.",
        "Measured with engines 0.3.36 and 0.4: speeds are not to be compared.",
    )


def test_the_page_tells_how_to_repeat_it() -> None:
    made = sheet([*ROWS, replace(quality("it's.gguf", 0.1), at=DAY + 1)], ())
    assert made.commands == (
        "dsr bench speed nano",
        "dsr bench quality q4.gguf q2.gguf 'it'\"'\"'s.gguf' --against /home/me/f16.gguf --chunks 20",
        "dsr bench reason nano --limit 100",
        "dsr bench reason nano",
        "dsr bench experts nano",
        "dsr bench report --open",
    )
    assert dict(made.methods)["speed"] == "threads 2"


def test_a_picture_is_a_file_of_its_own() -> None:
    import xml.etree.ElementTree as xml

    root = xml.fromstring(picture(chart(ROWS, "votes")))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme: dark" in (root.findtext("{http://www.w3.org/2000/svg}style") or "")


NAMES = st.text(max_size=40)
NUMBERS = st.one_of(st.floats(), st.floats(0, 1), st.sampled_from((0.0, 1e-7, 0.5, 100.0, 1e9)))
FIGURES = st.builds(Figure, NUMBERS, st.one_of(st.none(), NUMBERS), st.integers(0, 10**6))
FIGURE_NAMES = st.sampled_from(
    ("kld_mean", "ppl", "top1_agreement", "bpw", "accuracy", "tokens", "tokens_per_second", "bytes", "predicted_bytes")
)
ANY_ROWS = st.builds(
    Row,
    kind=st.sampled_from(("speed", "quality", "reason", "experts")),
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
def test_whatever_was_kept_makes_a_page(rows: list[Row]) -> None:
    made = sheet(rows, ())
    drawn = [each for each in made.charts if each.marks]
    check(html(made), drawn=len(drawn))
    assert not [each.name for each in drawn if "nan" in svg(each).split("<title")[0]]
    assert markdown(made, {each.name: "x.svg" for each in drawn}).endswith("\n")


def browser() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(browser() is None, reason="no chromium is installed")
def test_a_browser_finds_no_fault(tmp_path: Path) -> None:
    def shown(page: str) -> tuple[str, list[str]]:
        """The document as the browser understood it, and what it wrote to its console."""
        file = tmp_path / "page.html"
        file.write_text(page, encoding="utf-8")
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        arguments += ["--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", file.as_uri()]
        ran = subprocess.run([browser() or "", *arguments], capture_output=True, timeout=100, check=True)
        lines = ran.stderr.decode("utf-8", "replace").splitlines()
        return ran.stdout.decode(), [line for line in lines if "CONSOLE" in line]

    page = html(sheet([*ROWS, replace(ROWS[0], model=HOSTILE, digest="h")], [RUN]))
    document, said = shown(page)
    assert said == []
    assert document.count("</svg>") == 5
    # The page allows no script, so one in it is a fault: here it is seen that faults are found.
    _, said = shown(page.replace("</main>", "<script>document.title = 'x'</script></main>"))
    assert said != []


# The command.

RUNNER = CliRunner()


def keep(rows: Sequence[Row]) -> None:
    with Measurements(paths.measurements_file()) as store:
        store.add(rows)


def test_without_measurements_there_is_a_next_step(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["bench", "report", "--out", str(tmp_path / "page.html")])
    assert result.exit_code == 3
    assert result.stderr == "error: nothing has been measured yet\nhint: dsr bench all nano\n"
    assert not (tmp_path / "page.html").exists()


def test_the_page_goes_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keep(ROWS)
    result = RUNNER.invoke(app, ["bench", "report"])
    assert result.stdout == "dsr-report.html\n"
    check((tmp_path / "dsr-report.html").read_text(encoding="utf-8"), drawn=5)


def test_the_newest_rows_count(tmp_path: Path) -> None:
    keep([ROWS[0]])
    keep([quality("q4.gguf", 0.05)])
    text = tmp_path / "made" / "r.md"
    result = RUNNER.invoke(app, ["bench", "report", "q4.gguf", "--markdown", str(text), "-q"])
    assert result.stdout.splitlines() == [str(text.with_name("r-loss.svg")), str(text)]
    assert "![What a smaller file loses](<r-loss.svg>)" in text.read_text(encoding="utf-8")
    assert "KLD 0.05000 ± 0.00500" in text.read_text(encoding="utf-8")


def test_the_report_as_one_object(tmp_path: Path) -> None:
    keep(ROWS)
    result = RUNNER.invoke(app, ["bench", "report", "nano", "--out", str(tmp_path / "p.html"), "--json"])
    found = json.loads(result.stdout)
    assert found["schema"] == "dsr.bench.report/1"
    assert found["files"] == [str(tmp_path / "p.html")]
    assert [each["name"] for each in found["charts"]] == ["loss", "strategies", "votes", "memory", "experts"]
    assert found["charts"][2]["points"][3]["up"] == 400.0


def test_the_page_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address))
    keep(ROWS)
    result = RUNNER.invoke(app, ["bench", "report", "--out", str(tmp_path / "p.html"), "--open"])
    assert opened == [(tmp_path / "p.html").as_uri()]
    assert "no browser was found" in result.stderr


def test_one_file_cannot_be_both(tmp_path: Path) -> None:
    keep(ROWS)
    same = str(tmp_path / "x")
    result = RUNNER.invoke(app, ["bench", "report", "--out", same, "--markdown", same])
    assert result.exit_code == 2
    assert "cannot be the page and its Markdown" in result.stderr
