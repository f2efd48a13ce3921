"""Log-probabilities of given continuations: with a fake model, and with the embedded one against llama-cpp-python."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from runtime.base.errors import Aborted, DoesNotFit, TooLong, UsageError
from runtime.base.events import SampleFinished
from runtime.base.types import SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.likelihood import likelihoods
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.llama import LlamaBackend, OpenOptions
from runtime.llama.bindings import native
from runtime.llama.native import log
from tests.fakes import FakeBackend, saying
from tests.runtime.engine.speculation.drafting import Scripted

PROMPT = tuple(b"The capital of France is")
QUESTION = "What is 347 + 586?\n"


def by_place(held: list[int], token: int) -> float:
    """A value that tells the number of tokens before, and the token: -24.097 is an "a" behind 24 tokens."""
    return -len(held) - token / 1000


def fake(**kinds: object) -> FakeBackend:
    backend = FakeBackend(saying("yes", after="? "), **kinds)  # type: ignore[arg-type]
    backend.likelihood = by_place
    return backend


def test_each_token_is_scored_behind_the_prompt_and_the_tokens_before_it() -> None:
    assert likelihoods(Engine(fake()), PROMPT, [b"ab", b"c"]) == [(-24.097, -25.098), (-24.099,)]


def test_equal_and_empty_continuations() -> None:
    found = likelihoods(Engine(fake()), PROMPT, [b"a", b"", b"ab", b"a"])
    assert found == [(-24.097,), (), (-24.097, -25.098), (-24.097,)]
    assert likelihoods(Engine(fake()), PROMPT, []) == []


def test_the_prompt_is_computed_once_and_one_row_serves_all_single_tokens() -> None:
    backend = fake(slots=4)
    likelihoods(Engine(backend), PROMPT, [b"a", b"b", b"c", b"d"])
    assert backend.decoded == len(PROMPT)


def test_the_tokens_of_a_continuation_share_batches_and_the_last_is_not_computed() -> None:
    backend = fake(slots=2)
    assert len(likelihoods(Engine(backend), PROMPT, [b"x" * 40, b"y" * 3])[0]) == 40
    assert backend.decoded == len(PROMPT) - 1 + 40 + 3
    # 17 rows of logits in a batch: the prompt, the short continuation with 14 tokens of the long one, then the rest.
    assert backend.batches == [len(PROMPT) - 1, 17, 17, 9]


def test_later_calls_begin_from_the_cached_prompt() -> None:
    backend = fake()
    engine = Engine(backend)
    likelihoods(engine, PROMPT, [b"a"])
    before = backend.decoded
    likelihoods(engine, PROMPT, [b"b"])
    assert backend.decoded == before + 1


@pytest.mark.parametrize("goes_back", [0, 4])
def test_recurrent_states_and_windows(goes_back: int) -> None:
    engine = Engine(fake(slots=2, goes_back=goes_back))
    found = likelihoods(engine, PROMPT, [b"abc", b"abd", b"x"])
    assert found == [(-24.097, -25.098, -26.099), (-24.097, -25.098, -26.1), (-24.12,)]


def test_a_sample_in_flight_goes_on_meanwhile() -> None:
    backend = fake(slots=2)
    engine = Engine(backend)
    heard: list[str] = []

    def listen(event: object) -> None:
        if isinstance(event, SampleFinished):
            heard.append(event.completion.answer)

    engine.submit(Request(Prompt(tuple(b"Really? ")), SamplingParams()), listen)
    engine.step()
    assert likelihoods(engine, PROMPT, [b"x" * 40]) == [tuple(by_place([0] * (24 + n), ord("x")) for n in range(40))]
    while engine.busy:
        engine.step()
    assert heard == ["yes"]


def test_nothing_is_drafted() -> None:
    drafter = Scripted(lambda text: [ord("x")])
    assert likelihoods(Engine(fake(), drafter=drafter), PROMPT, [b"a"]) == [(-24.097,)]
    assert drafter.text == []


def test_a_full_cache_makes_one_wait_for_the_other() -> None:
    engine = Engine(fake(slots=2, context=60))
    found = likelihoods(engine, PROMPT, [b"x" * 25, b"y" * 25])
    assert [len(each) for each in found] == [25, 25]
    assert found[1][-1] == by_place([0] * 48, ord("y"))


def test_a_text_that_is_too_long_is_refused() -> None:
    with pytest.raises(TooLong, match="the prompt is 64 tokens long"):
        likelihoods(Engine(fake(context=60)), PROMPT, [b"x" * 41])
    assert len(likelihoods(Engine(fake(context=64)), PROMPT, [b"x" * 40])[0]) == 40


def test_a_cache_without_room_is_told() -> None:
    backend = fake(context=60)
    backend.refuse_above = 40
    with pytest.raises(DoesNotFit, match="no room for a text of 54 tokens"):
        likelihoods(Engine(backend), PROMPT, [b"x" * 30])


def test_a_stop_ends_it() -> None:
    backend = fake()
    backend.abort_after = 1
    with pytest.raises(Aborted):
        likelihoods(Engine(backend), PROMPT, [b"x" * 30])


def test_a_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(UsageError, match="without tokens"):
        likelihoods(Engine(fake()), (), [b"a"])


def test_the_embedded_model_gives_the_logits_of_llama_cpp_python(nano_path: Path) -> None:
    import llama_cpp  # the package logs in its own way from here on

    native.llama_log_set(log._callback, None)
    texts = ["347 + 586 = 933, because 7 + 6 = 13", "It is Sunday.", "9"]

    def found(slots: int) -> list[tuple[float, ...]]:
        with LlamaBackend(nano_path, OpenOptions(context=512, slots=slots, threads=1)) as backend:
            tokens[:] = [backend.tokenize(each, add_bos=not number) for number, each in enumerate([QUESTION, *texts])]
            return likelihoods(Engine(backend), tokens[0], tokens[1:])

    tokens: list[list[int]] = []
    alone, together = found(slots=1), found(slots=2)
    reference = llama_cpp.Llama(
        str(nano_path), n_ctx=512, n_threads=1, n_threads_batch=1, flash_attn=True, logits_all=True, verbose=False
    )
    try:
        prompt, *continuations = tokens
        for number, continuation in enumerate(continuations):
            reference.reset()
            reference.eval([*prompt, *continuation])
            rows = reference.scores[len(prompt) - 1 : len(prompt) + len(continuation) - 1].astype(np.float64)
            expected = [
                row[token] - row.max() - math.log(np.exp(row - row.max()).sum())
                for row, token in zip(rows, continuation, strict=True)
            ]
            assert alone[number] == pytest.approx(expected, abs=1e-4)
            # In company attention sums in another order, and rounding of activations makes more of that.
            assert sum(together[number]) == pytest.approx(sum(expected), abs=0.03 * len(expected))
    finally:
        reference.close()
