"""One conversation: what the model is asked, what is kept, and what a report says about it."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path

import pytest

from dsr.chat.conversation import Conversation, before_last_question
from dsr.chat.forgetting import remaining
from dsr.chat.options import edit_of
from dsr.chat.summary import as_json, stats_line
from dsr.chat.tools.rounds import Round
from dsr.loading.opened_files import OpenedFiles
from runtime.base.errors import DiskFailed, DoesNotFit
from runtime.base.events import Notice, TextDrawn
from runtime.base.types import Message
from runtime.engine.prompt_options import PromptOptions
from runtime.engine.template import file_layout
from runtime.from_disk.use import DiskUse
from runtime.strategies.strategy import find
from tests.dsr.chat.chatting import a_model, backend_of, card, conversation, replace_speaker, stop_after
from tests.fakes import saying

HELLO = (Message("user", "hello"), Message("assistant", "Hi!"))


def asked(talk: Conversation, question: str) -> str:
    return "".join(event.text for event in talk.ask(question) if isinstance(event, TextDrawn))


def prompt_of(talk: Conversation, *turns: Message) -> str:
    return bytes(talk._request(list(turns)).prompt.tokens).decode()


def test_question_and_answer_stay_in_the_conversation_the_thought_does_not() -> None:
    talk = conversation("<think>\nhm\n</think>\n\nYes.")
    assert asked(talk, "Really?") == "hmYes."
    assert talk.turns == [Message("user", "Really?"), Message("assistant", "Yes.", "hm")]
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


def test_an_answer_whose_weights_are_lost_stays_as_far_as_it_came() -> None:
    talk = conversation("Once upon a time.")
    backend = backend_of(talk)
    backend.abort_after, backend.abort_with = 5, DiskFailed("big.gguf: the disk failed to read it")
    assert asked(talk, "Story?") == "Once"
    assert talk.turns[-1] == Message("assistant", "Once")
    assert talk.last is not None and talk.last.failure is backend.abort_with and not talk.last.stopped
    assert as_json(talk, [Round(talk.last)])["failure"] == "big.gguf: the disk failed to read it"


def test_a_model_file_that_lost_its_name_is_told_before_the_next_answer(tmp_path: Path) -> None:
    model = tmp_path / "big.gguf"
    model.write_bytes(b"weights")
    talk = conversation("Yes.")
    talk.loaded = replace(talk.loaded, files=OpenedFiles([model]))
    assert notices(talk, "Really?") == []
    model.unlink()
    told = f"{model} was moved or deleted; answers go on with the file that was opened, until you start dsr again"
    assert notices(talk, "Really?") == [told]
    assert notices(talk, "Really?") == []


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
    assert talk.turns[-2:] == [Message("user", "Story?"), Message("assistant", "", "Hm")]
    said = list(talk.ask("Go on"))
    assert said[0] == Notice("the last question got no answer; the model does not see it")
    assert prompt_of(talk, *talk.turns) == "user: hello\nassistant: Hi!\nuser: Go on\nassistant: Yes.\nassistant:"
    assert not any(isinstance(event, Notice) for event in talk.ask("Why?"))


def test_a_file_of_a_question_without_answer_is_told_as_unseen() -> None:
    talk = conversation("<think>Hmmm</think>Yes.", turns=HELLO)
    stop_after(talk, 9)
    assert asked(talk, file_layout("notes.txt", "Milk.", "Story?")) == "Hm"
    assert notices(talk, "Go on")[0] == (
        "the last question got no answer; the model does not see it, nor notes.txt: give it again"
    )


def test_a_system_prompt_that_takes_most_of_the_context_is_named() -> None:
    talk = conversation("x", context=60)
    talk.system = "long " * 20
    with pytest.raises(DoesNotFit) as caught:
        asked(talk, "hello")
    assert (
        caught.value.hint
        == "shorten the system prompt, which takes 100 of them; or shorten the prompt, or use --ctx-size 1000"
    )


def test_a_question_that_does_not_fit_leaves_the_conversation_as_it_was() -> None:
    talk = conversation("x", turns=HELLO, context=60)
    with pytest.raises(DoesNotFit, match="and 60 is the most for a prompt with its answer"):
        asked(talk, "long " * 20)
    assert talk.turns == list(HELLO)


LONG = "long " * 8


def notices(talk: Conversation, question: str) -> list[str]:
    return [event.text for event in talk.ask(question) if isinstance(event, Notice)]


def test_a_full_conversation_forgets_its_oldest_exchanges_and_goes_on() -> None:
    talk = conversation("Yes.", context=400)
    said = [notices(talk, f"{number} {LONG}") for number in range(20)]
    # A question takes 49 tokens with its role, an answer 16, the end 10: a fifth exchange leaves less than a quarter.
    assert said[:6] == [[], [], [], [], ["forgot the 3 oldest exchanges (195 tokens) to make room"], []]
    assert len(talk.turns) == 40
    assert talk.last is not None and talk.last.completion.answer == "Yes."
    assert talk.forgotten == talk.last.forgotten
    assert as_json(talk, [Round(talk.last)])["forgotten"] == {
        "exchanges": talk.forgotten.exchanges,
        "tokens": talk.forgotten.tokens,
        "summary": None,
    }
    assert talk.last.prompt_tokens <= 300


def test_an_answer_that_fills_the_context_does_not_end_the_conversation() -> None:
    talk = conversation("on and " * 100, context=200)
    for _ in range(4):
        assert asked(talk, "Go on")
        assert talk.last is not None and talk.last.completion.finish_reason == "length"


def test_what_is_forgotten_stays_forgotten_so_that_the_prompt_begins_the_same() -> None:
    talk = conversation("Yes.", context=400)
    for number in range(5):
        asked(talk, f"{number} {LONG}")
    read = backend_of(talk).decoded
    assert notices(talk, "5") == []
    assert backend_of(talk).decoded - read < 100


def test_a_new_start_forgets_nothing() -> None:
    talk = conversation("Yes.", context=400)
    for number in range(5):
        asked(talk, f"{number} {LONG}")
    assert talk.forgotten.exchanges == 3
    talk.restart(HELLO)
    assert (talk.turns, talk.forgotten.exchanges) == (list(HELLO), 0)


def test_the_last_question_is_asked_again_after_its_own_exchange_was_forgotten() -> None:
    talk = conversation("Yes.", context=400)
    for number in range(2):
        asked(talk, f"{number} {LONG}")
    stop_after(talk, 0)
    assert notices(talk, "long " * 55) == ["forgot the 2 oldest exchanges (130 tokens) to make room"]
    list(talk.again())
    assert [turn.content for turn in talk.turns[-2:]] == [f"1 {LONG}", "Yes."]
    assert talk.forgotten.exchanges == 0


def test_a_file_stays_when_its_question_goes() -> None:
    talk = conversation("Yes.", context=400)
    asked(talk, file_layout("list.txt", "milk", f"Why? {LONG}"))
    for number in range(5):
        asked(talk, f"{number} {LONG}")
    assert talk.forgotten.exchanges > 1
    prompt = prompt_of(talk, *remaining(talk.turns[:-1], talk.forgotten))
    assert prompt.startswith("user: " + file_layout("list.txt", "milk", str(talk.forgotten.exchanges - 1)))


def test_files_that_leave_no_room_are_told() -> None:
    talk = conversation("Yes.", context=400)
    for name in ("a", "b"):
        asked(talk, file_layout(name, "x" * 90, "Why?"))
    before = talk.forgotten
    with pytest.raises(DoesNotFit, match=r"the files of this conversation and the question take \d+ tokens") as caught:
        asked(talk, file_layout("c", "x" * 90, "Why?"))
    assert caught.value.hint == "begin a new conversation (/clear, or without --resume), or shorten the question"
    assert len(talk.turns) == 4 and talk.forgotten is before


def test_a_strategy_draws_with_what_is_left() -> None:
    talk = conversation("Yes.", context=800, slots=2)
    talk.options.strategy = find("vote").configured(["n=2", "stop=none"])
    for number in range(20):
        asked(talk, f"{number} {LONG}")
    assert talk.forgotten.exchanges > 0
    assert talk.last is not None and talk.last.verdict is not None and talk.last.verdict.drawn == 2


def test_stop_keeps_every_exchange_and_refuses() -> None:
    talk = conversation("Yes.", context=400)
    talk.options.on_full = "stop"
    with pytest.raises(DoesNotFit):
        for number in range(9):
            asked(talk, f"{number} {LONG}")
    talk.options.on_full = "forget"
    assert asked(talk, "And now?") == "Yes."


def test_a_summary_takes_the_place_of_what_goes() -> None:
    talk = conversation("Yes.", context=800, markers=None)
    talk.options.on_full = "summary"
    backend = backend_of(talk)
    speak, summing = backend._speak, saying("They  said\nyes.", after="assistant:")

    def either(held: list[int], seed: int) -> int:
        order = b"Summarize our conversation" in bytes(held).rpartition(b"user:")[2]
        return (summing if order else speak)(held, seed)

    replace_speaker(talk, either)
    said = [line for number in range(12) for line in notices(talk, f"{number} {LONG}")]
    assert re.fullmatch(r"summed up the \d oldest exchanges \(\d+ tokens\) to make room: They said yes\.", said[0])
    assert "They  said\nyes." in prompt_of(talk, *remaining(talk.turns[:-1], talk.forgotten))
    assert talk.last is not None and talk.last.completion.answer == "Yes."
    assert as_json(talk, [Round(talk.last)])["forgotten"]["summary"] == "They  said\nyes."


def test_without_a_summary_the_oldest_exchanges_are_forgotten_all_the_same() -> None:
    talk = conversation("Yes.", context=400)  # too short for the order to sum up
    talk.options.on_full = "summary"
    said = [line for number in range(9) for line in notices(talk, f"{number} {LONG}")]
    assert said[0].startswith("an exchange is too long for a summary: forgot the ")
    assert said[0].endswith(" tokens) without one to make room")
    assert talk.last is not None and talk.last.completion.answer == "Yes."


def test_a_changed_file_is_read_where_it_changed() -> None:
    talk = conversation("Yes.")
    talk.options.edit = "fast"
    line = "The weather is fine, and the sea is calm. "
    asked(talk, file_layout("log.txt", f"Monday\n{line * 5}", "Why?"))
    read = backend_of(talk).decoded
    said = notices(talk, file_layout("log.txt", f"Tuesday\n{line * 5}", "And now?"))
    assert said == ["log.txt changed: dsr moves what follows the change, which is approximate"]
    assert backend_of(talk).decoded - read < 60
    assert len(talk.turns) == 4 and "Monday" in talk.turns[0].content
    assert notices(talk, file_layout("log.txt", f"Tuesday\n{line * 5}", "And again?")) == []


def test_a_changed_file_does_not_go_with_a_question_that_got_no_answer() -> None:
    talk = conversation("<think>Hmmm</think>Yes.")
    talk.options.edit = "fast"
    stop_after(talk, 9)
    asked(talk, file_layout("log.txt", "Monday", "Why?"))
    assert notices(talk, file_layout("log.txt", "Tuesday", "And now?")) == [
        "the last question got no answer; the model does not see it"
    ]
    read = backend_of(talk)
    assert talk.last is not None
    assert talk.last.prompt_tokens == len(
        read.tokenize(f"user: {file_layout('log.txt', 'Tuesday', 'And now?')}\nassistant:")
    )


def test_a_vote_does_not_claim_to_move_a_changed_file() -> None:
    talk = conversation("Yes.")
    talk.options.edit = "fast"
    talk.options.strategy = find("vote").configured(n=2)
    asked(talk, file_layout("log.txt", "Monday", "Why?"))
    assert notices(talk, file_layout("log.txt", "Tuesday", "And now?")) == [
        "log.txt changed: dsr reads again what follows the change, because it cannot move it here"
    ]


def test_a_changed_file_is_read_again_as_a_whole_by_default() -> None:
    talk = conversation("Yes.")
    line = "The weather is fine, and the sea is calm. "
    for day in ("Monday", "Tuesday"):
        assert notices(talk, file_layout("log.txt", f"{day}\n{line * 5}", "Why?")) == []
    assert backend_of(talk).grafted == 0


def test_where_nothing_can_be_moved_a_changed_file_says_so() -> None:
    talk = conversation("Yes.")
    talk.options.edit, talk.reproducible = "fast", True
    asked(talk, file_layout("log.txt", "Monday", "Why?"))
    assert notices(talk, file_layout("log.txt", "Tuesday", "Why?")) == [
        "log.txt changed: dsr reads again what follows the change, because it cannot move it here"
    ]


def test_what_stays_after_forgetting_is_moved_if_that_is_wanted() -> None:
    decoded = {}
    for edit in ("exact", "fast"):
        talk = conversation("Yes.", context=800)
        talk.options.edit = edit_of(edit)
        before = [backend_of(talk).decoded for number in range(10) if asked(talk, f"{number} {LONG}")]
        assert talk.forgotten.exchanges == 5
        decoded[edit] = max(after - earlier for earlier, after in itertools.pairwise(before))
        assert (backend_of(talk).grafted > 0) is (edit == "fast")
    assert decoded["fast"] < 80 < 250 < decoded["exact"]


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
    talk.options.asked = PromptOptions(thinking=False)
    prompt = prompt_of(talk, hello)
    assert prompt.partition("assistant:")[2].startswith("<think>\n")
    assert len(prompt.partition("<think>")[2]) > len("\n\n</think>\n\n")
    assert prompt.rstrip().endswith("</think>")


def test_the_stats_line_tells_what_was_read_from_the_disk() -> None:
    use = DiskUse()
    talk = conversation("x")
    talk.loaded = replace(talk.loaded, disk_use=lambda: use)
    events = talk.ask("Really?")
    for event in events:
        if isinstance(event, TextDrawn):
            use.chosen, use.hits, use.bytes_read, use.waited = 100, 43, 3 << 20, 0.5
    reply = talk.last
    assert reply is not None and reply.disk is not None and reply.disk.prompt == DiskUse()
    line = stats_line(replace(reply, decode_seconds=2.0))
    assert "s, 43 % of the experts were in memory, 3.00 MiB read for each token, 0.5 tokens/s, 25 % of the time" in line
    body = as_json(talk, [Round(reply)])["disk_use"]
    assert (body["prompt"]["needed"], body["answer"]["needed"], body["answer"]["in_memory"]) == (0, 100, 43)


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
    body = as_json(talk, [Round(replace(talk.last, prefill_seconds=0.5, decode_seconds=2.0))])
    tokens = len(backend_of(talk).tokenize("<think>\nhm\n</think>\n\nYes."))
    assert list(body)[:9] == [
        "model",
        "answer",
        "thinking",
        "finish_reason",
        "looped",
        "tokens",
        "seconds",
        "tokens_per_second",
        "verdict",
    ]
    assert body["tokens"]["thinking"] + body["tokens"]["answer"] == tokens
    assert body.pop("sampling")["temperature"] == talk.params.temperature
    assert body | {"tokens": 0} == {
        "model": "fake:1b",
        "answer": "Yes.",
        "thinking": "hm",
        "finish_reason": "stop",
        "logprobs": None,
        "looped": False,
        "tokens": 0,
        "seconds": {"load": 0.25, "prefill": 0.5, "decode": 2.0},
        "tokens_per_second": tokens / 2,
        "verdict": None,
        "thought_closed_by": "model",
        "seed": 6,
        "slots": 1,
        "threads": 2,
        "draft": None,
        "route": None,
        "failure": None,
        "prediction": None,
        "disk_use": None,
        "forgotten": None,
        "effort": None,
        "calls": [],
        "kept_thoughts": False,
        "lora": [],
    }


def test_a_file_is_kept_by_its_whole_path() -> None:
    file = replace(a_model("fake.gguf"), repo=None)
    assert conversation("x", model=file).reference == str(file.path.absolute())
    assert conversation("x").reference == "fake:1b"
