"""The tables of a report: a row for each file of a family, and what its figures have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dsr.bench.report.families import families
from dsr.bench.report.files import select
from dsr.bench.report.table import FamilyTable, tables
from dsr.store.measurement import Figure, Measurement, Parameter
from tests.dsr.bench.report.rows import HERE, ROWS, many, quality, row


def made(rows: Sequence[Measurement]) -> tuple[FamilyTable, ...]:
    return tables(families(select(rows, ()).files))


def cells(table: FamilyTable) -> dict[str, list[str]]:
    return {column.title: [cell.marked for cell in column.cells] for column in table.columns}


def test_a_row_for_each_file_of_a_family_and_for_files_alone() -> None:
    family, alone = made(ROWS)
    assert (family.heading, [member.short for member in family.members]) == ("f16", ["q4", "q2"])
    assert cells(family) == {
        "size": ["4.00 MiB", "2.00 MiB"],
        "bits per weight": ["4.88", "4.88"],
        "KLD": ["0.0300 ± 0.0030", "0.3000 ± 0.0300"],
        "same top token": ["98.77 %", "98.77 %"],
        "perplexity": ["12.35 ± 0.12", "12.35 ± 0.12"],
    }
    assert alone.heading == "nano"
    assert cells(alone) == {
        "size": ["8.00 MiB"],
        "right": ["90.0 % (83 to 94)"],
        "prompt tokens/s": ["2401 ± 10"],
        "tokens/s": ["52.7 ± 1.0 †"],
        "memory": ["90.0 MiB"],
    }


def test_what_all_rows_share_is_told_once() -> None:
    family, alone = made(ROWS)
    assert family.conditions == "Loss: against f16, 1000 tokens of the built-in text."
    assert alone.conditions == "Right: greedy, 100 questions of nano; speeds: pp512, tg128, 2 threads."
    assert family.notes == alone.notes == ()


def test_only_what_deviates_tells_its_own() -> None:
    other = replace(quality("q3.gguf", 0.2), parameters={"against": "/home/me/f16.gguf", "text": "wiki.txt"})
    [table] = made([*ROWS[:2], other])
    assert table.conditions == "Loss: against f16, 1000 tokens of the built-in text."
    assert table.notes == (("a", "1000 tokens of wiki.txt"),)
    [divergence] = [column for column in table.columns if column.title == "KLD"]
    assert [(cell.otherwise, table.note(cell)) for cell in divergence.cells] == [
        ("", ""),
        ("", ""),
        ("1000 tokens of wiki.txt", "a"),
    ]


def test_where_no_two_agree_each_tells_its_own() -> None:
    other = replace(quality("q2.gguf", 0.2), parameters={"against": "bf16.gguf", "text": "wiki.txt"})
    [table] = made([replace(ROWS[0], parameters={"text": "a.txt"}), replace(other, parameters={"text": "b.txt"})])
    assert table.conditions == ""
    assert [text for _, text in table.notes] == ["1000 tokens of a.txt", "1000 tokens of b.txt"]


def test_a_text_that_only_has_the_same_name_is_another() -> None:
    rows = [
        replace(
            quality(f"q{bits}.gguf", 0.1), parameters={"against": "f.gguf", "text": "builtin", "text_digest": digest}
        )
        for bits, digest in ((2, "0123456789"), (3, "0123456789"), (4, "abcdefabcd"))
    ]
    [table] = made(rows)
    assert table.conditions == "Loss: against f, 1000 tokens of the built-in text."
    assert table.notes == (("a", "text abcdef"),)


def speed(model: str, test: str, mean: float, **parameters: Parameter) -> Measurement:
    return row("speed", test, {"tokens_per_second": Figure(mean)}, model, **parameters)


def test_of_several_rows_that_counts_which_the_others_have_too() -> None:
    rows = [
        speed("a", "tg64", 1.0, threads=2),
        speed("a", "tg128", 2.0, threads=2),
        speed("b", "tg64", 3.0, threads=2),
        speed("c", "tg64", 4.0, threads=2),
        speed("c", "tg64", 5.0, threads=8),
    ]
    [table] = made(rows)
    assert cells(table)["tokens/s"] == ["1.00", "3.00", "4.00"]
    assert table.conditions == "Speeds: tg64, 2 threads."


def test_threads_that_were_measured_for_each_file_are_a_column() -> None:
    [table] = made([speed("a", "tg128", 1.0, threads=1), speed("b", "tg128", 2.0, threads=2)])
    assert cells(table) == {"size": ["1.00 MiB", "1.00 MiB"], "tokens/s": ["1.00", "2.00"], "threads": ["1", "2"]}
    assert table.conditions == "Speeds: tg128."
    assert table.notes == ()


def test_alone_the_usual_test_counts_and_else_the_latest() -> None:
    [table] = made([speed("a", "tg128", 1.0), speed("a", "tg64", 2.0)])
    assert cells(table)["tokens/s"] == ["1.00"]
    [table] = made([speed("a", "tg32", 1.0), speed("a", "tg64", 2.0)])
    assert cells(table)["tokens/s"] == ["2.00"]


def test_a_speed_of_another_machine_says_so() -> None:
    rows = [speed(name, "tg128", 1.0) for name in "abc"]
    rows[1] = replace(rows[1], conditions=replace(HERE, processor="another one"))
    assert made(rows)[0].notes == (("a", "another one"),)


def test_a_strategy_that_a_user_can_have_is_told_before_an_oracle() -> None:
    rows = [row("reason", test, {"accuracy": Figure(0.5, None, 10)}) for test in ("vote n=8", "pass@8 (oracle)")]
    assert made(rows)[0].conditions == "Right: vote n=8, 10 questions."


def test_no_column_of_many_files_repeats_its_conditions() -> None:
    found = made(many())
    assert [(table.heading, len(table.members)) for table in found] == [
        ("A-model-with-a-long-name-70B-Instruct-f16", 25),
        ("nano", 20),
    ]
    assert all(not cell.otherwise for table in found for column in table.columns for cell in column.cells)
    assert [member.short for member in found[1].members][:3] == ["F16", "Q8_0", "Q2_K_S"]
