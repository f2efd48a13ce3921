"""What is kept of a conversation, and that keeping it never stops one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dsr.chat.conversation import Reply
from dsr.chat.forgetting import NOTHING, Forgotten
from dsr.chat.record import Record, kept_conversation
from dsr.chat.tools.rounds import Round
from dsr.store.conversations import Conversations
from dsr.ui.console import Console
from runtime.base.errors import NotFound
from runtime.base.types import Completion, Message


def reply(answer: str, thinking: str = "") -> tuple[Round, ...]:
    return (Round(Reply(Completion(0, thinking, answer, (1, 2, 3), 1, "stop", 0.1), 7, 0.5, 2.0)),)


def kept(path: Path) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """(model, system, [(role, content)]) of every conversation, the latest last."""
    with Conversations(path) as store:
        found = [store.get(one.id) for one in reversed(store.list())]
    return [(one.model, one.system, [(turn.role, turn.content) for turn in one.turns]) for one in found]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c.sqlite"


@pytest.fixture
def log(path: Path) -> Iterator[Record]:
    with Record.open(path, Console()) as log:
        log.begin("m", "s")
        yield log


def test_nothing_is_kept_before_the_first_answer(log: Record, path: Path) -> None:
    assert kept(path) == []
    log.keep("q", reply("a", "thought"))
    assert kept(path) == [("m", "s", [("user", "q"), ("assistant", "a")])]
    with Conversations(path) as store:
        turn = store.get(1).turns[1]
    assert turn.thinking == "thought"
    assert turn.stats == {
        "prompt_tokens": 7,
        "thinking_tokens": 1,
        "answer_tokens": 2,
        "tokens_per_second": 1.5,
        "finish_reason": "stop",
        "seed": 0,
    }


def test_a_resumed_conversation_leaves_out_what_its_last_prompt_left_out(log: Record, path: Path) -> None:
    for number in range(4):
        log.keep(f"q{number}", reply("a"))
    assert kept_conversation(path).forgotten == NOTHING
    for forgotten in (Forgotten(2, 900), Forgotten(3, 1200, "They met.")):
        log.keep("q", (Round(replace(reply("a")[0].reply, forgotten=forgotten)),))
        assert kept_conversation(path).forgotten == forgotten


@pytest.mark.parametrize(
    "said",
    [7, {}, {"exchanges": 3, "tokens": 1}, {"exchanges": -1, "tokens": 1}, {"exchanges": 1, "tokens": "1"},
     {"exchanges": 1, "tokens": 1, "summary": 1}],
)  # fmt: skip
def test_impossible_words_about_what_was_forgotten_count_as_nothing(path: Path, said: object) -> None:
    with Conversations(path) as store:
        id = store.begin("m", "s")
        for role in ("user", "assistant", "user", "assistant"):
            store.add(id, role, "x", stats={"forgotten": said})
    assert kept_conversation(path).forgotten == NOTHING


def test_another_answer_takes_the_place_of_the_last(log: Record, path: Path) -> None:
    log.keep("q", reply("a"))
    log.keep("r", reply("b"))
    log.replace_last("r", reply("c"))
    assert kept(path)[0][2] == [("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "c")]


def test_a_question_that_a_kill_left_without_its_answer_is_replaced_alone(log: Record, path: Path) -> None:
    log.keep("q", reply("a"))
    with Conversations(path) as store:
        store.add(1, "user", "r")
    log.replace_last("r", reply("c"))
    assert kept(path)[0][2] == [("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "c")]


def test_the_latest_is_continued_in_its_own_record(log: Record, path: Path) -> None:
    log.keep("q", reply("a"))
    earlier = kept_conversation(path)
    assert (earlier.model, earlier.system) == ("m", "s")
    assert earlier.messages == (Message("user", "q"), Message("assistant", "a"))
    log.resume(earlier, "m", "s")
    log.keep("r", reply("b"))
    assert [len(turns) for _, _, turns in kept(path)] == [4]


def test_with_another_model_it_becomes_another_record_with_everything_said(log: Record, path: Path) -> None:
    log.keep("q", reply("a"))
    log.resume(kept_conversation(path), "n", "s")
    log.keep("r", reply("b"))
    assert [(model, len(turns)) for model, _, turns in kept(path)] == [("m", 2), ("n", 4)]
    assert kept_conversation(path).messages[0] == Message("user", "q")


def test_another_answer_to_what_was_said_elsewhere(log: Record, path: Path) -> None:
    said = (Message("user", "q"), Message("assistant", "a"), Message("user", "r"), Message("assistant", "b"))
    log.begin("n", "", said)
    log.replace_last("r", reply("c"))
    assert kept(path)[-1][2] == [("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "c")]


def test_without_a_file_nothing_is_kept_and_nothing_fails(tmp_path: Path) -> None:
    with Record.open(None, Console()) as log:
        log.begin("m", "s")
        log.keep("q", reply("a"))
        log.replace_last("q", reply("b"))
        assert not log.keeps
    assert list(tmp_path.rglob("*.sqlite")) == []


def test_nothing_to_resume_says_how_to_begin(path: Path) -> None:
    for _ in range(2):
        with pytest.raises(NotFound, match="no kept conversation") as caught:
            kept_conversation(path)
        assert caught.value.hint == "start one: dsr chat"
        Conversations(path).close()


def test_a_file_that_cannot_be_used_is_a_warning(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_bytes(b"no database" * 100)
    with Record.open(path, Console(quiet=True)) as log:
        log.begin("m", "s")
        log.keep("q", reply("a"))
    assert capsys.readouterr().err.startswith("warning: this conversation is not kept: ")


def test_a_record_that_vanishes_is_one_warning(log: Record, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.keep("q", reply("a"))
    with Conversations(path) as store:
        store.delete(1)
    log.keep("r", reply("b"))
    log.keep("s", reply("c"))
    log.replace_last("s", reply("d"))
    err = capsys.readouterr().err
    assert err.startswith("warning: this conversation is not kept any more: ")
    assert err.count("warning") == 1


def test_a_conversation_that_another_process_deleted_has_no_number(log: Record, path: Path) -> None:
    log.keep("q", reply("a"))
    assert log.number == 1
    with Conversations(path) as other:
        other.delete(1)
    assert log.number is None
