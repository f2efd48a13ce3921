"""Speeds asked of the real engine; how high they are is the machine's affair, that every question works is ours."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager

import pytest

from runtime.base.errors import UsageError
from runtime.gguf.types import BY_NAME, NOT_FOR_WEIGHTS
from runtime.llama.kernel_speed import SpeedTest, has_stalled, sustained, usual

WEIGHTS = [name for name in BY_NAME if name not in NOT_FOR_WEIGHTS]


@pytest.mark.parametrize("type_name", WEIGHTS)
def test_every_type_of_weights_has_a_speed(type_name: str) -> None:
    with SpeedTest(1, seconds=0) as test:
        found = test.matrix(type_name, 512, 1 << 16, (1, 2, 8))
    assert len(found) == 3
    assert all(math.isfinite(each) and each > 0 for each in found)


@pytest.mark.parametrize("reorders", [True, False])
@pytest.mark.parametrize("type_name", WEIGHTS)
def test_every_type_of_experts_has_a_speed(type_name: str, reorders: bool) -> None:
    with SpeedTest(1, seconds=0, reorders=reorders) as test:
        [found] = test.experts(type_name, 512)
    assert math.isfinite(found)
    assert found > 0


def test_weights_in_the_order_of_the_file_have_a_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    with SpeedTest(1, seconds=0, reorders=False) as test:
        allocated, used = test._allocated, set[int]()

        def noting(context: int, layout: int) -> AbstractContextManager[int]:
            used.add(layout)
            return allocated(context, layout)

        monkeypatch.setattr(test, "_allocated", noting)
        assert test.matrix("Q4_0", 512, 1 << 16, (1,))[0] > 0
        assert used == {test._ggml.plain}


@pytest.mark.parametrize("width", [1, 100, 576])
def test_rows_of_any_length_are_cut_to_blocks(width: int) -> None:
    with SpeedTest(2, seconds=0) as test:
        assert test.matrix("Q4_K", width, 1, (1,))[0] > 0


@pytest.mark.parametrize("kv_type", ["f32", "f16", "bf16", "q8_0", "q5_1", "q4_0", "iq4_nl"])
@pytest.mark.parametrize(("key", "value", "heads"), [(64, 64, 9), (576, 512, 2), (1, 1, 1)])
def test_attention_has_a_speed(kv_type: str, key: int, value: int, heads: int) -> None:
    with SpeedTest(1, seconds=0) as test:
        assert test.attention(kv_type, key, value, heads)[0] > 0


def test_operations_on_more_tokens_take_longer() -> None:
    with SpeedTest(1, seconds=0.02) as test:
        one, many = test.operation(4096, (1, 256))
    assert 0 < one < many


def test_several_threads_are_judged_by_all_they_took() -> None:
    assert usual([1.0, 2.0, 3.0, 94.0]) == 2.0
    assert sustained([1.0, 2.0, 3.0, 94.0]) == 25.0
    assert has_stalled([1.0, 2.0, 3.0, 94.0])
    assert not has_stalled([1.0, 2.0, 3.0, 4.0])


def test_stalled_threads_are_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    takes = [[1.0], [1.0, 1.0, 100.0], [1.0, 1.0, 4.0]]
    monkeypatch.setattr(SpeedTest, "_computed", lambda *_: takes.pop(0))
    with SpeedTest(2) as test:
        assert test.operation(64, (1,)) == [2.0 / 64]


def test_a_test_without_threads_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one thread"):
        SpeedTest(0)
