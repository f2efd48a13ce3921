from __future__ import annotations

from dataclasses import replace

import pytest

from dsr.bench.history.compare import compare, summary
from dsr.store.measurement import Conditions, Figure, Measurement
from runtime.base.errors import UsageError

HERE = Conditions("a processor", 2, 8 << 30, "0.1", "0.3.36", load=0.0)
ROW = Measurement(
    "speed", "a", "d1", 100, "tg128", {"threads": 2}, {"tokens_per_second": Figure(100.0, 1.0, 5)}, HERE, 1.0
)


def other(mean: float, error: float | None = 1.0, count: int = 5) -> Measurement:
    return replace(ROW, model="b", digest="d2", figures={"tokens_per_second": Figure(mean, error, count)})


def test_a_ratio_has_the_interval_of_two_means() -> None:
    [ratio] = compare([ROW], [other(110.0)]).ratios
    assert ratio.ratio == pytest.approx(1.1)
    # 2.306, Student's quantile for 8 degrees of freedom, times the relative errors 1/100 and 1/110 together.
    assert ratio.low == pytest.approx(1.0663, abs=1e-4)
    assert ratio.high == pytest.approx(1.1348, abs=1e-4)
    assert ratio.differs is True


def test_what_lies_within_the_interval_does_not_differ() -> None:
    [ratio] = compare([ROW], [other(101.0)]).ratios
    assert ratio.differs is False


def test_a_figure_measured_once_has_no_interval() -> None:
    comparison = compare([ROW], [other(110.0, error=None, count=1)])
    assert comparison.ratios[0].low is None
    assert comparison.ratios[0].differs is None
    assert summary(comparison) == "no intervals: each test was measured once"


def test_tests_of_one_alone_are_named() -> None:
    comparison = compare([ROW, replace(ROW, test="pp512")], [other(110.0), replace(other(1.0), kind="quality")])
    assert [ratio.test for ratio in comparison.ratios] == ["tg128"]
    assert comparison.alone == ("speed pp512", "quality tg128")
    assert summary(comparison) == "different beyond the 95 % interval: 1 of 1 figure"


def test_the_latest_row_of_a_test_counts() -> None:
    [ratio] = compare([ROW, replace(ROW, figures={"tokens_per_second": Figure(50.0, 1.0, 5)})], [other(100.0)]).ratios
    assert ratio.ratio == 2.0


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"parameters": {"threads": 1}}, "threads 2 and 1"),
        ({"parameters": {"threads": 2, "depth": 512}}, "depth None and 512"),
        ({"conditions": replace(HERE, processor="another")}, "processor a processor and another"),
        ({"conditions": replace(HERE, engine="0.4")}, "engine 0.3.36 and 0.4"),
    ],
)
def test_what_was_measured_differently_is_refused_unless_forced(changed: dict[str, object], told: str) -> None:
    row = replace(other(110.0), **changed)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=f"measured under different conditions: {told}"):
        compare([ROW], [row])
    assert compare([ROW], [row], force=True).differences == (told,)


def test_other_load_does_not_forbid_a_comparison() -> None:
    assert compare([ROW], [replace(other(110.0), conditions=replace(HERE, load=0.5))]).differences == ()


def test_nothing_in_common_is_refused() -> None:
    with pytest.raises(UsageError, match="no test in common"):
        compare([ROW], [replace(ROW, test="pp512")])
