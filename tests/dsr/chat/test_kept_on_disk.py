"""A new process begins from what an earlier one read, with the embedded model and with fakes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dsr import cli
from dsr.chat.conversation import Conversation
from dsr.chat.disk_cache import DiskCache
from dsr.chat.record import Record, kept_conversation
from dsr.chat.repl import Repl
from dsr.store import paths
from dsr.store.kept_states import KeptStates
from dsr.ui.console import Console
from runtime.base.run import Stop
from runtime.base.types import Message, SamplingParams
from tests.dsr.chat.chatting import backend_of, open_model

LINES = "".join(f"Tom has {number} apples and Mary has {number + 3}.\n" for number in range(40))
READ_AGAIN = "a cached conversation is read again: "


def chat(*arguments: str, model: str = "nano", environment: dict[str, str] | None = None) -> dict[str, Any]:
    """The object of one `dsr chat --json` on one thread, greedy and short, with stderr as "said"."""
    command = ["chat", model, "--threads", "1", "--temp", "0", "-n", "12", "--json", *arguments]
    result = CliRunner().invoke(cli.app, command, env=environment)
    value: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (0 if value["answer"] else 1), result.stderr  # 12 tokens may all be thought
    return {**value, "said": result.stderr}


def said(*arguments: str) -> list[str]:
    """The lines on stderr of the same with `--stats` for a person, after the greeting."""
    command = ["chat", "nano", "--threads", "1", "--temp", "0", "-n", "12", "--stats", *arguments]
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code in (0, 1), result.stderr
    return [line for line in result.stderr.splitlines() if "cache" in line]


def files() -> list[Path]:
    return sorted(paths.kept_states_folder().glob("*.state"))


@pytest.fixture
def notes(tmp_path: Path) -> str:
    (tmp_path / "notes").write_text(LINES)
    return str(tmp_path / "notes")


def test_a_second_question_about_a_file_reads_the_question_alone(notes: str) -> None:
    first = chat("-f", notes, "How many has Tom?")
    assert first["tokens"]["cached"] == 0
    assert [path.name.partition(".")[0] for path in files()] == ["1"]
    second = chat("-f", notes, "How many has Mary?")
    assert first["tokens"]["prompt"] > 500
    assert second["tokens"]["prompt"] - second["tokens"]["cached"] < 30
    cold = chat("-f", notes, "How many has Mary?", environment={"DSR_CACHE_LIMIT": "0"})
    assert cold["tokens"]["cached"] == 0
    assert (second["thinking"], second["answer"]) == (cold["thinking"], cold["answer"])


def test_a_file_is_not_read_again_after_an_answer_that_was_cut_in_its_thought(notes: str) -> None:
    first = chat("-f", notes, "How many has Tom?")
    assert first["answer"] == ""
    assert chat("-f", notes, "How many has Mary?", "--no-think")["tokens"]["cached"] > 500


def test_a_resumed_conversation_reads_the_new_question_alone(notes: str) -> None:
    chat("-f", notes, "How many has Tom?", "--no-think")
    resumed = chat("-p", "And Mary?", "--resume", "--no-think")
    assert resumed["tokens"]["prompt"] - resumed["tokens"]["cached"] < 64
    assert resumed["tokens"]["cached"] > 500


def test_a_question_about_anything_else_begins_from_nothing(notes: str, tmp_path: Path) -> None:
    chat("-f", notes, "How many has Tom?")
    (tmp_path / "other").write_text(LINES.replace("Tom", "Ann"))
    assert chat("-f", str(tmp_path / "other"), "How many has Ann?")["tokens"]["cached"] == 0


def test_short_questions_leave_no_file() -> None:
    chat("What is 3 + 4?")
    assert files() == []


@pytest.mark.parametrize("options", [("--no-log",), ("--reproducible",)])
def test_nothing_is_kept_where_nothing_shall_be(notes: str, options: tuple[str, ...]) -> None:
    chat("-f", notes, "How many has Tom?", *options)
    assert not paths.kept_states_folder().exists()


def test_a_limit_of_zero_keeps_nothing(notes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSR_CACHE_LIMIT", "0")
    chat("-f", notes, "How many has Tom?")
    assert not paths.kept_states_folder().exists()


def test_a_reproducible_answer_reads_everything(notes: str) -> None:
    chat("-f", notes, "How many has Tom?")
    assert chat("-f", notes, "How many has Tom?", "--reproducible")["tokens"]["cached"] == 0


def test_another_type_of_cache_reads_again_and_says_so(notes: str) -> None:
    chat("-f", notes, "How many has Tom?", "--no-think")
    resumed = CliRunner().invoke(
        cli.app,
        ["chat", "--resume", "-p", "And?", "-t", "1", "--temp", "0", "-n", "12", "--stats", "--kv-type", "q8_0"],
    )
    assert "the conversation is read again: its cache is of another model, engine or option\n" in resumed.stderr
    assert " cached)" not in resumed.stderr


def test_a_damaged_file_is_read_again_and_removed(notes: str) -> None:
    whole = chat("-f", notes, "How many has Tom?")
    [path] = files()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)
    lines = said("-f", notes, "How many has Tom?")
    assert lines == [f"{READ_AGAIN}{path}: the checksum is wrong"]
    assert chat("-f", notes, "How many has Tom?")["answer"] == whole["answer"]


def test_a_state_that_the_engine_refuses_is_read_again_and_removed(notes: str) -> None:
    """The checksum is right, but the state is not one of this engine."""
    from dsr.store.state_file import pieces, read_state
    from runtime.engine.kept_state import KeptState

    whole = chat("-f", notes, "How many has Tom?")
    [path] = files()
    identity = path.read_bytes()[28:60].hex()
    kept = read_state(path, identity)
    for state in (kept.state[: len(kept.state) // 2], b"\xff" * len(kept.state), b""):
        path.write_bytes(b"".join(pieces(KeptState(kept.tokens, state), identity)))
        lines = said("-f", notes, "How many has Tom?")
        assert lines == [f"{READ_AGAIN}the engine refused its state"]
        [path] = files()  # of the conversation that read it again
    assert chat("-f", notes, "How many has Tom?")["answer"] == whole["answer"]


def test_a_folder_that_cannot_be_used_is_one_line_and_a_right_answer(notes: str) -> None:
    whole = chat("-f", notes, "How many has Tom?", "--no-log")
    paths.cache_folder().mkdir(parents=True, exist_ok=True)
    paths.kept_states_folder().write_text("not a folder")
    assert said("-f", notes, "How many has Tom?") == ["the cache of this conversation is not kept: File exists"]
    assert chat("-f", notes, "How many has Tom?")["answer"] == whole["answer"]


def test_deleting_a_conversation_deletes_its_file(notes: str) -> None:
    chat("-f", notes, "How many has Tom?")
    assert len(files()) == 1
    assert CliRunner().invoke(cli.app, ["history", "--delete", "1", "-y"]).exit_code == 0
    assert files() == []


def test_a_cache_that_cannot_be_deleted_keeps_its_conversation(notes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chat("-f", notes, "How many has Tom?")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        result = CliRunner().invoke(cli.app, ["history", "--delete", "1", "-y"])
    assert result.exit_code == 1
    assert "the cache of conversation 1 cannot be deleted: Permission denied" in result.stderr
    assert CliRunner().invoke(cli.app, ["history", "1"]).exit_code == 0


def test_a_vote_says_what_its_first_sample_spared(notes: str) -> None:
    chat("-f", notes, "How many has Tom?")
    voted = chat("-f", notes, "How many has Mary?", "--vote", "2", "--temp", "1", "--seed", "1")
    assert voted["tokens"]["prompt"] - voted["tokens"]["cached"] < 30


@pytest.mark.parametrize("kind", ["mamba", "granitehybrid", "qwen35", "lfm2", "kimi-linear", "gemma3"])
def test_models_that_cannot_go_back_anywhere_begin_at_a_branch_of_the_prompt(
    kind: str, notes: str, hybrid_path: Callable[[str], Path]
) -> None:
    model = str(hybrid_path(kind))
    first = chat("-f", notes, "How many has Tom?", model=model)
    assert first["tokens"]["cached"] == 0
    second = chat("-f", notes, "How many has Mary?", model=model)
    assert second["tokens"]["prompt"] - second["tokens"]["cached"] < 64
    cold = chat("-f", notes, "How many has Mary?", model=model, environment={"DSR_CACHE_LIMIT": "0"})
    assert (second["thinking"], second["answer"]) == (cold["thinking"], cold["answer"])


# --- a conversation, with the fake backend


def talk(*replies: str, turns: tuple[Message, ...] = (), context: int = 4000) -> Conversation:
    """A conversation of a process that keeps what it read."""
    loaded = open_model(*replies, context=context, state_identity="ab" * 32)
    disk = DiskCache(KeptStates(paths.kept_states_folder(), 1 << 20), Console())
    return Conversation(loaded, SamplingParams(), turns=list(turns), disk=disk)


def left(conversation: Conversation, lines: list[str]) -> None:
    """Type the lines, then leave."""
    typed: Iterator[str] = iter(lines)

    def read(_: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    assert conversation.disk is not None
    with Record.open(paths.conversations_file(), Console()) as record, conversation.disk:
        record.begin("fake", "")
        Repl(conversation, Console(), record, Stop()).run(read)
        conversation.keep_on_disk(record.number, ends=True)


def test_the_thought_of_an_answer_is_not_read_in_the_next_process_and_nothing_else_twice() -> None:
    question = "x" * 300
    first = talk("<think>Let me see, for long.</think>Yes.")
    left(first, [question])
    second = talk("No.", turns=tuple(first.turns))
    second.begin_from_disk(1)
    assert backend_of(second).decoded == 0
    list(second.ask("Why?"))
    assert second.last is not None
    prompt = f"user: {question}\nassistant: Yes.\nuser: Why?\nassistant:"
    assert second.last.prompt_tokens == len(prompt)
    # In the next prompt the answer stands there without the thought. The last token of a prompt is never cached.
    assert second.last.cached == len(f"user: {question}\nassistant:") - 1


def test_an_answer_without_a_thought_is_kept_too() -> None:
    first = talk(" Yes, and yes, and yes.")
    left(first, ["x" * 300])
    second = talk(" No.", turns=tuple(first.turns))
    second.begin_from_disk(1)
    list(second.ask("Why?"))
    assert second.last is not None
    assert second.last.prompt_tokens - second.last.cached <= len("\nuser: Why?\nassistant:") + 1


def test_a_long_talk_is_written_before_it_ends_and_looked_at_only_when_it_grew(monkeypatch: pytest.MonkeyPatch) -> None:
    conversation = talk(" Yes.")
    assert conversation.disk is not None
    looks: list[int] = []
    beginning = Conversation._beginning

    def counted(self: Conversation, turns: list[Message]) -> tuple[int, ...]:
        looks.append(len(turns))
        return beginning(self, turns)

    monkeypatch.setattr(Conversation, "_beginning", counted)
    with Record.open(paths.conversations_file(), Console()) as record:
        record.begin("fake", "")
        repl = Repl(conversation, Console(), record, Stop())
        sizes = []
        for question in ("x" * 300, "short", "y" * 300):
            repl._take(question)
            conversation.disk._wait()
            [path] = files()
            sizes.append(os.stat(path).st_size)
    assert sizes[0] == sizes[1] < sizes[2]
    assert looks == [2, 6]


def test_a_conversation_that_forgot_its_beginning_goes_on_from_its_file() -> None:
    first = talk(" Yes.", context=1000)
    questions = [f"{number}" * 150 for number in range(6)]
    left(first, questions)
    assert first.forgotten.exchanges > 0
    earlier = kept_conversation(paths.conversations_file())
    second = talk(" No.", context=1000, turns=earlier.messages)
    second.go_on_without(earlier.forgotten)
    second.begin_from_disk(earlier.id)
    list(second.ask("Why?"))
    assert second.last is not None
    assert second.forgotten == first.forgotten
    assert second.last.prompt_tokens - second.last.cached <= len("\nuser: Why?\nassistant:") + 1
    # With room for all of it, nothing is left out.
    third = talk(" No.", context=4000, turns=earlier.messages)
    third.go_on_without(earlier.forgotten)
    assert third.forgotten.exchanges == 0
