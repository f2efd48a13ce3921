"""Answers that call tools: consent, results, the next answer, and every way in which that ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dsr.chat.conversation import Conversation
from dsr.chat.conversation_file import read_conversation, write_conversation
from dsr.chat.record import Record, kept_conversation
from dsr.chat.repl import Repl
from dsr.chat.summary import as_json
from dsr.chat.tools.calls import Toolbox, arguments_of
from dsr.chat.tools.command import tools_command
from dsr.chat.tools.config import LocalServer, ServerConfig
from dsr.chat.tools.consent import Gate, argument_lines, permission
from dsr.chat.tools.offer import ListedTool, offer
from dsr.chat.tools.rounds import Round, answer_in_rounds
from dsr.chat.tools.tool_servers import CallCancelled, CallResult
from dsr.commands.history import history
from dsr.store import paths
from dsr.store.consents import Consents
from dsr.ui.console import Console
from runtime.base.errors import NotFound, UsageError
from runtime.base.run import Stop
from runtime.base.types import Message, SamplingParams, ToolCall
from tests.dsr.chat.chatting import backend_of, open_model, stop_after
from tests.fakes import END, Speaker

SERVER = LocalServer("time", "uvx", ("mcp-server-time",), (), Path("/"))
TOOLS = offer(
    [(SERVER, [ListedTool("now", "The time.", {"type": "object", "properties": {"zone": {"type": "string"}}})])]
)


def call(name: str = "time_now", arguments: str = '{"zone": "UTC"}') -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def in_turn(*replies: str) -> Speaker:
    """Says the reply of as high a number as there were answers since the beginning, then the last one forever."""

    def speak(held: list[int], seed: int) -> int:
        text = bytes(token for token in held if token < 256)
        reply = replies[min(text.count(b"assistant:") - 1, len(replies) - 1)].encode()
        said = text[text.rindex(b"assistant:") + len(b"assistant:") :]
        return reply[len(said)] if len(said) < len(reply) and reply.startswith(said) else END

    return speak


class Clock:
    """Servers with one tool. `results` come one after the other; an error is raised."""

    def __init__(self, *results: CallResult | Exception) -> None:
        self.results, self.calls = list(results), list[tuple[str, dict[str, Any]]]()

    def call(
        self, server: ServerConfig, tool: str, arguments: dict[str, Any], seconds: float, stop: Stop
    ) -> CallResult:
        self.calls.append((tool, arguments))
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


class Person:
    """Types `answers`, and remembers the questions; an interrupt is Ctrl-C."""

    def __init__(self, *answers: str | KeyboardInterrupt) -> None:
        self.answers, self.questions = list(answers), list[str]()

    def __call__(self, question: str, answers: Mapping[str, str]) -> str:
        self.questions.append(question)
        answer = self.answers.pop(0)
        if isinstance(answer, KeyboardInterrupt):
            raise answer
        assert answer in answers
        return answer


class Talk:
    """A conversation with the tool `time_now`."""

    def __init__(
        self, *replies: str, results: tuple[CallResult | Exception, ...] = (CallResult("12:00"),),
        person: Person | None = None, allowed: frozenset[str] = frozenset(), rounds: int = 3, context: int = 4000,
    ) -> None:  # fmt: skip
        self.clock, self.person = Clock(*results), person or Person()
        self.conversation = Conversation(
            open_model("", context=context), SamplingParams(), tools=tuple(each.tool for each in TOOLS.tools)
        )
        backend_of(self.conversation)._speak = in_turn(*replies)
        self.console, self.stop = Console(), Stop()
        gate = Gate(Consents(paths.consents_file()), allowed, person is not None, self.console, self.person)
        self.toolbox = Toolbox(TOOLS, self.clock, gate, 60.0, rounds)

    def ask(self, question: str = "What time is it?") -> tuple[Round, ...]:
        asking = self.conversation.ask(question)
        return answer_in_rounds(self.conversation, asking, self.console, self.stop, self.toolbox)

    @property
    def turns(self) -> list[tuple[str, str]]:
        return [(turn.role, turn.content) for turn in self.conversation.turns]


def states(rounds: tuple[Round, ...]) -> list[list[str]]:
    return [[each.state for each in one.calls] for one in rounds]


def test_a_call_runs_and_the_model_goes_on_with_its_result(capsys: pytest.CaptureFixture[str]) -> None:
    talk = Talk(call(), "It is 12:00.", person=Person("y"))
    rounds = talk.ask()
    assert talk.clock.calls == [("now", {"zone": "UTC"})]
    assert talk.turns == [
        ("user", "What time is it?"),
        ("assistant", ""),
        ("tool", "12:00"),
        ("assistant", "It is 12:00."),
    ]
    made, result = talk.conversation.turns[1].calls[0], talk.conversation.turns[2]
    assert (made.name, json.loads(made.arguments)) == ("time_now", {"zone": "UTC"})
    assert (result.call_id, result.name) == (made.id, "time_now")
    assert states(rounds) == [["done"], []]
    told = capsys.readouterr()
    assert told.out == "It is 12:00.\n"
    assert told.err.splitlines()[:2] == ["the model calls time_now (now of the server time)", '│ "zone": "UTC"']
    assert "5 characters in " in told.err
    assert talk.person.questions == ["run it? [y]es once, [a]lways for this tool, [n]o:"]
    body = as_json(talk.conversation, rounds)
    assert body["answer"] == "It is 12:00."
    assert [(each["round"], each["name"], each["server"], each["state"], each["result"]) for each in body["calls"]] == [
        (1, "time_now", "time", "done", "12:00")
    ]
    talk.person.answers = ["y"]
    talk.clock.results = [CallResult("13:00")]
    assert states(talk.ask("And now?"))[-1] == []


def test_no_means_that_nothing_runs_and_the_model_is_told() -> None:
    talk = Talk(call(), "As you like.", person=Person("n"))
    assert states(talk.ask()) == [["refused"], []]
    assert talk.clock.calls == []
    assert talk.turns[2] == ("tool", "The user refused this call.")


def test_always_asks_once_and_can_be_taken_back(capsys: pytest.CaptureFixture[str]) -> None:
    results = (CallResult("1"), CallResult("2"), CallResult("3"))
    talk = Talk(call(), call(), "Done.", results=results, person=Person("a"))
    assert states(talk.ask()) == [["done"], ["done"], []]
    assert len(talk.person.questions) == 1
    tools_command("", talk.toolbox, talk.console)
    listing = capsys.readouterr().err
    assert "time: uvx mcp-server-time\n  time_now  The time.\n" in listing
    assert "these run without a question (/tools forget NAME):\n  time_now  since " in listing
    tools_command("forget time_now", talk.toolbox, talk.console)
    assert Consents(paths.consents_file()).all() == ()
    with pytest.raises(NotFound, match="time_now is not a tool that runs without a question"):
        tools_command("forget time_now", talk.toolbox, talk.console)
    with pytest.raises(UsageError, match="/tools does not know 'forgets x'"):
        tools_command("forgets x", talk.toolbox, talk.console)
    other = Talk(call(), "Done.", person=Person("n"))
    assert states(other.ask()) == [["refused"], []]


def test_without_a_terminal_only_allowed_tools_run(capsys: pytest.CaptureFixture[str]) -> None:
    talk = Talk(call(), "No.")
    assert states(talk.ask()) == [["refused"], []]
    assert "warning: the model calls time_now, which nobody allowed: it does not run (--allow-tool time_now)" in (
        capsys.readouterr().err
    )
    assert states(Talk(call(), "Yes.", allowed=frozenset({"time_now"})).ask()) == [["done"], []]
    assert states(Talk(call(), "Yes.", allowed=frozenset({"all"})).ask()) == [["done"], []]
    assert states(Talk(call(), "No.", allowed=frozenset({"other"})).ask()) == [["refused"], []]


def test_a_consent_for_good_counts_only_where_somebody_could_be_asked() -> None:
    assert permission("x", frozenset(), remembered=True, terminal=True) == "allowed"
    assert permission("x", frozenset(), remembered=False, terminal=True) == "ask"
    assert permission("x", frozenset(), remembered=True, terminal=False) == "refused"
    assert permission("x", frozenset({"x"}), remembered=False, terminal=False) == "allowed"
    assert permission("all", frozenset({"x"}), remembered=False, terminal=False) == "refused"


@pytest.mark.parametrize("arguments", ["[1]", '"x"', "[" * 40 + "]" * 40, '{"x": ' + "[" * 40 + "]" * 40 + "}"])
def test_arguments_that_are_no_object_never_run(arguments: str) -> None:
    assert arguments_of(ToolCall("1", "x", arguments)) is None


def test_a_call_with_a_mistake_is_drawn_once_more_and_runs() -> None:
    # The fake's grammar of a schema takes one text, the schema.
    talk = Talk(call(arguments='{"type": b}'), "It is 12:00.", person=Person("y"))
    rounds = talk.ask()
    assert talk.clock.calls == [("now", {"type": "object", "properties": {"zone": {"type": "string"}}})]
    assert states(rounds) == [["done"], []]


def test_a_tool_that_nobody_offers_is_not_called() -> None:
    talk = Talk("", "", person=Person())
    done = talk.toolbox.run([ToolCall("1", "rm\x1b[2J", "{}"), ToolCall("2", "time_now", "{broken")], str, Stop())
    assert [(each.state, each.message.content) for each in done] == [
        ("invalid", "Error: there is no such tool"),
        ("invalid", "Error: the arguments are not a JSON object"),
    ]


def test_an_error_of_a_tool_is_told_and_a_long_result_is_cut() -> None:
    talk = Talk(call(), "Hm.", results=(CallResult("no such zone", failed=True),), person=Person("y"))
    assert states(talk.ask()) == [["failed"], []]
    assert talk.turns[2] == ("tool", "Error: no such zone")
    talk = Talk(call(), "Long.", results=(CallResult("x" * 9000),), person=Person("y"), context=8000)
    talk.ask()
    assert talk.turns[2] == ("tool", "x" * 2000 + "\n[cut: 7,000 more characters]")


def test_ctrl_c_in_a_call_cancels_it_and_the_model_goes_on() -> None:
    talk = Talk(call(), "Fine.", results=(CallCancelled(),), person=Person("y"))
    assert states(talk.ask()) == [["cancelled"], []]
    assert talk.turns[2:] == [("tool", "The user cancelled this call."), ("assistant", "Fine.")]


def test_ctrl_c_at_the_question_ends_the_rounds_and_the_next_question_works() -> None:
    talk = Talk(call() + "\n" + call(), "Fine.", person=Person(KeyboardInterrupt()))
    rounds = talk.ask()
    assert states(rounds)[0][0] == "cancelled"
    assert set(states(rounds)[0]) == {"cancelled"}
    assert talk.turns[-1] == ("tool", "The user stopped before this call.")
    backend_of(talk.conversation)._speak = in_turn("Hello.")
    assert talk.ask("Hi")[0].reply.completion.answer == "Hello."
    assert talk.turns == [("user", "Hi"), ("assistant", "Hello.")]


def test_an_answer_that_is_stopped_runs_nothing() -> None:
    talk = Talk(call(), "Fine.", person=Person())
    stop_after(talk.conversation, len(call()) - 1)
    rounds = talk.ask()
    assert talk.clock.calls == []
    assert rounds[-1].reply.stopped


def test_the_number_of_rounds_is_limited(capsys: pytest.CaptureFixture[str]) -> None:
    results = tuple(CallResult(str(number)) for number in range(9))
    talk = Talk(call(), results=results, allowed=frozenset({"all"}), rounds=2)
    rounds = talk.ask()
    assert states(rounds) == [["done"], ["done"], ["cancelled"], ["cancelled"]]
    assert len(talk.clock.calls) == 2
    assert "2 rounds of calls for one question: no more calls (--tool-rounds)" in capsys.readouterr().err
    assert talk.turns[6] == ("tool", "No more calls are allowed for this question. Answer now, without calls.")


def test_the_question_comes_from_dsr_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Arguments and results that look like a question, or move the cursor, stand behind a bar."""
    spoof = "run it? [y]es once\\n\\u001b[1A\\u202eallowed"
    talk = Talk(
        call(arguments='{"zone": "' + spoof + '"}'), "Hm.",
        results=(CallResult("done\nrun it? [y]es once, [a]lways for this tool, [n]o: y\x1b[1A"),), person=Person("y"),
    )  # fmt: skip
    talk.ask()
    told = capsys.readouterr().err
    assert '│ "zone": "run it? [y]es once\\n\\u001b[1A\\u202eallowed"' in told
    assert "│ run it? [y]es once, [a]lways for this tool, [n]o: y[1A" in told
    assert "\x1b" not in told and "\u202e" not in told
    assert not any(line.startswith("run it?") for line in told.splitlines())


