"""One conversation: what the model is asked, what is kept, and what a report says about it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dsr.chat.conversation import Conversation, before_last_question
from dsr.chat.summary import as_json, stats_line
from runtime.base.errors import DoesNotFit
from runtime.base.events import Notice, TextDrawn
from runtime.base.types import Message
from tests.dsr.chat.chatting import a_model, backend_of, card, conversation, stop_after

HELLO = (Message("user", "hello"), Message("assistant", "Hi!"))


def asked(talk: Conversation, question: str) -> str:
    return "".join(event.text for event in talk.ask(question) if isinstance(event, TextDrawn))


def prompt_of(talk: Conversation, *turns: Message) -> str:
    return bytes(talk._request(list(turns)).prompt.tokens).decode()


def test_question_and_answer_stay_in_the_conversation_the_thought_does_not() -> None:
    talk = conversation("<think>\nhm\n</think>\n\nYes.")
    assert asked(talk, "Really?") == "hmYes."
    assert talk.turns == [Message("user", "Really?"), Message("assistant", "Yes.")]
    assert prompt_of(talk, *talk.turns, Message("user", "Why?")) == (
        "user: Really?\nassistant: Yes.\nuser: Why?\nassistant:"
    )


def test_the_system_prompt_comes_first() -> None:
    talk = conversation("x")
    talk.system = "Be brief."
    assert prompt_of(talk, Message("user", "Why?")) == "system: Be brief.\nuser: Why?\nassistant:"


def test_a_stopped_answer_stays_as_far_as_it_came() -> None:
    talk = conversation("Once upon a time.")
    stop_after(talk, 4)
    assert asked(talk, "Story?") == "Once"
    assert talk.turns[-1] == Message("assistant", "Once")
    assert talk.last is not None and talk.last.completion.finish_reason == "cancelled"
    assert asked(talk, "Go on") == "Once upon a time."


def test_stopped_before_the_first_token_nothing_was_said() -> None:
    talk = conversation("Once.", turns=HELLO)
    stop_after(talk, 0)
    assert asked(talk, "Story?") == ""
    assert talk.turns == list(HELLO)
    assert talk.last is not None and not talk.last.drew_something


def test_a_question_that_was_stopped_inside_the_thought_is_told_and_left_out() -> None:
    strict = "{% for m in messages %}{% if not m.content %}{{ raise_exception('empty') }}{% endif %}"
    strict += "{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    talk = conversation("<think>Hmmm</think>Yes.", template=strict, turns=HELLO)
    stop_after(talk, 9)
    assert asked(talk, "Story?") == "Hm"
    assert talk.turns[-2:] == [Message("user", "Story?"), Message("assistant", "")]
    said = list(talk.ask("Go on"))
    assert said[0] == Notice("the last question got no answer; the model does not see it")
    assert prompt_of(talk, *talk.turns) == "user: hello\nassistant: Hi!\nuser: Go on\nassistant: Yes.\nassistant:"
    assert not any(isinstance(event, Notice) for event in talk.ask("Why?"))


def test_a_question_that_does_not_fit_leaves_the_conversation_as_it_was() -> None:
    talk = conversation("x", turns=HELLO, context=60)
    with pytest.raises(DoesNotFit, match="the context holds 60"):
        asked(talk, "long " * 20)
    assert talk.turns == list(HELLO)


def test_again_asks_the_same_with_another_seed() -> None:
    talk = conversation("Zero.", "One.")
    assert asked(talk, "Count") == "Zero."
    list(talk.again())
    assert talk.turns == [Message("user", "Count"), Message("assistant", "One.")]
    assert talk.params.seed == 1


def test_again_stopped_at_once_keeps_the_answer_there_was() -> None:
    talk = conversation("Zero.", turns=HELLO)
    stop_after(talk, 0)
    list(talk.again())
    assert talk.turns == list(HELLO)


def test_the_seed_after_the_last_is_the_first() -> None:
    talk = conversation("x", seed=2**32 - 1, turns=HELLO)
    list(talk.again())
    assert talk.params.seed == 0


def test_what_was_said_before_the_last_question() -> None:
    more = (*HELLO, Message("user", "more"))
    assert before_last_question([]) == ()
    assert before_last_question(HELLO) == ()
    assert before_last_question(more) == HELLO
    assert before_last_question([*more, Message("assistant", "")]) == HELLO


def test_a_budget_closes_the_thought() -> None:
    talk = conversation("<think>\none two three four")
    talk.params = replace(talk.params, think_budget=3, max_tokens=12)
    list(talk.ask("x"))
    assert talk.last is not None
    assert talk.last.completion.thought_closed_by == "budget"


def test_an_r1_begins_with_a_thought_and_its_no_think_has_a_sentence() -> None:
    talk = conversation("x", card=card("DeepSeek R1 Distill Qwen 7B"))
    hello = Message("user", "hi")
    assert prompt_of(talk, hello).endswith("assistant:<think>\n")
    talk.options.think = False
    prompt = prompt_of(talk, hello)
    assert prompt.partition("assistant:")[2].startswith("<think>\n")
    assert len(prompt.partition("<think>")[2]) > len("\n\n</think>\n\n")
    assert prompt.rstrip().endswith("</think>")


def test_the_stats_line_leaves_out_thoughts_where_there_are_none() -> None:
    talk = conversation("Hi.")
    list(talk.ask("x"))
    assert talk.last is not None
    reply = replace(talk.last, prefill_seconds=0.25, decode_seconds=2.0)
    assert stats_line(reply) == "18 prompt + 3 answer tokens, prompt read in 0.25 s, 1.5 tokens/s"
    reply = replace(reply, completion=replace(reply.completion, thinking_tokens=2))
    assert stats_line(reply).startswith("18 prompt + 2 thinking + 1 answer tokens, ")
    assert replace(reply, decode_seconds=0.0).tokens_per_second == 0.0


def test_the_json_begins_with_the_documented_keys_in_their_order() -> None:
    talk = conversation("<think>\nhm\n</think>\n\nYes.", seed=6)
    list(talk.ask("x"))
    assert talk.last is not None
    body = as_json(talk, replace(talk.last, prefill_seconds=0.5, decode_seconds=2.0))
    tokens = len(backend_of(talk).tokenize("<think>\nhm\n</think>\n\nYes."))
    assert list(body)[:8] == [
        "model",
        "answer",
        "thinking",
        "finish_reason",
        "tokens",
        "seconds",
        "tokens_per_second",
        "verdict",
    ]
    assert body["tokens"]["thinking"] + body["tokens"]["answer"] == tokens
    assert body | {"tokens": 0} == {
        "model": "fake:1b",
        "answer": "Yes.",
        "thinking": "hm",
        "finish_reason": "stop",
        "tokens": 0,
        "seconds": {"load": 0.25, "prefill": 0.5, "decode": 2.0},
        "tokens_per_second": tokens / 2,
        "verdict": None,
        "thought_closed_by": "model",
        "seed": 6,
        "slots": 1,
        "threads": 2,
        "draft": None,
        "failure": None,
        "prediction": None,
    }


def test_a_file_is_kept_by_its_whole_path() -> None:
    file = replace(a_model("fake.gguf"), repo=None)
    assert conversation("x", model=file).reference == str(file.path.absolute())
    assert conversation("x").reference == "fake:1b"
