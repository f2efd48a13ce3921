"""The loop, with a fake model: what is decoded, what is drawn, and how samples come and go."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from runtime.base.errors import DoesNotFit, Incompatible, WeightsLost
from runtime.base.events import Interrupted, Notice, SampleFinished, TextDrawn
from runtime.base.types import Completion, SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.markers import ThinkingMarkers
from runtime.engine.sequence import Demand, Request
from runtime.engine.template import Prompt
from tests.fakes import END, FakeBackend, logprobs, saying

PROMPT = "Question? "
TAGS = ThinkingMarkers("<think>", "</think>")


def requests(count: int = 1, prompt: str = PROMPT, **fields: object) -> list[Request]:
    params = fields.pop("params", SamplingParams())
    read = Prompt(tuple(prompt.encode()), bool(fields.pop("starts_in_thought", False)))
    return [
        Request(read, params, sample=sample, **fields)  # type: ignore[arg-type]
        for sample in range(count)
    ]


def one(backend: FakeBackend, **fields: object) -> Completion:
    [completion] = Engine(backend).generate(requests(**fields))
    return completion


def test_an_answer_is_drawn_until_the_end_token() -> None:
    completion = one(FakeBackend(saying("Forty-two.", after="? ")))
    assert completion.answer == "Forty-two."
    assert completion.thinking == ""
    assert completion.finish_reason == "stop"
    assert bytes(completion.tokens) == b"Forty-two."


def test_the_prompt_is_decoded_once_for_eight_samples() -> None:
    backend = FakeBackend(saying(*"abcdefgh", after="? "), slots=8)
    completions = Engine(backend).generate(requests(8))
    assert [c.answer for c in completions] == list("abcdefgh")
    # The prompt but its last token once; the last token and the one drawn letter for each sample.
    assert backend.decoded == (len(PROMPT) - 1) + 8 * 2
    assert {c.slots for c in completions} == {8}


def test_a_completion_tells_when_its_first_token_came_and_how_long_it_took() -> None:
    clock = itertools.count(100.0, 10.0).__next__  # it is read when the request leaves the queue, and so on
    engine = Engine(FakeBackend(saying("yes", after="? ")), now=clock)
    [completion] = engine.generate(requests())
    assert completion.first_token_seconds == 20.0
    assert completion.seconds == 20.0
    assert completion.latency == 30.0


def test_seeds_are_the_base_and_the_sample_number() -> None:
    backend = FakeBackend(saying("zero", "one", "two", "three", after="? "), slots=4)
    completions = Engine(backend).generate(requests(3, params=SamplingParams(seed=1)))
    assert [c.answer for c in completions] == ["one", "two", "three"]


def test_a_finished_sample_leaves_and_a_waiting_one_enters() -> None:
    backend = FakeBackend(saying("a", "bbbbbbbb", "c", "d", after="? "), slots=2)
    finished = [e.completion.sample for e in Engine(backend).stream(requests(4)) if isinstance(e, SampleFinished)]
    assert finished == [0, 2, 3, 1]
    assert max(backend.batches[1:]) == 2


def test_different_prompts_share_what_they_have_in_common() -> None:
    backend = FakeBackend(lambda held, _: held[-2] if held[-1] == ord("?") else 256, slots=2)
    prompts = ["same beginning a?", "same beginning b?"]
    asked = [Request(Prompt(tuple(p.encode())), SamplingParams(), sample=n) for n, p in enumerate(prompts)]
    assert [c.answer for c in Engine(backend).generate(asked)] == ["a", "b"]
    assert backend.decoded == len("same beginning ") + 2 * len("a?") + 2


def test_a_second_question_reuses_the_common_beginning() -> None:
    backend = FakeBackend(saying("x", after="? "))
    engine = Engine(backend)
    engine.generate(requests(prompt="A long system prompt. First? "))
    before = backend.decoded
    engine.generate(requests(prompt="A long system prompt. Other? "))
    assert backend.decoded - before == len("Other? ") + len("x")


def test_reproducible_never_reuses() -> None:
    backend = FakeBackend(saying("x", after="? "))
    engine = Engine(backend, reproducible=True)
    engine.generate(requests())
    before = backend.decoded
    engine.generate(requests())
    assert backend.decoded - before == len(PROMPT) + len("x")


def test_a_long_prompt_is_read_in_batches() -> None:
    backend = FakeBackend(saying("x", after="? "), batch_size=4)
    assert one(backend, prompt="0123456789? ").answer == "x"
    assert backend.batches == [4, 4, 3, 1, 1]


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers() -> None:
    with pytest.raises(
        DoesNotFit, match="the prompt is 10 tokens long, and 10 is the most for a prompt with its answer"
    ):
        one(FakeBackend(saying("x", after="? "), context=10))


def test_the_end_of_the_context_ends_the_sample_by_length() -> None:
    completion = one(FakeBackend(saying("x" * 100, after="? "), context=len(PROMPT) + 5))
    assert completion.finish_reason == "length"
    # The last token drawn needs no cell of its own.
    assert len(completion.tokens) == 6


def test_a_prompt_longer_than_the_model_reaches_is_refused_whatever_the_context() -> None:
    with pytest.raises(DoesNotFit, match="the prompt is 10 tokens long, and 10 is the most") as caught:
        one(FakeBackend(saying("x", after="? "), context=1000, reach=10))
    assert caught.value.hint == "shorten the prompt"


@pytest.mark.parametrize("slots", [1, 3])
def test_every_sample_ends_where_the_model_reaches_no_farther(slots: int) -> None:
    # The fake refuses positions beyond its reach.
    backend = FakeBackend(saying("x" * 100, after="? "), slots=slots, context=1000, reach=len(PROMPT) + 5)
    completions = Engine(backend).generate(requests(slots))
    assert [(c.finish_reason, len(c.tokens)) for c in completions] == [("length", 6)] * slots


def test_a_thought_that_is_closed_by_force_stays_within_the_reach_of_the_model() -> None:
    params = SamplingParams(think_budget=3)
    backend = FakeBackend(saying("<think>" + "x" * 100, after="? "), context=1000, reach=len(PROMPT) + 12)
    completion = one(backend, params=params, markers=ThinkingMarkers("<think>", "</think>"))
    assert completion.finish_reason == "length"


def test_the_token_limit_ends_the_sample_by_length() -> None:
    completion = one(FakeBackend(saying("x" * 100, after="? ")), params=SamplingParams(max_tokens=7))
    assert completion.answer == "x" * 7
    assert completion.finish_reason == "length"


def test_no_room_for_all_makes_smaller_waves_with_the_same_answers() -> None:
    replies = [letter * 20 for letter in "abcdefgh"]
    backend = FakeBackend(saying(*replies, after="? "), slots=8, context=len(PROMPT) + 50)
    completions = Engine(backend).generate(requests(8))
    assert [c.answer for c in completions] == replies
    assert {c.finish_reason for c in completions} == {"stop"}


def test_a_refusal_of_the_engine_itself_makes_smaller_waves_too() -> None:
    replies = [letter * 20 for letter in "abcd"]
    backend = FakeBackend(saying(*replies, after="? "), slots=4)
    backend.refuse_above = len(PROMPT) + 45
    assert [c.answer for c in Engine(backend).generate(requests(4))] == replies


def test_an_abort_keeps_what_was_said() -> None:
    backend = FakeBackend(saying("abcdefgh", "abcdefgh", after="? "), slots=1)
    backend.abort_after = 4
    first, second = Engine(backend).generate(requests(2))
    assert (first.answer, first.finish_reason) == ("abc", "cancelled")
    assert (second.answer, second.finish_reason) == ("", "cancelled")
    assert backend.cells() == len(PROMPT) - 1


def test_an_abort_while_the_prompt_is_read_leaves_the_engine_usable() -> None:
    backend = FakeBackend(saying("x", after="? "), batch_size=4)
    engine = Engine(backend)
    backend.abort_after = 1
    [completion] = engine.generate(requests())
    assert completion.finish_reason == "cancelled"
    backend.abort_after = None
    [completion] = engine.generate(requests())
    assert completion.answer == "x"


def test_weights_that_are_lost_end_the_samples_with_their_text_and_are_raised() -> None:
    backend = FakeBackend(saying("abcdefgh", after="? "))
    backend.abort_after, backend.abort_with = 4, WeightsLost("the file changed")
    engine = Engine(backend)
    *_, finished, interrupted = engine.stream(requests())
    assert isinstance(finished, SampleFinished) and finished.completion.answer == "abc"
    assert interrupted == Interrupted(backend.abort_with)
    with pytest.raises(WeightsLost, match="the file changed"):
        engine.generate(requests())


def test_closing_the_stream_frees_every_slot() -> None:
    backend = FakeBackend(saying("abcdef", after="? "), slots=2)
    engine = Engine(backend)
    stream = engine.stream(requests(2))
    for event in stream:
        if isinstance(event, TextDrawn):
            break
    stream.close()  # type: ignore[attr-defined]
    assert backend.cells() == len(PROMPT) - 1
    assert not engine.busy
    assert [each.answer for each in engine.generate(requests(2))] == ["abcdef", "abcdef"]


def test_thought_and_answer_are_told_apart() -> None:
    backend = FakeBackend(saying("I add.\n</think>\n\nFive.", after="<think>\n"))
    completion = one(backend, prompt="2+3? <think>\n", markers=TAGS, starts_in_thought=True)
    assert (completion.thinking, completion.answer) == ("I add.", "Five.")
    assert completion.thought_closed_by == "model"
    assert completion.thinking_tokens + completion.answer_tokens == len(completion.tokens)


def test_a_thinking_budget_closes_the_thought_and_nothing_leaks() -> None:
    def speak(held: list[int], _: int) -> int:
        text = bytes(held)
        if text.endswith(b"</think>\n\n"):
            return ord("A")
        return 256 if text.endswith(b"A") else ord("x")

    backend = FakeBackend(speak)
    completion = one(
        backend, prompt="? <think>\n", markers=TAGS, starts_in_thought=True, params=SamplingParams(think_budget=20)
    )
    assert completion.thinking == "x" * 20
    assert completion.thinking_tokens == 20
    assert completion.answer == "A"
    assert completion.thought_closed_by == "budget"
    assert bytes(completion.tokens) == b"x" * 20 + b"\n</think>\n\nA"


def test_a_budget_of_nothing_closes_the_thought_before_it_begins() -> None:
    def speak(held: list[int], _: int) -> int:
        return ord("A") if bytes(held).endswith(b"<think>\n\n</think>\n\n") else 256

    completion = one(
        FakeBackend(speak),
        prompt="? <think>\n",
        markers=TAGS,
        starts_in_thought=True,
        params=SamplingParams(think_budget=0),
    )
    assert (completion.thinking, completion.answer) == ("", "A")


def test_a_budget_waits_for_the_end_of_a_character() -> None:
    reply = "ééééé"

    def speak(held: list[int], _: int) -> int:
        text = bytes(held)
        if b"</think>" in text:
            return 256
        said = text.split(b"<think>\n")[1]
        return reply.encode()[len(said)]

    completion = one(
        FakeBackend(speak),
        prompt="? <think>\n",
        markers=TAGS,
        starts_in_thought=True,
        params=SamplingParams(think_budget=3),
    )
    assert completion.thinking == "éé"
    assert completion.thinking_tokens == 4


def says(reply: str) -> FakeBackend:
    """Says the reply after a prompt that ends in "<think>\\n", and ends."""

    def speak(held: list[int], _: int) -> int:
        said = len(bytes(held).split(b"<think>\n", 1)[1])
        return reply.encode()[said] if said < len(reply) else 256

    return FakeBackend(speak)


def test_a_budget_waits_for_the_decision_about_a_mark_that_may_have_closed_the_thought() -> None:
    completion = one(
        says("```\nx</think>\nYes, yes.\n```b\ny\n```"),
        prompt="? <think>\n",
        markers=TAGS,
        starts_in_thought=True,
        params=SamplingParams(think_budget=16),
    )
    assert (completion.thinking, completion.thought_closed_by) == ("```\nx", "model")
    assert completion.answer == "Yes, yes.\n```b\ny\n```"


def test_an_answer_that_was_taken_for_thought_is_found_when_the_reply_ends() -> None:
    completion = one(
        says("```\nx</think>\nSo:\n```\ny\n```\nDone."), prompt="? <think>\n", markers=TAGS, starts_in_thought=True
    )
    assert (completion.thinking, completion.answer) == ("```\nx", "So:\n```\ny\n```\nDone.")
    assert completion.thought_closed_by == "model"


def round_and_round(held: list[int], _: int) -> int:
    return b"round "[len(held) % 6]


def test_an_answer_that_runs_in_circles_is_cut_where_that_is_wanted() -> None:
    [kept, cut] = [
        event.completion
        for wanted in (False, True)
        for event in Engine(FakeBackend(round_and_round, context=4000)).stream(
            requests(prompt="? ", params=SamplingParams(max_tokens=1000, end_loops=wanted))
        )
        if isinstance(event, SampleFinished)
    ]
    assert (kept.looped, kept.finish_reason, len(kept.tokens)) == (False, "length", 1000)
    assert (cut.looped, cut.finish_reason) == (True, "length")
    assert 320 <= len(cut.tokens) < 360


def test_a_thought_that_runs_in_circles_is_closed_and_said_so() -> None:
    def speak(held: list[int], _: int) -> int:
        text = bytes(held)
        if text.endswith(b"</think>\n\n"):
            return ord("A")
        return 256 if text.endswith(b"A") else b"round "[len(text) % 6]

    events = list(
        Engine(FakeBackend(speak, context=4000)).stream(
            requests(prompt="? <think>\n", markers=TAGS, starts_in_thought=True)
        )
    )
    [completion] = [e.completion for e in events if isinstance(e, SampleFinished)]
    assert completion.thought_closed_by == "loop"
    assert completion.answer == "A"
    assert [e.text for e in events if isinstance(e, Notice)] == ["the thought repeated itself and was closed"]


def test_a_stop_string_ends_the_answer_before_it() -> None:
    completion = one(FakeBackend(saying("one two three", after="? ")), params=SamplingParams(stop=(" three",)))
    assert (completion.answer, completion.finish_reason) == ("one two", "stop")
    assert completion.stop_string == " three"


def test_a_possible_stop_string_that_was_none_is_given_out_at_the_end() -> None:
    completion = one(FakeBackend(saying("one thr", after="? ")), params=SamplingParams(stop=(" three",)))
    assert (completion.answer, completion.finish_reason) == ("one thr", "stop")
    assert completion.stop_string == ""


def test_text_is_never_cut_inside_a_character() -> None:
    events = Engine(FakeBackend(saying("añ🙂b", after="? "))).stream(requests())
    assert [e.text for e in events if isinstance(e, TextDrawn)] == ["a", "ñ", "🙂", "b"]


def test_an_end_token_inside_the_thought_leaves_no_answer() -> None:
    completion = one(
        FakeBackend(saying("hmm", after="<think>\n")), prompt="? <think>\n", markers=TAGS, starts_in_thought=True
    )
    assert (completion.thinking, completion.answer, completion.finish_reason) == ("hmm", "", "stop")


def test_logprobs_are_there_when_asked_for() -> None:
    completion = one(FakeBackend(saying("abc", after="? ")), params=SamplingParams(statistics=True))
    assert logprobs(completion) == (-0.5, -0.5, -0.5)
    assert one(FakeBackend(saying("abc", after="? "))).statistics == ()


def test_a_cancelled_sample_ends_at_once_and_one_that_waits_never_starts() -> None:
    backend = FakeBackend(saying("abcdefgh", after="? "), slots=2)
    engine = Engine(backend)
    ended = []
    for event in engine.stream(requests(count=3)):
        if isinstance(event, TextDrawn) and event.text == "b" and event.sample == 0:
            engine.cancel([1, 2])
        if isinstance(event, SampleFinished):
            ended.append((event.completion.sample, event.completion.finish_reason, event.completion.answer))
    assert sorted(ended) == [(0, "stop", "abcdefgh"), (1, "cancelled", "ab"), (2, "cancelled", "")]
    assert backend.cells() == len(PROMPT) - 1  # the prompt is kept, and nothing else


def test_a_wish_to_cancel_does_not_outlive_its_stream() -> None:
    engine = Engine(FakeBackend(saying("abc", after="? ")))
    engine.cancel([0])
    assert engine.generate(requests())[0].answer == "abc"


def test_a_sample_that_is_less_sure_than_demanded_is_cut() -> None:
    backend = FakeBackend(saying("abcdefgh", after="? "))
    backend.confidence = lambda held: 5.0 if len(held) < len(PROMPT) + 4 else 1.0  # from the fifth token on
    params = SamplingParams(statistics=True)
    [wanted] = requests(params=params)
    completion = Engine(backend).generate([replace(wanted, demand=Demand(4.0, window=3))])[0]
    # Means of three: 5, 5, 3.7: the fifth token is the first below 4.
    assert (completion.finish_reason, completion.answer) == ("cut", "abcde")
    completion = Engine(backend).generate([replace(wanted, demand=Demand(0.5, window=3))])[0]
    assert (completion.finish_reason, completion.answer) == ("stop", "abcdefgh")


SHORT_TAGS = ThinkingMarkers("<t>", "</t>")
CLOSE = 300


def always_closing() -> FakeBackend:
    """Thinks "hmm" and closes its thought with one token, as often as it is let; then answers 7."""

    def speak(held: list[int], _: int) -> int:
        said = held[held.index(ord("\n")) + 1 :]
        if CLOSE in said:
            return END if said[-1] == ord("7") else ord("7")
        return CLOSE if len(said) % 7 == 3 else b"hmm"[len(said) % 7]  # "hmm", "hmmWaithmm", ...

    backend = FakeBackend(speak)
    backend.specials = {"</t>": CLOSE}
    return backend


def test_the_end_of_a_thought_is_replaced_as_often_as_asked() -> None:
    for extensions, thought in ((0, "hmm"), (1, "hmmWaithmm"), (2, "hmmWaithmmWaithmm")):
        params = SamplingParams(extensions=extensions, statistics=True)
        completion = one(
            always_closing(),
            prompt="? <t>\n",
            markers=SHORT_TAGS,
            starts_in_thought=True,
            params=params,
        )
        assert (completion.thinking, completion.answer) == (thought, "7")
        assert completion.thinking_tokens == len(thought)
        assert len(completion.statistics) == len(completion.tokens)
        assert sum(each.logprob != each.logprob for each in completion.statistics) == 4 * extensions


def test_a_spent_budget_is_not_extended() -> None:
    params = SamplingParams(extensions=5, think_budget=8)
    completion = one(
        always_closing(),
        prompt="? <t>\n",
        markers=SHORT_TAGS,
        starts_in_thought=True,
        params=params,
    )
    assert completion.thinking == "hmmWaith"
    assert completion.thought_closed_by == "budget"


def test_thoughts_that_end_with_several_tokens_cannot_be_extended() -> None:
    backend = FakeBackend(saying("x", after="? "))
    with pytest.raises(Incompatible, match="cannot be extended"):
        one(backend, params=SamplingParams(extensions=1), markers=TAGS)
