"""Samples with a grammar, drawn by the engine from a fake model. The fake's grammar is a list of whole answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runtime.base.errors import UsageError
from runtime.base.events import Event, Notice, TextDrawn, ThoughtEnded, TokenDrawn
from runtime.base.types import Completion, SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.grammar import Grammar
from runtime.engine.markers import HARMONY, ThinkingMarkers
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from tests.fakes import FakeBackend, saying

ASKED = "Question? "
THINK = ThinkingMarkers("<think>", "</think>", gap="", after="\n\n")
YES_NO = Grammar("regex", "yes|no|maybe so")


def request(grammar: Grammar = YES_NO, **changes: object) -> Request:
    prompt = Prompt(tuple(ASKED.encode()), text=ASKED)
    asked = {"markers": THINK, "params": SamplingParams(max_tokens=100), **changes}
    return Request(prompt, grammar=grammar, **asked)  # type: ignore[arg-type]


def backend(*replies: str, **options: object) -> FakeBackend:
    return FakeBackend(saying(*replies, after=ASKED), **options)  # type: ignore[arg-type]


def one(model: FakeBackend, asked: Request) -> Completion:
    (completion,) = Engine(model).generate([asked])
    return completion


def events(model: FakeBackend, asked: Request) -> list[Event]:
    return [*Engine(model).stream([asked])]


def in_thought(asked: Request) -> Request:
    return replace(asked, prompt=replace(asked.prompt, starts_in_thought=True))


def test_the_answer_is_one_that_the_grammar_allows() -> None:
    completion = one(backend("nope"), request())
    assert (completion.answer, completion.finish_reason) == ("no", "stop")


def test_a_grammar_that_is_complete_ends_the_sample_without_another_token() -> None:
    model = backend("yes and much more")
    completion = one(model, request())
    assert (completion.answer, completion.finish_reason, len(completion.tokens)) == ("yes", "stop", 3)
    assert model.decoded == len(ASKED) + 2


def test_the_last_token_that_is_allowed_stops_and_is_no_limit() -> None:
    completion = one(backend("yes"), request(params=SamplingParams(max_tokens=3)))
    assert (completion.answer, completion.finish_reason) == ("yes", "stop")
    completion = one(backend("yes"), request(params=SamplingParams(max_tokens=2)))
    assert (completion.answer, completion.finish_reason) == ("ye", "length")


def test_an_answer_that_may_end_ends_where_the_model_ends_it() -> None:
    completion = one(backend("no"), request(Grammar("regex", "no|no way")))
    assert (completion.answer, completion.finish_reason) == ("no", "stop")


def test_a_model_that_ends_too_early_goes_on() -> None:
    assert one(backend("ma"), request()).answer == "maybe so"


def test_the_thought_is_free() -> None:
    completion = one(backend("Is it? Yes, no...</think>\n\nyes"), in_thought(request()))
    assert (completion.thinking, completion.answer) == ("Is it? Yes, no...", "yes")
    assert completion.thought_closed_by == "model"


def test_a_model_may_open_a_thought_itself_and_the_rest_of_the_mark_is_written() -> None:
    completion = one(backend("<think>Hm.</think>\n\nno"), request())
    assert (completion.thinking, completion.answer, completion.finish_reason) == ("Hm.", "no", "stop")


def test_a_mark_that_is_one_token_opens_a_thought() -> None:
    model = backend("", slots=1)
    model.specials = {"<think>": 300, "</think>": 301}
    said = [300, *b"Hm.", 301, *b"\n\nno"]
    model._speak = lambda held, seed: said[len(held) - len(ASKED)] if len(held) - len(ASKED) < len(said) else 256
    markers = THINK.with_tokens(model.specials.__contains__)
    completion = one(model, request(markers=markers))
    assert (completion.thinking, completion.answer) == ("Hm.", "no")


def test_no_thought_opens_behind_a_closed_one() -> None:
    asked = request()
    closed = replace(asked, prompt=replace(asked.prompt, text=ASKED + "<think></think>\n\n"))
    completion = one(backend("<think>Hm.</think>no"), closed)
    assert (completion.thinking, completion.answer) == ("", "maybe so")


def test_a_reply_that_ends_in_its_thought_still_gets_an_answer() -> None:
    model = backend("So it is no")
    told = events(model, in_thought(request()))
    completion = told[-1].completion  # type: ignore[union-attr]
    assert (completion.thinking, completion.answer, completion.finish_reason) == ("So it is no", "maybe so", "stop")
    assert completion.thought_closed_by == "model"
    assert [each for each in told if isinstance(each, ThoughtEnded)] == [ThoughtEnded(0)]
    assert bytes(completion.tokens) == b"So it is no</think>\n\nmaybe so"


def test_a_thought_that_is_closed_by_its_budget_is_followed_by_the_grammar() -> None:
    asked = in_thought(request(params=SamplingParams(think_budget=5, max_tokens=100)))
    completion = one(backend("a very long thought"), asked)
    assert (completion.thinking, completion.answer) == ("a ver", "maybe so")
    assert completion.thought_closed_by == "budget"
    # What stands between thought and answer was written with the mark, and does not come twice.
    assert one(backend("a ver</think>\n\n\n\nyes"), asked).answer == "maybe so"
    completion = one(backend("a very long thought"), replace(asked, params=replace(asked.params, think_budget=0)))
    assert (completion.thinking, completion.answer) == ("", "maybe so")


def test_a_quoted_end_of_a_thought_is_its_end_where_a_grammar_waits() -> None:
    completion = one(backend("(</think>\n\nyes"), in_thought(request()))
    assert (completion.thinking, completion.answer) == ("(", "yes")
    completion = one(backend("(</think>nope"), in_thought(request()))
    assert (completion.thinking, completion.answer) == ("(", "no")


def test_marks_in_an_answer_are_text() -> None:
    completion = one(backend("<think>"), request(Grammar("regex", "a <think> b</think>")))
    assert completion.answer == "a <think> b</think>"


def test_white_space_of_an_answer_stays() -> None:
    assert one(backend(" \n x \n"), request(Grammar("regex", " \n x \n"))).answer == " \n x \n"


def test_in_a_format_with_channels_the_header_of_the_answer_is_written_by_force() -> None:
    asked = request(markers=HARMONY)
    header = "<|start|>assistant"
    asked = replace(asked, prompt=replace(asked.prompt, open_header=header))
    completion = one(backend("<|channel|>analysis<|message|>Hm.<|end|>junk"), asked)
    assert (completion.thinking, completion.answer) == ("Hm.", "maybe so")
    assert bytes(completion.tokens).endswith(b"<|end|><|start|>assistant<|channel|>final<|message|>maybe so")
    completion = one(backend("<|channel|>final<|message|>yes"), asked)
    assert (completion.thinking, completion.answer) == ("", "yes")
    completion = one(backend("<|channel|>"), asked)
    assert (completion.thinking, completion.answer, completion.finish_reason) == ("", "maybe so", "stop")


def test_a_stop_string_cuts_the_answer_and_a_part_of_one_does_not() -> None:
    params = SamplingParams(stop=("be",), max_tokens=100)
    completion = one(backend("maybe"), request(params=params))
    assert (completion.answer, completion.finish_reason) == ("may", "stop")
    completion = one(backend("yes"), request(params=replace(params, stop=("so what", "s!"))))
    assert (completion.answer, completion.finish_reason) == ("yes", "stop")


def test_an_answer_that_cannot_go_on_ends_with_a_notice_and_leaves_others_alone() -> None:
    model = FakeBackend(saying("yes", after=ASKED), slots=2)
    model.piece = lambda token: b"" if token in b"?" else FakeBackend.piece(model, token)  # type: ignore[method-assign]
    stuck = request(Grammar("regex", "a?b"))
    told = [*Engine(model).stream([stuck, replace(request(), sample=1)])]
    assert Notice("no token continues the answer in its grammar: the answer is not complete") in told
    ended = {each.completion.sample: each.completion for each in told if hasattr(each, "completion")}
    assert (ended[0].answer, ended[0].finish_reason) == ("a", "length")
    assert (ended[1].answer, ended[1].finish_reason) == ("yes", "stop")


def test_a_grammar_that_cannot_be_used_is_refused_at_once() -> None:
    engine = Engine(backend("yes"))
    with pytest.raises(UsageError, match="the grammar cannot be used"):
        engine.submit(request(Grammar("regex", "(")), lambda event: None)
    assert not engine.busy


def test_an_answer_goes_on_in_its_grammar() -> None:
    asked = request(Grammar("regex", "maybe so|maybe not"))
    text = ASKED + "maybe "
    going = replace(asked, prompt=Prompt(tuple(text.encode()), text=text, begun="maybe "))
    assert one(FakeBackend(saying("not", after="maybe ")), going).answer == "not"


def test_samples_have_grammars_of_their_own() -> None:
    model = backend("yes", "no", "maybe so", slots=3)
    drawn = Engine(model).generate([replace(request(), sample=number) for number in range(3)])
    assert [each.answer for each in drawn] == ["yes", "no", "maybe so"]


def test_tokens_are_told_with_their_part_before_their_text() -> None:
    params = SamplingParams(top_logprobs=2, max_tokens=100, think_budget=2)
    told = events(backend("Hm, well"), in_thought(request(params=params)))
    drawn = [each for each in told if isinstance(each, TokenDrawn)]
    assert [(each.part, each.piece) for each in drawn] == [
        ("thinking", b"H"), ("thinking", b"m"), *(("answer", bytes([each])) for each in b"maybe so"),
    ]  # fmt: skip
    assert (drawn[0].token, drawn[0].logprob) == (ord("H"), -0.5)
    assert [tuple(each) for each in drawn[0].top] == [(0, b"\0", -1.0), (1, b"\1", -2.0)]
    first = next(index for index, each in enumerate(told) if isinstance(each, TextDrawn))
    assert isinstance(told[first - 1], TokenDrawn)


def test_no_token_is_told_without_being_asked() -> None:
    assert not any(isinstance(each, TokenDrawn) for each in events(backend("yes"), request()))
    with pytest.raises(UsageError, match="top-logprobs must be between 0 and 100, not 101"):
        SamplingParams(top_logprobs=101)


def test_an_answer_that_goes_on_keeps_its_white_space() -> None:
    text = ASKED + "Hello,"
    going = Request(Prompt(tuple(text.encode()), text=text, begun="Hello,"), SamplingParams(max_tokens=50), THINK)
    assert one(FakeBackend(saying(" world", after="Hello,")), going).answer == " world"


def test_a_thought_that_goes_on_ends_as_any() -> None:
    text = ASKED + "<think>So"
    prompt = Prompt(tuple(text.encode()), True, text=text, begun="")
    going = Request(prompt, SamplingParams(max_tokens=50), THINK)
    completion = one(FakeBackend(saying(" it is.</think>\n\nno", after="<think>So")), going)
    assert (completion.thinking, completion.answer) == (" it is.", "no")
    completion = one(FakeBackend(saying(" it is.</think>\n\nno", after="<think>So")), replace(going, grammar=YES_NO))
    assert (completion.thinking, completion.answer, completion.finish_reason) == (" it is.", "no", "stop")
