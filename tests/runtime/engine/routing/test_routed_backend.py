"""Two models as one backend: who draws what, what the large one reads, and that caches of both hold the same texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.base.errors import Aborted
from runtime.base.events import Interrupted, SampleFinished
from runtime.base.types import SamplingParams
from runtime.engine.backend import Batch
from runtime.engine.engine import Engine
from runtime.engine.grammar import Grammar
from runtime.engine.likelihood import likelihoods
from runtime.engine.routing import RoutedBackend, RouteStatistics
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.llama import LlamaBackend, OpenOptions
from tests.fakes import FakeBackend, saying

PROMPT = "question:"
# Longer than what is read again without a look for another text that has it.
LONG = "a long preface, " * 20 + PROMPT


def request(sample: int = 0, prompt: str = PROMPT, params: SamplingParams | None = None) -> Request:
    return Request(Prompt(tuple(prompt.encode())), params or SamplingParams(), None, sample)


def unsure_behind(*letters: str) -> Callable[[list[int]], float]:
    """An entropy of 1 where the text ends with one of these letters, 0 elsewhere."""
    return lambda held: 1.0 if chr(held[-1]) in letters else 0.0


def pair(
    small: str, large: str, *, unsure: str, slots: int = 1, context: int = 1000
) -> tuple[FakeBackend, FakeBackend]:
    """The large and the small model, whose replies to a prompt they would write alone."""
    models = [FakeBackend(saying(each, after=PROMPT), slots=slots) for each in (large, small)]
    models[1].unsure = unsure_behind(*unsure)
    return models[0], models[1]


def test_the_large_model_draws_where_the_small_one_is_unsure() -> None:
    # Behind "c" the small model is unsure, and would have said "x".
    large, small = pair("abcx", "abcdef", unsure="cde")
    routed = RoutedBackend(large, small, 0.5)
    [completion] = Engine(routed).generate([request()])
    assert completion.answer == "abcdef"
    # a, b and c are of the small model, and the end behind "f", where it knows no better.
    assert routed.take_routes() == RouteStatistics(small=4, large=3)
    assert routed.take_routes() == RouteStatistics()


def test_a_sure_small_model_draws_alone() -> None:
    large, small = pair("abc", "xyz", unsure="")
    [completion] = Engine(RoutedBackend(large, small, 0.5)).generate([request()])
    assert (completion.answer, large.decoded) == ("abc", 0)


def test_an_entropy_at_the_threshold_is_sure_enough() -> None:
    large, small = pair("abc", "xyz", unsure=":abc")
    [completion] = Engine(RoutedBackend(large, small, 1.0)).generate([request()])
    assert completion.answer == "abc"


def test_the_large_model_reads_each_token_once() -> None:
    reply = "abcdefghij"
    large, small = pair(reply, reply, unsure=":acj")
    Engine(RoutedBackend(large, small, 0.5)).generate([request()])
    assert large.decoded == len(PROMPT) + len(reply)
    assert large.batches == [len(PROMPT), 1, 2, 7]


def test_samples_of_one_prompt_share_what_the_large_model_read() -> None:
    large, small = pair("abc", "abc", unsure="a", slots=4)
    done = Engine(RoutedBackend(large, small, 0.5)).generate([request(each, LONG) for each in range(4)])
    assert [each.answer for each in done] == ["abc"] * 4
    assert large.decoded == len(LONG) + 4 * len("a")


def test_a_prompt_stays_read_for_the_next_question() -> None:
    large, small = pair("abc", "abc", unsure="a")
    engine = Engine(RoutedBackend(large, small, 0.5))
    engine.generate([request(prompt=LONG)])
    before = large.decoded
    engine.generate([request(prompt=LONG + " " + PROMPT)])
    assert large.decoded - before < len(LONG) // 2


def test_without_room_for_the_large_model_the_small_one_goes_on() -> None:
    large, small = pair("abcx", "abcdef", unsure="cde")
    large.refuse_above = 3
    routed = RoutedBackend(large, small, 0.5)
    [completion] = Engine(routed).generate([request()])
    assert completion.answer == "abcx"
    assert routed.take_routes().large == 0


def test_texts_at_rest_make_room_in_the_large_model() -> None:
    large, small = pair("abc", "abc", unsure="a")
    engine = Engine(RoutedBackend(large, small, 0.5))
    engine.generate([request(prompt="1" * 40 + PROMPT)])
    large.refuse_above = 60
    [completion] = engine.generate([request(prompt="2" * 40 + PROMPT)])
    assert completion.answer == "abc"
    assert large.cells() <= 60


def test_an_abort_of_the_large_model_keeps_the_text_so_far() -> None:
    large, small = pair("abcx", "abcdef", unsure="cde")
    large.abort_after = 1
    engine = Engine(RoutedBackend(large, small, 0.5))
    events = [*engine.stream([request()])]
    [done] = [event.completion for event in events if isinstance(event, SampleFinished)]
    assert (done.answer, done.finish_reason) == ("abcd", "cancelled")
    assert any(isinstance(event, Interrupted) and isinstance(event.error, Aborted) for event in events)
    large.abort_after = None
    assert engine.generate([request()])[0].answer == "abcdef"


def test_a_grammar_holds_for_both_models() -> None:
    large, small = pair("abcx", "abcdef", unsure="c")
    grammar = replace(request(), grammar=Grammar("gbnf", "abq|abcz"))
    [completion] = Engine(RoutedBackend(large, small, 0.5)).generate([grammar])
    assert completion.answer == "abcz"


def test_statistics_are_those_of_the_model_that_drew() -> None:
    large, small = pair("ab", "ab", unsure="a")
    large.confidence, small.confidence = lambda held: 9.0, lambda held: 2.0
    [completion] = Engine(RoutedBackend(large, small, 0.5)).generate([request(params=SamplingParams(statistics=True))])
    assert [each.confidence for each in completion.statistics] == [2.0, 9.0]


def test_given_texts_are_scored_by_the_model_that_would_draw() -> None:
    large, small = pair("", "", unsure="ac")
    large.likelihood, small.likelihood = lambda held, token: -9.0, lambda held, token: -2.0
    [values] = likelihoods(Engine(RoutedBackend(large, small, 0.5)), [*PROMPT.encode()], [b"abcd"])
    assert values == (-2.0, -9.0, -2.0, -9.0)


def test_nothing_is_saved() -> None:
    routed = RoutedBackend(*pair("a", "a", unsure=""), 0.5)
    batch = Batch()
    batch.add([1, 2, 3], 0, 0, output=True)
    routed.decode(batch)
    assert routed.save(0) is None
    assert not routed.load(0, b"")
    assert not routed.can_graft


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("decode"), st.integers(0, 3), st.integers(1, 100)),
            st.tuples(st.just("fork"), st.integers(0, 3), st.integers(0, 3)),
            st.tuples(st.just("trim"), st.integers(0, 3), st.integers(0, 100)),
        ),
        max_size=40,
    ),
    st.sampled_from([None, 0, 5]),
    st.integers(40, 400),
)
def test_the_large_model_reads_a_beginning_of_each_text(
    steps: list[tuple[str, int, int]], goes_back: int | None, room: int
) -> None:
    large = FakeBackend(lambda held, seed: 0, slots=4, sequences=5, batch_size=128, goes_back=goes_back)
    small = FakeBackend(lambda held, seed: 0, slots=4, sequences=5, batch_size=128)
    large.refuse_above = room
    small.unsure = lambda held: float(held[-1] % 2)
    routed = RoutedBackend(large, small, 0.5)
    for number, (what, slot, amount) in enumerate(steps):
        if what == "decode":
            batch = Batch()
            tokens = [(number * 7 + each) % 256 for each in range(amount)]
            if small.cells() + amount > 900:
                continue
            batch.add(tokens, len(small.held(slot)), slot, output=True)
            routed.decode(batch)
            assert large.held(slot) in ([], small.held(slot)) or tokens[-1] % 2 == 0
        elif what == "fork" and slot != amount:
            routed.fork(slot, amount)
        elif what == "trim":
            routed.trim(slot, min(amount, len(small.held(slot))))
        for each in range(4):
            read = large.held(each)
            assert read == small.held(each)[: len(read)]


@pytest.mark.parametrize("slots", [1, 4])
def test_a_model_routed_to_itself_says_what_it_says_alone(nano_path: Path, slots: int) -> None:
    options = OpenOptions(context=2048, slots=slots)
    text = "<|User|>What is 12 * 15?<|Assistant|><think>\n"
    with LlamaBackend(nano_path, options) as large, LlamaBackend(nano_path, options) as small:
        prompt = Prompt(tuple(large.tokenize(text, add_bos=True)))
        params = SamplingParams(temperature=0, max_tokens=60)
        requests = [Request(prompt, params, None, each) for each in range(slots)]
        alone = Engine(large, reproducible=True).generate(requests)
        for threshold, share in ((1e9, 0.0), (-1.0, 1.0)):
            routed = RoutedBackend(large, small, threshold)
            for slot in range(routed.sequences):
                routed.trim(slot, 0)
            together = Engine(routed).generate(requests)
            assert [each.tokens for each in together] == [each.tokens for each in alone]
            drawn = routed.take_routes()
            assert drawn.large / (drawn.large + drawn.small) == share


@pytest.mark.parametrize("kind", ["mamba", "granitehybrid", "gemma3"])
def test_a_recurrent_large_model_reads_the_text_of_the_small_one(
    nano_path: Path, hybrid_path: Callable[[str], Path], kind: str
) -> None:
    options = OpenOptions(context=2048, slots=2)
    with LlamaBackend(hybrid_path(kind), options) as large, LlamaBackend(nano_path, options) as small:
        tokens = large.tokenize(" the sum of two numbers" * 20)
        params = SamplingParams(temperature=0, max_tokens=20)
        requests = [Request(Prompt(tuple(tokens)), params, None, each) for each in range(2)]
        alone = Engine(large, reproducible=True).generate(requests)
        for slot in range(large.sequences):
            large.trim(slot, 0)
        together = Engine(RoutedBackend(large, small, -1.0)).generate(requests)
    assert [each.tokens for each in together] == [each.tokens for each in alone]