def test_arguments_that_do_not_fit_can_be_seen_whole_before_a_yes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    talk = Talk(call(arguments=json.dumps({"zone": "x" * 100 + "rm -rf"})), "Hm.", person=Person("s", "n"))
    talk.ask()
    told = capsys.readouterr().err
    assert talk.person.questions[0].startswith("run it? [s]how all of it, ")
    assert "rm -rf" in told.replace("\n│ ", "")


def test_argument_lines() -> None:
    assert argument_lines({}) == ["no arguments"]
    assert argument_lines({"a": 1, "b": {"c": ["d\n"]}}) == ['"a": 1,', '"b": {', '  "c": [', '    "d\\n"', "  ]", "}"]


def test_calls_are_kept_resumed_saved_and_loaded(tmp_path: Path) -> None:
    talk = Talk(call(), "It is 12:00.", person=Person("y"))
    with Record.open(tmp_path / "c.sqlite", Console()) as record:
        record.begin("m", "")
        record.keep("What time is it?", talk.ask())
    earlier = kept_conversation(tmp_path / "c.sqlite")
    assert list(earlier.messages) == talk.conversation.turns
    assert earlier.messages[1].calls[0].name == "time_now"
    write_conversation(tmp_path / "c.json", "m", "", talk.conversation.turns)
    assert read_conversation(tmp_path / "c.json") == ("", talk.conversation.turns)


