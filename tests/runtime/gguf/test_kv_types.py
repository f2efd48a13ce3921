"""The types of a KV cache, as a user writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.base.errors import UsageError
from runtime.gguf.kv_types import kv_types, kv_types_in


@pytest.mark.parametrize(
    ("text", "keys", "values"),
    [
        ("f16", "F16", "F16"),
        ("q8_0", "Q8_0", "Q8_0"),
        ("k=q8_0,v=q4_0", "Q8_0", "Q4_0"),
        ("v=q4_0, k=bf16", "BF16", "Q4_0"),
        ("k=q8_0", "Q8_0", "F16"),
        ("v=iq4_nl", "F16", "IQ4_NL"),
    ],
)
def test_keys_and_values_have_one_type_or_one_each(text: str, keys: str, values: str) -> None:
    found = kv_types(text)
    assert (found.keys.name, found.values.name) == (keys, values)


def test_both_types_count() -> None:
    assert kv_types("f16").bits == 32
    assert kv_types("k=q8_0,v=q4_0").bits == 8.5 + 4.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("q9", "'q9' is not a type of KV cache"),
        ("", "'' is not a type of KV cache"),
        ("Q8_0", "'Q8_0' is not a type of KV cache"),
        ("k=q9,v=f16", "'q9' is not a type of KV cache"),
        ("k=f16,k=f16", "'k=f16,k=f16' does not name types of keys and values"),
        ("k=f16,q8_0", "'k=f16,q8_0' does not name types of keys and values"),
        ("x=f16", "'x=f16' does not name types of keys and values"),
        ("k=f16,", "'k=f16,' does not name types of keys and values"),
    ],
)
def test_other_texts_are_refused_with_an_example(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        kv_types(text)
    assert caught.value.message == said
    assert caught.value.hint and ("q8_0" in caught.value.hint)


@given(st.text(alphabet="kvfq816_04=, ", max_size=20))
def test_any_text_is_two_types_or_an_error(text: str) -> None:
    try:
        kv_types(text)
    except UsageError:
        return
    assert "=" in text or text in ("f16", "q8_0", "q4_0", "q4_1")


def test_a_list_keeps_what_belongs_together() -> None:
    assert kv_types_in("F16,q8_0, f16") == ("f16", "q8_0")
    assert kv_types_in("k=q8_0,v=q4_0,f16,k=q8_0,v=q8_0") == ("k=q8_0,v=q4_0", "f16", "k=q8_0,v=q8_0")
    assert kv_types_in("k=q8_0,k=q4_0") == ("k=q8_0", "k=q4_0")
