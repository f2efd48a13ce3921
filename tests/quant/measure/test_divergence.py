"""Perplexity and divergence: literal numbers with made-up models, then the embedded model."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from quant.measure import texts
from quant.measure.chunks import ChunkOptions, Text
from quant.measure.divergence import Base, Estimate, compare, perplexity, summarize
from runtime.base.errors import Aborted, DoesNotFit, EngineFailed, Incompatible, UsageError
from runtime.base.events import Event, Progress
from runtime.base.run import Run, Stop

PROBLEMS = Path(texts.__file__).parent / "calibration" / "problems.txt"


class FakeModel:
    """A model whose logits for the next token depend on the last token alone: one row per token."""

    first_token: int | None = None

    def __init__(self, table: Sequence[Sequence[float]], block: int = 5) -> None:
        self._table, self._block = np.array(table, np.float32), block
        self.vocab_size = self._table.shape[1]

    def tokenize(self, text: str, *, add_bos: bool = False) -> list[int]:
        return [int(letter) for letter in text]

    def score(self, tokens: Sequence[int], first: int = 0) -> Iterator[NDArray[np.float32]]:
        for start in range(first, len(tokens), self._block):
            yield self._table[list(tokens[start : start + self._block])]


def logs(*probabilities: float) -> list[float]:
    return [math.log(p) for p in probabilities]


ALTERNATING = [Text("t", "01" * 16)]


def recorded(model: FakeModel, texts: Sequence[Text] = ALTERNATING, limit: int | None = None) -> Base:
    base = Base()
    base.record(model, texts, ChunkOptions(context=16, limit=limit))
    return base


def test_perplexity_of_a_model_that_knows_nothing_is_its_vocabulary() -> None:
    with recorded(FakeModel([[3.0] * 4] * 4)) as base:
        assert base.perplexity.value == pytest.approx(4)
        assert base.perplexity.error == pytest.approx(0)


def test_the_second_half_of_each_chunk_is_scored() -> None:
    """Of a chunk of 16 the tokens 9 to 15 are predicted, from the logits of the tokens 8 to 14."""
    # After 0 comes 1 with 1/2, after 1 comes 0 with 1/8; from 8 (a 0) on that is 4 and 3 times.
    model = FakeModel([logs(0.5, 0.5), logs(0.125, 0.875)])
    with recorded(model, limit=1) as base:
        assert base.perplexity.value == pytest.approx(math.exp((4 * math.log(2) + 3 * math.log(8)) / 7))
        assert base.compare(model).tokens == 7


def test_whole_texts_are_scored_from_their_first_token_on() -> None:
    """Two texts of 17 and 19 tokens: 16 and 18 have a next one. Chunks of 16 would drop the ends."""
    model = FakeModel([logs(0.5, 0.5), logs(0.125, 0.875)])
    with Base() as base:
        base.record(model, [Text("t", "01" * 8 + "0"), Text("t", "01" * 9 + "0")], ChunkOptions(32, whole=True))
        assert [len(part) for part in base.parts] == [17, 19]
        # After each 0 comes a 1 with 1/2, after each 1 a 0 with 1/8.
        assert base.perplexity.value == pytest.approx(math.exp((17 * math.log(2) + 17 * math.log(8)) / 34))
        assert base.compare(model).tokens == 34


def test_a_whole_text_that_is_longer_than_the_context_is_read_in_pieces() -> None:
    model = FakeModel([logs(0.5, 0.5), logs(0.125, 0.875)])
    with Base() as base:
        base.record(model, [Text("t", "01" * 24)], ChunkOptions(32, whole=True))
        assert [len(part) for part in base.parts] == [32, 16]


def test_logits_in_blocks_of_any_size_give_the_same() -> None:
    table = [logs(0.5, 0.5), logs(0.125, 0.875)]
    values = []
    for block in (1, 3, 7, 100):
        with recorded(FakeModel(table, block)) as base:
            values.append(base.perplexity.value)
    assert values == pytest.approx([values[0]] * 4)


def test_divergence_is_that_of_the_formula() -> None:
    base_table, table = [logs(0.5, 0.5)] * 2, [logs(0.25, 0.75)] * 2
    with recorded(FakeModel(base_table)) as base:
        report = base.compare(FakeModel(table))
    wanted = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert report.kld.value == pytest.approx(wanted, abs=1e-6)
    assert report.kld_percentiles == pytest.approx([wanted] * 6, abs=1e-6)
    assert report.base_perplexity.value == pytest.approx(2)
    # Of 14 scored tokens 8 are a 1, which now has 3/4, and 6 a 0, which has 1/4.
    assert report.perplexity.value == pytest.approx(math.exp((8 * -math.log(0.75) + 6 * -math.log(0.25)) / 14))
    assert report.log_ratio.value == pytest.approx(math.log(report.perplexity.value / 2))
    assert report.tokens == 14


def test_logits_may_be_shifted_by_any_number() -> None:
    with recorded(FakeModel([[7.0, 8.0, 9.0]] * 3)) as base:
        report = base.compare(FakeModel([[-93.0, -92.0, -91.0]] * 3))
    assert report.kld.value == pytest.approx(0, abs=1e-6)
    assert report.same_top == Estimate(1.0, 0.0)


def test_agreement_on_the_top_token_is_counted() -> None:
    with recorded(FakeModel([logs(0.6, 0.4), logs(0.6, 0.4)])) as base:
        report = base.compare(FakeModel([logs(0.4, 0.6), logs(0.6, 0.4)]))
    assert report.same_top.value == pytest.approx(6 / 14)


def test_a_token_that_cannot_be_does_not_make_the_divergence_infinite() -> None:
    impossible = [[0.0, -np.inf]] * 2
    text = [Text("t", "0" * 16)]
    with recorded(FakeModel(impossible), text) as base:
        assert base.compare(FakeModel([[0.0, -1e30]] * 2)).kld.value == pytest.approx(0)


def test_the_report_has_standard_errors() -> None:
    base, now = np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 4.0])
    report = summarize(base, now, np.array([0.0, 0.2, 0.4]), np.array([True, True, False]))
    assert report.base_perplexity == Estimate(pytest.approx(math.exp(2)), pytest.approx(math.exp(2) / math.sqrt(3)))
    assert report.log_ratio == Estimate(pytest.approx(1.0), pytest.approx(1 / math.sqrt(3)))
    assert report.kld == Estimate(pytest.approx(0.2), pytest.approx(0.2 / math.sqrt(3)))
    assert report.same_top == Estimate(pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert report.kld_percentiles == pytest.approx((0.2, 0.36, 0.38, 0.396, 0.3996, 0.4))


def test_what_the_file_rounds_away_is_below_a_millionth() -> None:
    random = np.random.default_rng(1)
    table = random.normal(0, 4, (4, 50_000))
    model = FakeModel(table.tolist())
    with recorded(model, [Text("t", "0123" * 4)]) as base:
        assert 0 <= base.compare(model).kld.value < 1e-6
        # and a real divergence is true to a thousandth part.
        other = table + random.normal(0, 0.1, table.shape)
        found = base.compare(FakeModel(other.tolist())).kld.value
    p = np.exp(table - np.logaddexp.reduce(table, axis=1, keepdims=True))
    each = (p * (np.log(p) - other + np.logaddexp.reduce(other, axis=1, keepdims=True))).sum(axis=1)
    wanted = each[[0, 1, 2, 3, 0, 1, 2]].mean()
    assert found == pytest.approx(wanted, rel=1e-3)


def test_one_base_serves_several_models() -> None:
    model = FakeModel([logs(0.5, 0.5)] * 2)
    with recorded(model) as base:
        reports = [base.compare(FakeModel([logs(0.25, 0.75)] * 2)) for _ in range(2)]
        assert reports[0] == reports[1]


def test_models_with_different_vocabularies_cannot_be_compared() -> None:
    with recorded(FakeModel([[0.0, 0.0]] * 2)) as base, pytest.raises(Incompatible, match=r"3 tokens .* its base 2"):
        base.compare(FakeModel([[0.0] * 3] * 2))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_output_that_is_no_number_is_an_error(value: float) -> None:
    with Base() as base, pytest.raises(EngineFailed, match="not finite"), np.errstate(invalid="ignore"):
        base.record(FakeModel([[value, 0.0]] * 2), ALTERNATING, ChunkOptions(context=16))


class Usage(NamedTuple):
    free: int


def test_a_disk_without_room_is_noticed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    # 2 chunks with 7 scored tokens each, 2 entries of 2 bytes.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(55))
    with Base() as base, pytest.raises(DoesNotFit, match="takes 56 B, and 55 B are free"):
        base.record(FakeModel([[0.0, 0.0]] * 2), ALTERNATING, ChunkOptions(context=16))


def test_nothing_is_left_in_the_folder(tmp_path: Path) -> None:
    with Base(tmp_path) as base:
        base.record(FakeModel([[0.0, 0.0]] * 2), ALTERNATING, ChunkOptions(context=16))
    assert list(tmp_path.iterdir()) == []


def test_too_little_text_is_refused() -> None:
    with Base() as base, pytest.raises(UsageError, match="the text has 32 tokens, and one chunk has 64"):
        base.record(FakeModel([[0.0, 0.0]] * 2), ALTERNATING, ChunkOptions(context=64))


def problems() -> list[Text]:
    return [Text("problems.txt", PROBLEMS.read_text(encoding="utf-8").removesuffix("\n"))]


def test_the_embedded_model_has_the_perplexity_that_llama_perplexity_finds(nano_path: Path) -> None:
    """llama-perplexity -m nano.gguf -f calibration/problems.txt -c 256 -b 256 --chunks 4"""
    found, tokens = perplexity(nano_path, problems(), ChunkOptions(context=256, limit=4), Run(threads=1))
    assert (found.value, found.error) == (pytest.approx(336.0495, rel=0.02), pytest.approx(87.76071, rel=0.02))
    assert tokens == 4 * 127


def test_a_model_does_not_diverge_from_itself(nano_path: Path) -> None:
    events: list[Event] = []
    report = compare(
        nano_path, nano_path, problems(), ChunkOptions(context=128, limit=2), Run(listen=events.append, threads=1)
    )
    assert abs(report.kld.value) < 1e-6
    assert report.perplexity == report.base_perplexity
    assert report.same_top == Estimate(1.0, 0.0)
    done = [(e.done, e.total) for e in events if isinstance(e, Progress) and e.job == "measuring"]
    assert done == [(128, 256), (256, 256)] * 2


def test_a_chunk_longer_than_a_batch_is_read_in_pieces(nano_path: Path) -> None:
    _, tokens = perplexity(nano_path, problems(), ChunkOptions(context=1536, limit=1), Run(threads=1))
    assert tokens == 767


def test_measuring_can_be_stopped(nano_path: Path) -> None:
    stop = Stop()

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.job == "measuring":
            stop.set()

    with pytest.raises(Aborted):
        perplexity(nano_path, problems(), ChunkOptions(context=64), Run(stop, listen, threads=1))