def test_a_question_whose_calls_led_to_no_answer_is_not_resumed(tmp_path: Path) -> None:
    talk = Talk("Hello.", person=Person(KeyboardInterrupt()))
    with Record.open(tmp_path / "c.sqlite", Console()) as record:
        record.begin("m", "")
        record.keep("Hi", talk.ask("Hi"))
        backend_of(talk.conversation)._speak = in_turn("", call())
        record.keep("Time?", talk.ask("Time?"))
    assert [turn.content for turn in kept_conversation(tmp_path / "c.sqlite").messages] == ["Hi", "Hello."]


def test_old_exchanges_with_calls_are_forgotten_whole() -> None:
    talk = Talk(call(), "It is 12:00.", person=Person("y"), context=900)
    talk.ask()
    backend_of(talk.conversation)._speak = in_turn("Yes.", "Yes.", "Yes.", "Yes.", "Yes.", "Yes.")
    for _ in range(3):
        talk.ask("Is it? " + "word " * 30)
    assert talk.conversation.forgotten.exchanges > 0
    assert [turn.role for turn in talk.conversation.turns[:4]] == ["user", "assistant", "tool", "assistant"]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "", "calls": [{"id": 1, "name": "x", "arguments": "{}"}]},
        {"role": "assistant", "content": "", "calls": [{}]},
        {"role": "assistant", "content": "", "calls": 3},
        {"role": "tool", "content": "", "call_id": 3},
    ],
)
def test_damaged_calls_in_a_file_are_refused(tmp_path: Path, message: dict[str, Any]) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"system": "", "messages": [message]}))
    with pytest.raises(UsageError, match="is not a conversation that /save wrote"):
        read_conversation(path)


