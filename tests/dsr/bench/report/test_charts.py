"""The charts of a report: which rows are points of which picture."""

from __future__ import annotations

from dataclasses import replace

from dsr.bench.report.page import html
from dsr.bench.report.report import build_report
from dsr.store.measurement import Figure, Measurement
from dsr.ui.charts.chart_svg import chart_svg
from dsr.ui.charts.layout import WIDE
from tests.dsr.bench.report.rows import BUSY, ROWS, RUN, chart, many, quality, recipe, row, votes


def test_size_against_divergence_leaves_the_reference_itself_out() -> None:
    found = chart([*ROWS, quality("nano", 3e-8)], "loss")
    assert [(mark.label, mark.across, mark.up) for mark in found.marks] == [("q2", 2.0, 0.3), ("q4", 4.0, 0.03)]
    assert found.up.logarithmic and not found.across.logarithmic


def test_quantizations_are_named() -> None:
    found = chart([quality(f"/m/nano-{quant}.gguf", 0.1) for quant in ("q4_k_m", "moe-q4")], "loss")
    assert {mark.label for mark in found.marks} == {"Q4_K_M", "moe-q4"}
    assert found.series == ("nano",)


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
    assert found.marks[1].tip == "nano: 95.0 MiB predicted, 100.0 MiB measured, \N{MINUS SIGN}5%"


def pruned(task: str, kind: str, kept: int, right: float) -> Measurement:
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


def test_numbers_of_experts_that_each_task_has_for_itself_are_one_point() -> None:
    rows = [
        pruned("a", "own", 4, 0.5),
        pruned("b", "own", 12, 1.0),
        pruned("a", "own", 16, 1.0),
        pruned("b", "own", 16, 1.0),
    ]
    found = chart(rows, "experts").marks
    assert [(mark.name, mark.across, mark.up) for mark in found] == [
        ("own, a number for each task", 8.0, 75.0),
        ("all", 16.0, 100.0),
    ]


def test_an_automatic_number_that_others_were_asked_for_is_a_point_too() -> None:
    def auto(task: str, kept: int, right: float) -> Measurement:
        made = pruned(task, "own", kept, right)
        return replace(made, test=f"{task}: own auto {kept} of 16", parameters={**made.parameters, "keep": "auto"})

    rows = [pruned(task, "own", 4, 0.5) for task in "ab"] + [pruned(task, "own", 16, 1.0) for task in "ab"]
    found = chart([*rows, auto("a", 4, 0.5), auto("b", 16, 1.0)], "experts").marks
    assert [(mark.name, mark.across, mark.up) for mark in found] == [
        ("own", 4.0, 50.0),
        ("own, a number for each task", 10.0, 75.0),
        ("all", 16.0, 100.0),
    ]


def test_of_experts_measured_again_the_latest_count() -> None:
    before = pruned("a", "own", 4, 0.5)
    before = replace(before, parameters={**before.parameters, "problems": 9})
    [mark] = chart([before, pruned("a", "own", 4, 1.0)], "experts").marks
    assert mark.up == 100.0


# Against size.


FAMILY = tuple(
    each for place, quant in enumerate(("f16", "q8_0", "q4_k_m")) for each in recipe("x", quant, 8 - place, place)
)


def test_accuracy_of_a_family_that_was_asked_the_same() -> None:
    found = chart(FAMILY, "accuracy")
    assert [(mark.label, mark.up) for mark in found.marks] == [("Q4_K_M", 90.0), ("Q8_0", 91.0), ("reference", 92.0)]
    assert all(mark.low < mark.up < mark.high for mark in found.marks)
    assert found.lead.endswith(" Questions: greedy, 50 questions of nano.")


def test_who_was_asked_something_else_is_not_beside_the_others() -> None:
    def asked(each: Measurement) -> Measurement:
        other = each.kind == "reason" and "q8_0" in each.model
        return replace(each, parameters={**each.parameters, "suite": "math"}) if other else each

    found = chart([asked(each) for each in FAMILY], "accuracy")
    assert [mark.label for mark in found.marks] == ["Q4_K_M", "reference"]


def test_one_file_is_no_chart_against_size() -> None:
    assert chart(FAMILY[:5], "accuracy").marks == chart(FAMILY[:5], "speed").marks == ()


