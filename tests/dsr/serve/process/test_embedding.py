"""The query "embed": what it reads, and what it computes between two steps of the engine."""

from __future__ import annotations

import base64
from array import array
from typing import Any

import pytest

from dsr.serve.process.embedding import Embedding
from dsr.serve.told import Failed, Result, Told
from runtime.base.errors import DoesNotFit, UsageError
from tests.fakes import FakeEmbedder


class Asked:
    """Queries of an embedding, and what they are told."""

    def __init__(self, **options: Any) -> None:
        self.embedder = FakeEmbedder(**options)
        self.embedding = Embedding(self.embedder)
        self.told: dict[int, list[Told]] = {}

    def begin(self, number: int, *texts: Any, **given: Any) -> None:
        self.told[number] = []
        self.embedding.begin(number, {"texts": texts, **given}, self.told[number].append)

    def run(self) -> None:
        while self.embedding.busy:
            self.embedding.step()

    def vectors(self, number: int) -> list[list[float]]:
        [told] = self.told[number]
        assert isinstance(told, Result)
        return [array("f", base64.b64decode(each)).tolist() for each in told.value["vectors"]]


def test_texts_and_tokens_become_vectors_and_every_text_tells_its_tokens() -> None:
    asked = Asked()
    asked.begin(1, "abab", [99, 99])
    assert asked.told[1] == []
    asked.run()
    assert asked.vectors(1) == [pytest.approx([2**-0.5, 2**-0.5, 0, 0]), [0, 0, 1, 0]]
    [told] = asked.told[1]
    assert isinstance(told, Result) and told.value["tokens"] == [6, 2]


def test_one_batch_is_computed_at_each_step_so_that_answers_go_on_between_them() -> None:
    asked = Asked(together=8)
    asked.begin(1, "aaaa", "bbbb", "cccc")
    asked.embedding.step()
    assert asked.embedder.computed == [1]
    assert asked.told[1] == []
    asked.run()
    assert asked.embedder.computed == [1, 1, 1]
    assert len(asked.vectors(1)) == 3


def test_queries_are_answered_in_their_order() -> None:
    asked = Asked(together=8)
    asked.begin(1, "aaaa", "bbbb")
    asked.begin(2, "cccc")
    asked.embedding.step()
    asked.embedding.step()
    asked.embedding.step()
    assert len(asked.told[1]) == 1 and asked.told[2] == []
    asked.run()
    assert asked.vectors(2) == [[0, 0, 1, 0]]


def test_a_query_that_nobody_waits_for_is_not_computed_further() -> None:
    asked = Asked(together=8)
    asked.begin(1, "aaaa", "bbbb", "cccc")
    asked.begin(2, "d")
    asked.embedding.step()
    asked.embedding.withdraw(1)
    asked.run()
    assert asked.embedder.computed == [1, 1]
    assert asked.vectors(2) == [[0, 0, 0, 1]]


def test_a_long_text_is_an_error_or_cut() -> None:
    asked = Asked(longest=5)
    with pytest.raises(DoesNotFit, match="text 1 has 8 tokens, and the model embeds at most 5"):
        asked.begin(1, "a", "aaabbb")
    asked.begin(2, "aaabbb", truncate=True)
    asked.run()
    assert asked.vectors(2) == [[1, 0, 0, 0]]


def test_what_is_wrong_is_raised_before_anything_is_computed() -> None:
    asked = Asked()
    with pytest.raises(UsageError, match="between 1 and 4 dimensions are possible, not 5"):
        asked.begin(1, "a", dimensions=5)
    with pytest.raises(UsageError, match="text 0 has the token 256"):
        asked.begin(1, [256])
    assert not asked.embedding.busy


def test_an_engine_that_fails_fails_this_query_alone() -> None:
    asked = Asked()
    asked.embedder.fails_at = 0
    asked.begin(1, "a")
    asked.run()
    assert asked.told[1] == [Failed("EngineFailed", "the engine failed to embed")]
    asked.embedder.fails_at = None
    asked.begin(2, "a")
    asked.run()
    assert asked.vectors(2) == [[1, 0, 0, 0]]
