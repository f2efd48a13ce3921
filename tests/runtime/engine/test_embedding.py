"""How texts become batches for an embedder, and what is refused before."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.base.errors import DoesNotFit, UsageError
from runtime.engine.embedding import Part, batches, check_dimensions, check_texts, unit


def test_short_texts_share_a_batch_up_to_its_size() -> None:
    assert [*batches([3, 4, 4], size=8, sequences=8, in_parts=False)] == [
        (Part(0, 0, 3, 0), Part(1, 0, 4, 1)),
        (Part(2, 0, 4, 0),),
    ]


def test_a_batch_has_no_more_texts_than_sequences() -> None:
    assert [len(batch) for batch in batches([1, 1, 1, 1, 1], size=100, sequences=2, in_parts=True)] == [2, 2, 1]


def test_a_long_text_is_read_in_parts_and_its_vector_comes_with_the_last() -> None:
    assert [*batches([1, 10, 1], size=4, sequences=8, in_parts=True)] == [
        (Part(0, 0, 1, 0),),
        (Part(1, 0, 4, 0, last=False),),
        (Part(1, 4, 8, 0, last=False),),
        (Part(1, 8, 10, 0),),
        (Part(2, 0, 1, 0),),
    ]


def test_a_long_text_that_cannot_be_cut_has_a_batch_of_its_own() -> None:
    assert [*batches([1, 10, 1], size=4, sequences=8, in_parts=False)] == [
        (Part(0, 0, 1, 0),),
        (Part(1, 0, 10, 0),),
        (Part(2, 0, 1, 0),),
    ]


@given(st.lists(st.integers(1, 30)), st.integers(1, 12), st.integers(1, 5), st.booleans())
def test_every_token_is_computed_once_and_every_text_ends_once(
    lengths: list[int], size: int, sequences: int, in_parts: bool
) -> None:
    made = [*batches(lengths, size=size, sequences=sequences, in_parts=in_parts)]
    read = [0] * len(lengths)
    for batch in made:
        assert [part.sequence for part in batch] == [*range(len(batch))]
        assert len(batch) <= sequences
        assert sum(part.end - part.begin for part in batch) <= size or (len(batch) == 1 and not in_parts)
        for part in batch:
            assert part.begin == read[part.text]
            read[part.text] = part.end
            assert part.last == (part.end == lengths[part.text])
    assert read == lengths
    assert [part.text for batch in made for part in batch if part.last] == [*range(len(lengths))]


@pytest.mark.parametrize(
    ("texts", "kind", "said"),
    [
        ([[1], []], UsageError, "text 1 is empty: it has no tokens to embed"),
        ([[1], [1], [1] * 6], DoesNotFit, "text 2 has 6 tokens, and the model embeds at most 5"),
        ([[1, 9]], UsageError, "text 0 has the token 9, and the vocabulary has 9 tokens"),
        ([[-1]], UsageError, "text 0 has the token -1, and the vocabulary has 9 tokens"),
    ],
)
def test_a_text_that_cannot_be_embedded_is_named_by_its_index(
    texts: list[list[int]], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        check_texts(texts, longest=5, vocab_size=9)


def test_sound_texts_pass() -> None:
    check_texts([], longest=5, vocab_size=9)
    check_texts([[0, 8], [1] * 5], longest=5, vocab_size=9)


def test_dimensions_are_at_least_one_and_at_most_those_of_the_model() -> None:
    check_dimensions(None, 64)
    check_dimensions(64, 64)
    for asked in (0, -1, 65):
        with pytest.raises(UsageError, match=f"between 1 and 64 dimensions are possible, not {asked}"):
            check_dimensions(asked, 64)


def test_a_vector_has_length_one_also_when_it_is_shortened() -> None:
    assert unit([3.0, 4.0]).tolist() == pytest.approx([0.6, 0.8])
    assert unit([3.0, 4.0, 12.0], 2).tolist() == pytest.approx([0.6, 0.8])
    assert unit([0.0, 0.0]).tolist() == [0.0, 0.0]
    assert len(unit([1.0] * 7).tobytes()) == 28


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1))
def test_a_vector_never_gets_longer_than_one(numbers: list[float]) -> None:
    length = math.sqrt(math.fsum(number * number for number in unit(numbers)))
    assert length == pytest.approx(1, abs=1e-5) or not any(abs(number) > 1e-30 for number in numbers)