def test_speed_against_size_tells_what_is_not_to_be_compared() -> None:
    rows = [
        replace(each, parameters={"kv_type": "q8_0", "threads": 8}, conditions=BUSY)
        if each.test == "tg128" and "q8_0" in each.model
        else each
        for each in FAMILY
    ]
    found = {mark.label: mark for mark in chart(rows, "speed").marks}
    assert {label: mark.hollow for label, mark in found.items()} == {
        "Q4_K_M": False,
        "Q8_0 †": True,
        "reference": False,
    }
    assert found["Q8_0 †"].figures[2:] == ("8 threads", "KV cache q8_0", "other work took 40% of the processor")
    assert "Hollow: measured under other conditions" in chart(rows, "speed").lead
    assert "Hollow" not in chart(FAMILY, "speed").lead


# Many files.


def test_only_files_with_several_strategies_are_in_the_chart_of_strategies() -> None:
    found = chart([*FAMILY, *ROWS], "strategies")
    assert found.series == ("nano",)
    assert len(found.marks) == 3


def test_strategies_that_were_asked_other_questions_are_left_out() -> None:
    other = row("reason", "verify", {"accuracy": Figure(0.9, None, 40), "tokens": Figure(90.0)}, suite="nano")
    assert "verify" not in [mark.label for mark in chart([*ROWS, other], "strategies").marks]


def test_files_with_one_number_of_votes_are_no_line() -> None:
    assert chart([votes("nano", 8, 9.0)], "votes").marks == ()


def test_a_line_of_votes_is_of_rows_that_differ_in_nothing_else() -> None:
    other = replace(votes("nano", 8, 99.0), parameters={"votes": 8, "generated": 32})
    found = chart([votes("nano", 1, 5.0), votes("nano", 8, 40.0), other], "votes")
    assert [(mark.across, mark.up) for mark in found.marks] == [(1, 5.0), (8, 40.0)]


def test_each_file_of_which_experts_were_left_out_has_a_chart() -> None:
    rows = [pruned("a", "own", 4, 0.5), pruned("a", "other", 4, 0.25)]
    rows += [replace(each, model="q4.gguf", digest="q4") for each in rows]
    made = [each for each in build_report(rows, ()).drawn if each.name.startswith("experts")]
    assert [(each.name, each.title) for each in made] == [
        ("experts", "Accuracy with fewer experts: nano"),
        ("experts-2", "Accuracy with fewer experts: q4"),
    ]
    assert all(each.series == ("own", "other") for each in made)


def test_the_fastest_lines_of_each_family_are_named_and_the_rest_is_grey() -> None:
    found = chart(many(), "votes")
    named = [mark.label for mark in found.marks if mark.label]
    assert len(found.series) == 45
    assert len(named) == 6
    assert sum(name.startswith("nano") for name in named) == 3
    drawn = chart_svg(found, WIDE)
    assert drawn.count('<polyline class="join colour-none"') == 39


def test_a_family_has_one_colour_in_all_charts() -> None:
    rows = [*many(), *FAMILY]
    for name in ("loss", "accuracy", "speed", "memory"):
        found = chart(rows, name)
        assert [found.number(series) for series in found.series] == [0, 1, 2]
        assert found.series == ("A-model-with-a-long-name-70B-Instruct-f16", "nano", "x")
    without = chart(rows[-len(FAMILY) :], "memory", [replace(RUN, model="another")])
    assert without.series == ("x", "another")


def test_a_legend_never_has_more_than_seven_entries() -> None:
    rows = [each for number in range(30) for each in recipe(f"m{number}", "q8_0", 1 << 20, number)]
    rows += [each for number in range(30) for each in recipe(f"m{number}", "q4_0", 1 << 19, number)]
    drawn = chart_svg(chart(rows, "loss"), WIDE)
    before = drawn.split('class="grid"')[0]
    assert before.count("<text") == 7
    assert ">others</text>" in before


def test_names_of_lines_make_a_legend_needless() -> None:
    rows = [votes(name, count, speed * count) for name, speed in (("nano", 9.0), ("q4.gguf", 5.0)) for count in (1, 8)]
    drawn = chart_svg(chart(rows, "votes"), WIDE)
    assert drawn.count(">nano</text>") == drawn.count(">q4</text>") == 1
    assert "<text" not in drawn.split('class="grid"')[0]


def test_only_what_is_far_from_its_forecast_is_named() -> None:
    far = replace(RUN, measured=replace(RUN.measured, memory=50 << 20))
    assert [mark.label for mark in chart(ROWS, "memory", [far]).marks] == ["", "nano +90%"]


def test_a_chart_without_data_says_which_command_makes_it() -> None:
    made = build_report([ROWS[0]], ())
    assert [each.name for each in made.drawn] == ["loss"]
    page = html(made)
    for command in ("speed q4.gguf", "reason q4.gguf", "experts q4.gguf", "all q4.gguf --recipes q8_0,q4_k_m,q2_k"):
        assert f"<code>dsr bench {command}</code>" in page
