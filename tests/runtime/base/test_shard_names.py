"""Parts of split files: read from their names, and the missing ones told without walking through a claim."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.base.errors import VerificationFailed
from runtime.base.shard_names import check_shards, is_whole, missing_shards, shard_of

SPLIT = [f"big/m-Q4_K_M-0000{n}-of-00003.gguf" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["m-00001-of-00003.gguf", "m-00003-of-00003.gguf"], "a part is missing: m-00002-of-00003.gguf"),
        (["m-00001-of-00001.gguf", "m-00002-of-00001.gguf"], "the parts of m disagree"),
        (["m-00000-of-00001.gguf", "m-00001-of-00001.gguf"], "the parts of m disagree"),
        (["m-00001-of-00002.gguf", "m-00002-of-00003.gguf"], "a part is missing: m-00002-of-00002.gguf"),
        (["m-00002-of-00002.safetensors"], "a part is missing: m-00001-of-00002.safetensors"),
    ],
)
def test_shards_that_are_not_one_whole_are_refused(names: list[str], problem: str) -> None:
    with pytest.raises(VerificationFailed, match=problem):
        check_shards(names)
    assert not is_whole(names)


def test_whole_splits_and_single_files_pass() -> None:
    names = [*SPLIT, "config.json", "x-00001-of-00001.gguf"]
    check_shards(names)
    assert is_whole(names)


def test_shards_are_counted_with_six_digits_too() -> None:
    """DeepSeek-R1's original weights are called model-00001-of-000163.safetensors."""
    assert shard_of("model-00001-of-000163.safetensors") == ("model", 1, 163)
    (missing,) = missing_shards(["m-00001-of-000003.safetensors", "m-00003-of-000003.safetensors"])
    assert (missing.first, missing.number) == ("m-00002-of-000003.safetensors", 1)
    assert str(missing) == "m-00002-of-000003.safetensors is missing"


def test_several_missing_parts_are_told_as_ranges() -> None:
    names = [f"q/m-{number:05d}-of-00012.gguf" for number in (2, 3, 6, 8, 10, 12)]
    assert [str(each) for each in missing_shards(names[:2])] == ["10 of 12 parts of m are missing: 1, 4 to 12"]
    with pytest.raises(VerificationFailed, match=r"^6 of 12 parts of m are missing: 1, 4 to 5, 7, 9 and more$"):
        check_shards(names)


def test_a_claim_of_a_million_parts_is_not_walked_through() -> None:
    """Two thousand names that claim 999 999 parts each: with a name for each missing part this would not end."""
    names = [f"m{number}-Q4_0-00001-of-999999.gguf" for number in range(2000)]
    missing = missing_shards(names)
    assert {(each.number, each.count, each.gaps) for each in missing} == {(999_998, 999_999, ((2, 999_999),))}


@given(st.text(max_size=60))
def test_a_shard_name_is_read_back(text: str) -> None:
    assert shard_of(f"{text}-00003-of-00007.gguf") == (text, 3, 7)


@given(st.sets(st.integers(1, 30), min_size=1), st.integers(30, 40))
def test_the_gaps_are_the_numbers_that_no_name_has(numbers: set[int], count: int) -> None:
    missing = missing_shards([f"m-{number:05d}-of-{count:05d}.gguf" for number in numbers])
    told = {number for each in missing for one, other in each.gaps for number in range(one, other + 1)}
    assert told == set(range(1, count + 1)) - numbers
    assert sum(each.number for each in missing) == count - len(numbers)
