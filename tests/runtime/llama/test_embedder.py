"""Vectors from the real engine, with a tiny model of each kind that it knows.

tests/peers/embeddings.py compares them with those of llama-server.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from runtime.base.errors import Aborted, DoesNotFit, EngineFailed, UsageError
from runtime.base.run import Run, Stop
from runtime.engine.embedding import EmbedOptions, Vector
from runtime.gguf.reader import read_card
from runtime.llama import Embedder
from runtime.placement.embedding import plan_embedding
from tests.embedding_gguf import KINDS, write_embedder
from tests.runtime.native_engine import StopWhenAsked

READ = [kind for kind in KINDS if kind != "reranker"]
TEXT, OTHER = "the cat sat on the mat.", "a dog runs far"
Opener = Callable[..., Embedder]


@pytest.fixture(scope="module")
def path_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("models")

    @cache  # a file that is open must not change
    def write(kind: str) -> Path:
        return write_embedder(kind, folder / f"{kind}.gguf")

    return write


@pytest.fixture
def opened(path_of: Callable[[str], Path]) -> Iterator[Opener]:
    stack: list[Embedder] = []

    def open_(kind: str, run: Run | None = None, **changes: int) -> Embedder:
        path = path_of(kind)
        options = replace(plan_embedding(read_card(path), 1 << 40).options, **changes)
        stack.append(Embedder(path, options, run))
        return stack[-1]

    yield open_
    for each in stack:
        each.close()


def cosine(one: Vector, other: Vector) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", READ)
def test_every_kind_of_model_gives_unit_vectors_that_depend_on_the_text_alone(opened: Opener, kind: str) -> None:
    embedder = opened(kind)
    one, other = embedder.tokenize(TEXT), embedder.tokenize(OTHER)
    assert embedder.dimensions == 64
    [alone] = embedder.embed([one])
    first, second, third = embedder.embed([other, one, other])
    assert math.sqrt(cosine(alone, alone)) == pytest.approx(1, abs=1e-6)
    assert cosine(alone, second) == pytest.approx(1, abs=1e-5)
    assert cosine(first, third) == pytest.approx(1, abs=1e-5)
    assert cosine(first, second) < 0.999


@pytest.mark.parametrize(
    ("kind", "frame"),
    [("bert", ([2], [3])), ("modern-bert", ([256], [257])), ("qwen3", ([], [257])), ("qwen3-unsaid", ([], [])),
     ("t5encoder", ([], [1])), ("gemma-embedding", ([1], [2])), ("gemma3", ([1], []))],
)  # fmt: skip
def test_a_text_begins_and_ends_as_its_model_was_trained(
    opened: Opener, kind: str, frame: tuple[list[int], list[int]]
) -> None:
    embedder, (begin, end) = opened(kind), frame
    tokens = embedder.tokenize(TEXT)
    assert tokens == [*begin, *embedder.tokenizer.tokenize(TEXT), *end]
    assert len(tokens) > len(begin) + len(end)


@pytest.mark.parametrize("kind", ["qwen3", "gemma3"])
def test_a_text_read_in_parts_has_the_vector_of_the_whole(opened: Opener, kind: str) -> None:
    parts, whole = opened(kind, together=64, room=64), opened(kind, room=608, together=608)
    text = (whole.tokenize(TEXT) * 40)[:590]
    one, other = parts.embed([text, whole.tokenize(OTHER)]), whole.embed([text, whole.tokenize(OTHER)])
    # Flash attention adds in another order where the cells were filled in parts.
    assert cosine(one[0], other[0]) == pytest.approx(1, abs=1e-4)
    assert cosine(one[1], other[1]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", ["bert", "bert-mean", "llama-embed", "qwen3-mean", "t5encoder"])
def test_the_longest_text_fits_into_one_batch(opened: Opener, kind: str) -> None:
    embedder = opened(kind)
    text = (embedder.tokenize(TEXT) * 100)[:600]
    [long], [again] = embedder.embed([text]), embedder.embed([text])
    assert long == again


def test_more_texts_than_sequences_keep_their_order(opened: Opener) -> None:
    embedder = opened("bert", sequences=4)
    texts = [embedder.tokenize(" ".join(["cat"] * (1 + n))) for n in range(11)]
    found = embedder.embed(texts)
    for text, vector in zip(texts, found, strict=True):
        assert cosine(embedder.embed([text])[0], vector) == pytest.approx(1, abs=1e-5)


def test_a_shortened_vector_is_the_beginning_of_the_whole_with_length_one(opened: Opener) -> None:
    embedder = opened("bert")
    [whole], [short] = (embedder.embed([embedder.tokenize(TEXT)], dimensions) for dimensions in (None, 8))
    scale = math.sqrt(math.fsum(number * number for number in whole[:8]))
    assert short.tolist() == pytest.approx([number / scale for number in whole[:8]], abs=1e-6)
    with pytest.raises(UsageError, match="between 1 and 64 dimensions are possible, not 65"):
        embedder.embed([embedder.tokenize(TEXT)], 65)


def test_a_shortened_text_keeps_its_end(opened: Opener) -> None:
    embedder = opened("bert", longest=6)
    tokens = embedder.tokenize(TEXT)
    assert embedder.shorten(tokens) == [*tokens[:5], 3]
    assert embedder.shorten(tokens[:4]) == tokens[:4]
    assert opened("gemma3", longest=6).shorten([1, 2, 3, 4, 5, 6, 7]) == [1, 2, 3, 4, 5, 6]


def test_texts_that_would_end_the_process_are_refused_before(opened: Opener) -> None:
    embedder = opened("bert")
    with pytest.raises(DoesNotFit, match="text 1 has 601 tokens, and the model embeds at most 600"):
        embedder.embed([[2, 3], [2] * 601])
    with pytest.raises(UsageError, match="text 0 has the token 99999"):
        embedder.embed([[99999]])
    assert embedder.embed([]) == []


def test_a_stop_ends_the_work_and_the_embedder_goes_on(opened: Opener) -> None:
    stop = Stop()
    embedder = opened("qwen3", Run(stop))
    text = embedder.tokenize(TEXT)
    [before] = embedder.embed([text])
    stop.set()
    with pytest.raises(Aborted):
        embedder.embed([text * 20])
    assert cosine(embedder.embed([text])[0], before) == pytest.approx(1, abs=1e-5)


def test_a_stop_in_the_middle_of_a_batch_is_heard(opened: Opener) -> None:
    stop = StopWhenAsked(after=10**9)
    embedder = opened("bert", Run(stop))
    text = (embedder.tokenize(TEXT) * 60)[:500]
    stop.after, stop.looked = 3, 0
    with pytest.raises(Aborted):
        embedder.embed([text])


def test_a_closed_embedder_says_so(opened: Opener) -> None:
    embedder = opened("bert")
    embedder.close()
    with pytest.raises(EngineFailed, match="already closed"):
        embedder.embed([[2, 3]])


def test_a_file_that_is_no_model_is_refused_with_the_engines_reason(tmp_path: Path) -> None:
    path = tmp_path / "no.gguf"
    path.write_bytes(b"GGUF")
    options = EmbedOptions("mean", in_parts=False, longest=64, together=64, room=64, sequences=2)
    with pytest.raises(EngineFailed, match="the engine cannot load it"):
        Embedder(path, options)