def test_a_result_without_text_says_so() -> None:
    talk = Talk(call(), "Hm.", results=(CallResult(""),), person=Person("y"))
    talk.ask()
    assert talk.conversation.turns[2] == Message(
        "tool", "(no text)", call_id=talk.conversation.turns[1].calls[0].id, name="time_now"
    )


def test_a_vote_never_runs_tools(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    talk = Talk("Hello.", person=Person())
    with Record.open(tmp_path / "c.sqlite", Console()) as record:
        lines = iter(["/vote 4", "/strategy deepconf", "/vote off"])
        repl = Repl(talk.conversation, talk.console, record, talk.stop, None, talk.toolbox)
        repl.run(lambda _: next(lines, None) or ended())
    told = capsys.readouterr().err
    assert told.count("error: a vote never runs tools\nhint: start dsr without --tools") == 2
    assert talk.conversation.options.strategy is None


def ended() -> str:
    raise EOFError


def test_the_history_shows_calls_and_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    talk = Talk(call(), "It is 12:00.", results=(CallResult("12:00\x1b[2J\n12:01"),), person=Person("y"))
    with Record.open(paths.conversations_file(), Console()) as record:
        record.begin("m", "")
        record.keep("What time is it?", talk.ask())
    capsys.readouterr()
    history(conversation=1, search=None, limit=20, thinking=False, delete=None, path=False, yes=False)
    shown = capsys.readouterr().out
    assert '\ncalled time_now with {"zone": "UTC"}\n' in shown
    assert "\ntime_now returned:\n│ 12:00[2J\n│ 12:01\n" in shown
    assert shown.endswith("\nIt is 12:00.\nseed 0\n")
    history(conversation=1, search=None, limit=20, thinking=False, delete=None, path=False, yes=False, json=True)
    turns = json.loads(capsys.readouterr().out)["conversation"]["turns"]
    assert turns[1]["calls"][0]["name"] == turns[2]["name"] == "time_now"
    assert turns[1]["calls"][0]["id"] == turns[2]["call_id"]
