"""What was measured of strategies: the data are those of docs/results.md, and are told in a clause."""

from __future__ import annotations

from runtime.strategies.measured import Measured, Row, all_measured, as_toml, clause, nearest, parse
from tests.strategy_figures import DATA, document, measured


def table(parameters: int = 500_000_000, thinks: bool = False, **rows: float) -> Measured:
    listed = tuple(Row(label.replace("_", "-"), right, 100) for label, right in rows.items())
    return Measured("small", parameters, thinks, "gym", 60, (Row("greedy", 25.0, 90), Row("direct", 15.4, 90), *listed))


def test_the_data_are_those_of_the_results() -> None:
    assert DATA.read_text(encoding="utf-8") == document(), "run python tests/strategy_figures.py"


def test_tables_of_strategies_are_found_in_a_document() -> None:
    text = """
### m-0.5B on `gym`: 60 problems, 8 samples each

| strategy | right, % | 95 % interval | tokens |
| :-- | --: | --: | --: |
| `greedy` | 25.0 | 1 to 2 | 90 |
| `vote n=8 stop=none` | 36.7 | 1 to 2 | 700 |
| `pass@8 (oracle)` | 45.0 | 1 to 2 | 700 |

### Experts of nano on nano: 200 problems, 10 tasks

| `a` | 1.0 | x | 2 |
"""
    [found] = measured(text)
    assert (found.model, found.parameters, found.thinks, found.suite) == ("m-0.5B", 500_000_000, False, "gym")
    assert found.rows == (Row("greedy", 25.0, 90), Row("vote n=8 stop=none", 36.7, 700))
    assert parse(as_toml([found])) == (found,)


def test_a_strategy_that_never_gained_says_so() -> None:
    assert clause("tree", [table(tree=2.0)]) == "never gained: 2.0 % right, a greedy answer 25.0 (small, 60 questions)"
    assert clause("vote", [table(vote=36.7)]) == "up to +11.7 points over a greedy answer (small, 60 questions)"
    assert clause("soft", [table(vote=36.7)]) == "not measured yet"
    assert clause("direct", [table()]) == ""
    assert clause("tree", all_measured()).startswith("never gained: ")


def test_the_nearest_model_thinks_alike_and_is_within_ten_times_the_size() -> None:
    small, large = table(500_000_000), table(4_000_000_000)
    assert nearest(1_000_000_000, False, [small, large]) is small
    assert nearest(3_000_000_000, False, [small, large]) is large
    assert nearest(1_000_000_000, True, [small, large]) is None
    assert nearest(41_000_000_000, False, [small, large]) is None
    assert nearest(0, False, [small, large]) is None
