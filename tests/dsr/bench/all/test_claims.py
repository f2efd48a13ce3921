"""The orderings of the papers, checked with made-up measurements."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from dsr.bench.all.claims import Interval, claims, paired, unpaired
from dsr.bench.all.rows import ITSELF, Answers, FileResult, ModelResult
from dsr.bench.experts import bench as experts
from dsr.bench.experts.cases import Case, Kind
from dsr.bench.reason.bench import ReasonBench
from dsr.store.measurement import Conditions, Figure, Measurement
from quant.experts.prune_plan import plan_random
from quant.measure.divergence import Estimate
from tests.quant.experts.test_prune_plan import card as mixture

CONDITIONS = Conditions("cpu", 2, 1 << 30, "0", "0", 0.0)


def file(
    recipe: str, *, size: int = 100, kld: float | None = None, right: int | None = None, of: int = 100
) -> FileResult:
    """`right` of `of` questions: the first ones."""
    figures = (
        {} if kld is None else {"kld_mean": Figure(kld, kld / 20, 1000), "ppl_ratio": Figure(1 + kld, 0.001, 1000)}
    )
    row = None if kld is None else Measurement("quality", recipe, "d", size, "t", {}, figures, CONDITIONS, 0.0)
    solved = None if right is None else {str(n): float(n < right) for n in range(of)}
    answers = None if solved is None or right is None else Answers(right / of, 0.0, 1.0, solved)
    return FileResult(recipe, recipe or "itself", "d", size, 4.0, row, (), answers)


def result(
    *files: FileResult,
    strategies: ReasonBench | None = None,
    pruned: experts.ExpertsBench | None = None,
    name: str = "m.gguf",
) -> ModelResult:
    return ModelResult(name, 16.0, name, "nano", files, strategies, pruned, ())


def verdicts(found: ModelResult) -> dict[str, str]:
    return {each.claim: each.verdict for each in claims(found)}


def test_pairs_are_of_the_same_questions() -> None:
    found = paired({"a": 1.0, "b": 1.0, "c": 1.0, "x": 0.0}, {"a": 1.0, "b": 0.0, "c": 1.0, "y": 1.0})
    # Agresti and Min: (1 + 0.5 - 0.5) / 5 = 0.2, variance ((1 + 1) / 5 - 0.04) / 5.
    assert found is not None
    assert (found.mean, found.count) == (pytest.approx(1 / 3), 3)
    assert (found.low, found.high) == (pytest.approx(0.2 - 1.96 * 0.268328, abs=1e-4), pytest.approx(0.7259, abs=1e-4))
    assert paired({"a": 1.0}, {"b": 1.0}) is None


def test_answers_that_all_agree_leave_an_interval() -> None:
    same = {str(n): 1.0 for n in range(20)}
    found = paired(same, same)
    assert found is not None and found.low == -found.high == pytest.approx(-0.0891, abs=1e-4)


def test_errors_add_up_as_independent() -> None:
    found = unpaired(Figure(0.5, 0.03, 100), Figure(0.2, 0.04, 90))
    assert found == Interval(0.3, pytest.approx(0.3 - 0.0979982), pytest.approx(0.3 + 0.0979982), 90)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (0.1, 0.3, "seen"),
        (-0.1, 0.3, "undecided"),
        (-0.3, -0.1, "not seen"),
        (0.1, 0.6, "undecided"),
        (0.6, 0.9, "not seen"),
        (0.5, 0.5, "not seen"),
    ],
)
def test_a_verdict_needs_the_whole_interval(low: float, high: float, told: str) -> None:
    assert Interval((low + high) / 2, low, high, 9).verdict(above=0, below=0.5) == told


def test_4_bits_are_close_when_the_whole_interval_is() -> None:
    claim = "Q4_K_M is close to full precision: accuracy within 5 points"
    few = result(file(ITSELF, right=9, of=10), file("q4_k_m", right=9, of=10))
    assert verdicts(few)[claim] == "undecided"
    many = result(file(ITSELF, right=360, of=400), file("q4_k_m", right=359, of=400))
    assert verdicts(many)[claim] == "seen"
    worse = result(file(ITSELF, right=360, of=400), file("q4_k_m", right=330, of=400))
    assert verdicts(worse)[claim] == "undecided"  # 7.5 points, 5.0 to 10.2
    bad = result(file(ITSELF, right=360, of=400), file("q4_k_m", right=320, of=400))
    assert verdicts(bad)[claim] == "not seen"


def test_4_bits_by_perplexity() -> None:
    claim = "Q4_K_M is close to full precision: perplexity at most 5 % more"
    assert verdicts(result(file(ITSELF, kld=0.0), file("q4_k_m", kld=0.04)))[claim] == "seen"
    assert verdicts(result(file(ITSELF, kld=0.0), file("q4_k_m", kld=0.06)))[claim] == "not seen"


def test_dq3_against_q3() -> None:
    found = result(file("dq3_k_m", size=120, kld=0.05, right=90), file("q3_k_m", size=100, kld=0.10, right=70))
    assert verdicts(found) == {
        "DQ3_K_M above Q3_K_M: accuracy": "seen",
        "DQ3_K_M above Q3_K_M: KLD": "seen",
        "DQ3_K_M smaller than Q3_K_M": "not seen",
    }
    other = result(file("dq3_k_m", size=90, kld=0.10, right=70), file("q3_k_m", size=100, kld=0.10, right=70))
    assert list(verdicts(other).values()) == ["undecided", "undecided", "seen"]


def test_2_bits_fall() -> None:
    bits = [file(ITSELF, kld=0.0), file("q4_k_m", kld=0.02), file("q3_k_m", kld=0.1)]
    steep = verdicts(result(*bits, file("q2_k", kld=0.6)))
    assert steep["2-bit falls below 3-bit: KLD"] == "seen"
    assert steep["The step from 3 to 2 bits costs more than all before it: KLD"] == "seen"
    gentle = verdicts(result(*bits, file("q2_k", kld=0.15)))
    assert gentle["2-bit falls below 3-bit: KLD"] == "seen"
    assert gentle["The step from 3 to 2 bits costs more than all before it: KLD"] == "not seen"


def voting(folder: Path, shares: Mapping[str, Sequence[float]]) -> ReasonBench:
    rows = [
        {"row": line, "id": str(number), "correct": correct}
        for line, each in shares.items()
        for number, correct in enumerate(each)
    ]
    (folder / "verdicts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return ReasonBench(
        model="m",
        size=1,
        suite="nano",
        problems=100,
        samples=8,
        conditions={},
        folder=folder,
        scores=(),
        skipped=(),
        unfinished=0,
        interrupted=False,
        measured=CONDITIONS,
        at=0.0,
    )


@pytest.mark.parametrize(
    ("right", "told"),
    [
        ((50, 70, 80, 82), ["seen", "seen"]),
        ((80, 80, 80, 80), ["undecided", "undecided"]),
        ((20, 30, 40, 90), ["seen", "not seen"]),
    ],
)
def test_votes(tmp_path: Path, right: tuple[int, ...], told: list[str]) -> None:
    names = ("direct", "vote n=2 stop=none", "vote n=4 stop=none", "vote n=8 stop=none")
    shares = {name: [float(n < count) for n in range(100)] for name, count in zip(names, right, strict=True)}
    found = claims(result(strategies=voting(tmp_path, shares)))
    assert [each.verdict for each in found] == told
    assert f"{right[0]}.0 of 1, {right[1]}.0 of 2, {right[2]}.0 of 4, {right[3]}.0 of 8" in found[0].measured


def test_votes_that_were_not_cast_say_nothing(tmp_path: Path) -> None:
    assert claims(result(strategies=voting(tmp_path, {"direct": [1.0]}))) == ()


def pruned(whole: int, half: int, random: int) -> experts.ExpertsBench:
    """Right answers of 100 in one task."""

    def row(keep: str, kind: Kind, right: int, seed: int | None = None) -> experts.CaseResult:
        case = Case("task", keep, kind, "mass", plan_random(mixture(), 4, 0), seed)
        return experts.CaseResult(case, tuple(n < right for n in range(100)), Estimate(0.0, 0.0), 1, 1, 1, 1.0)

    lots = [row("50%", "random", random, seed) for seed in (0, 1, 2)]
    rows = (row("100%", "own", whole), row("50%", "own", half), *lots)
    return experts.ExpertsBench(
        model="m",
        digest="d",
        size=1,
        suite="nano",
        experts=8,
        active=2,
        problems=100,
        request=experts.ExpertsBenchRequest(),
        origins={"task": "x"},
        folder=Path(),
        rows=rows,
        missing=0,
        measured=CONDITIONS,
        at=0.0,
    )


def test_pruning() -> None:
    assert [each.verdict for each in claims(result(pruned=pruned(90, 90, 50)))] == ["seen", "seen"]
    assert [each.verdict for each in claims(result(pruned=pruned(90, 60, 60)))] == ["not seen", "undecided"]
    assert [each.verdict for each in claims(result(pruned=pruned(90, 60, 80)))] == ["not seen", "not seen"]


def test_what_was_not_measured_is_not_told() -> None:
    assert claims(result()) == ()
    assert claims(result(file("q2_k"), file("q3_k_m"))) == ()
