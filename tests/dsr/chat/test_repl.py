"""The conversation at the terminal: messages, slash commands, and Ctrl-C."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from dsr.chat.conversation import Conversation
from dsr.chat.conversation_file import read_conversation
from dsr.chat.forgetting import Forgotten
from dsr.chat.line_editor import read_message
from dsr.chat.options import ChatOptions
from dsr.chat.record import Record
from dsr.chat.repl import Repl
from dsr.models.model import Model
from dsr.models.sampling import SamplingRequest
from dsr.store import paths
from dsr.store.conversations import Conversations
from dsr.ui.console import Console
from runtime.base.errors import BadModelFile, NotFound, UsageError, WeightsLost
from runtime.base.run import Stop
from runtime.engine.template import file_layout
from runtime.strategies.strategy import STRATEGIES
from tests.dsr.chat.chatting import backend_of, conversation, stop_after

CTRL_C = KeyboardInterrupt()
SEVEN = "The answer is 7."


def keys(*lines: str | KeyboardInterrupt) -> Callable[[str], str]:
    """What the user types, line by line, then Ctrl-D."""
    left = iter(lines)

    def read(_: str) -> str:
        for line in left:
            if isinstance(line, KeyboardInterrupt):
                raise line
            return line
        raise EOFError

    return read


class Talk:
    """A REPL with a fake model; `said` is what appeared on stderr, `answers` on stdout."""

    def __init__(self, capsys: pytest.CaptureFixture[str], log: Record) -> None:
        self._capsys, self._log = capsys, log
        self.conversation: Conversation = conversation("Zero.", "One.")
        self.options.sampling = SamplingRequest(seed=0)
        self.answers = self.said = ""

    def type(self, *lines: str | KeyboardInterrupt) -> Model | None:
        repl = Repl(self.conversation, Console(), self._log, Stop())
        wanted = repl.run(keys(*lines))
        self.answers, self.said = self._capsys.readouterr()
        return wanted

    @property
    def options(self) -> ChatOptions:
        return self.conversation.options

    @property
    def kept(self) -> list[list[str]]:
        """What every kept conversation says, the latest last."""
        with Conversations(paths.conversations_file()) as store:
            return [[turn.content for turn in store.get(one.id).turns] for one in reversed(store.list())]


@pytest.fixture
def talk(capsys: pytest.CaptureFixture[str], log: Record) -> Talk:
    return Talk(capsys, log)


def test_questions_are_answered_and_kept(talk: Talk) -> None:
    assert talk.type("first", "second") is None
    assert talk.answers == "Zero.\nZero.\n"
    assert talk.kept == [["first", "Zero.", "second", "Zero."]]


def test_empty_lines_and_spaces_are_nothing(talk: Talk) -> None:
    talk.type("", "   ", "\t", '"""', '"""')
    assert (talk.answers, talk.conversation.turns) == ("", [])


def test_ctrl_c_at_the_prompt_clears_the_line_and_goes_on(talk: Talk) -> None:
    talk.type(CTRL_C, "first", CTRL_C)
    assert talk.answers == "Zero.\n"


@pytest.mark.parametrize("word", ["/bye", "/exit", "/quit"])
def test_leaving(talk: Talk, word: str) -> None:
    talk.type(word, "never said")
    assert talk.answers == ""


def test_a_path_and_a_line_that_begins_with_a_space_are_for_the_model(talk: Talk) -> None:
    talk.type("/etc/passwd is what?", " /help is what?")
    assert [turn.content for turn in talk.conversation.turns][::2] == ["/etc/passwd is what?", "/help is what?"]


def test_a_pasted_block_is_for_the_model_and_a_pasted_system_prompt_is_not(talk: Talk) -> None:
    talk.type("/help me\nwith this", "/system Be brief.\nBe kind.")
    assert [turn.content for turn in talk.conversation.turns][::2] == ["/help me\nwith this"]
    assert talk.conversation.system == "Be brief.\nBe kind."


def test_an_unknown_command_says_how_to_say_it(talk: Talk) -> None:
    talk.type("/xyz bar")
    assert talk.said == "error: no command /xyz\nhint: /help lists them; begin with a space to say it to the model\n"
    talk.type("/efort high")
    assert talk.said.splitlines()[1].startswith("hint: did you mean /effort? /help lists them; ")


def test_help_names_every_command(talk: Talk) -> None:
    talk.type("/help")
    names = " ".join(line.split()[0] for line in talk.said.splitlines() if line.startswith("/"))
    assert names == (
        "/help /bye /clear /edit /file /retry /copy /think /effort /keep-thoughts /system /set /raw /show /stats /vote"
        " /strategy /tools /why /history /resume /export /save /load /on-full /model /experts"
    )


def test_ctrl_c_in_an_answer_keeps_what_there_is(talk: Talk) -> None:
    stop_after(talk.conversation, 2)
    talk.type("first", "second")
    assert talk.answers == "Ze\nZero.\n"
    assert talk.said == "stopped\n"
    assert talk.kept == [["first", "Ze", "second", "Zero."]]


def test_ctrl_c_before_the_answer_keeps_nothing(talk: Talk) -> None:
    stop_after(talk.conversation, 0)
    talk.type("first", "second")
    assert talk.kept == [["second", "Zero."]]


def test_after_an_answer_was_stopped_inside_its_thought_the_conversation_goes_on(talk: Talk) -> None:
    talk.conversation = conversation("<think>Hmmm</think>Yes.")
    stop_after(talk.conversation, 9)
    talk.type("first", "second", "/regen")
    assert talk.answers == "Yes.\nYes.\n"
    assert "the last question got no answer; the model does not see it" in talk.said
    assert talk.kept == [["first", "", "second", "Yes."]]


def test_a_system_prompt_joins_the_question_where_the_template_has_no_place_for_it(talk: Talk) -> None:
    sysless = "{% for m in messages if m.role != 'system' %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    talk.conversation = conversation("Arr.", template=sysless)
    talk.type("/system Talk like a pirate.", "Hello")
    assert talk.said == (
        "system prompt: Talk like a pirate.\n"
        "the chat template has no system role: the system prompt joins the first question\n"
    )
    assert talk.answers == "Arr.\n"


def test_regen_answers_again(talk: Talk) -> None:
    talk.type("first", "/regen")
    assert talk.answers == "Zero.\nOne.\n"
    assert talk.kept == [["first", "One."]]
    talk.type("/retry")
    assert talk.answers == "Zero.\n"


def test_regen_without_a_question(talk: Talk) -> None:
    talk.type("/regen")
    assert talk.said == "error: there is no question to answer again\n"


def test_regen_stopped_at_once_keeps_the_answer_there_was(talk: Talk) -> None:
    talk.type("first")
    stop_after(talk.conversation, 0)
    talk.type("/regen")
    assert talk.kept == [["first", "Zero."]]


def test_clear_begins_another_conversation(talk: Talk) -> None:
    talk.type("first", "/clear", "second")
    assert talk.kept == [["first", "Zero."], ["second", "Zero."]]
    assert [turn.content for turn in talk.conversation.turns] == ["second", "Zero."]


def test_a_file_that_is_too_long_can_be_taken_back(talk: Talk, tmp_path: Path) -> None:
    long = tmp_path / "long.txt"
    long.write_text("long " * 300)
    talk.type(f"/file {long}", "first")
    assert talk.said.endswith("\nhint: /file off leaves out long.txt; or shorten the prompt\n")
    talk.type("/file off", "first")
    assert talk.kept == [["first", "Zero."]]
    assert "the next question is about no file\n" in talk.said


def test_clear_takes_back_the_files_of_the_next_question(talk: Talk, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("some")
    talk.type(f"/file {tmp_path / 'some.txt'}", "/clear", "first")
    assert talk.kept == [["first", "Zero."]]


def test_a_full_context_says_what_helps_here(talk: Talk) -> None:
    talk.type("long " * 300)
    assert talk.said.startswith("error: the prompt is ")
    assert talk.said.endswith("\nhint: shorten the prompt\n")
    talk.type("first", "long " * 300)
    assert talk.said.endswith("\nhint: shorten the prompt\n")
    talk.type("/on-full stop", "long " * 300)
    hint = "hint: /on-full forget makes room; /clear begins a new conversation; or shorten the prompt"
    assert hint in talk.said


def test_a_file_goes_with_the_next_question(talk: Talk, tmp_path: Path) -> None:
    (tmp_path / "my notes.txt").write_text("milk")
    talk.type(f"/file {tmp_path}/my notes.txt", "What is in it?", "And?", "/file", "/file /no/such")
    assert talk.said.splitlines() == [
        "the next question is about my notes.txt",
        "error: /file needs a file name, or off",
        "error: /no/such: no such file",
    ]
    first, _, second, _ = talk.kept[0]
    assert first == file_layout("my notes.txt", "milk", "What is in it?")
    assert second == "And?"


def test_on_full_is_told_and_set(talk: Talk) -> None:
    talk.type("/on-full", "/on-full summary", "/on-full grow")
    assert talk.said.splitlines() == [
        "on-full   forget",
        "on-full   summary",
        "error: /on-full must be stop, forget or summary, not 'grow'",
    ]
    assert talk.options.on_full == "summary"


def test_what_was_forgotten_is_told_shown_and_kept_on_disk(talk: Talk) -> None:
    talk.type(*(["long " * 40] * 4), "/show", "/clear", "/on-full")
    assert "forgot the 2 oldest exchanges (446 tokens) to make room\n" in talk.said
    assert "on-full   forget; the model does not see the 2 oldest exchanges (446 tokens)\n" in talk.said
    assert talk.said.endswith("on-full   forget\n")
    assert [len(said) for said in talk.kept] == [8]
    talk.conversation.forgotten = Forgotten(2, 446, "Long\nquestions.")
    talk.type("/on-full")
    assert talk.said.endswith(" (446 tokens); their summary: Long questions.\n")


def test_think(talk: Talk) -> None:
    talk.type("/think off")
    assert talk.options.asked.thinking is False
    talk.type("/think 20")
    assert (talk.options.asked.thinking, talk.conversation.params.think_budget) == (True, 20)
    talk.type("/think on")
    assert (talk.options.asked.thinking, talk.conversation.params.think_budget) == (True, None)
    talk.type("/think maybe", "/think")
    assert talk.said == "error: /think takes on, off, or a number of tokens\n" * 2


def test_think_where_thoughts_are_not_marked(talk: Talk) -> None:
    talk.conversation = conversation("Zero.", markers=None)
    talk.type("/think on")
    assert talk.said == ("this model does not mark thoughts: they cannot be switched on or off, limited or hidden\n")


def test_set_changes_one_thing_and_keeps_the_seed(talk: Talk) -> None:
    talk.options.sampling = SamplingRequest()
    talk.conversation.params = SamplingRequest(seed=5).applied_to(talk.conversation.params)
    talk.type("/set temp 0", "/set top-k 7", "/set max-tokens 9", "/set think-budget  3")
    params = talk.conversation.params
    assert (params.temperature, params.top_k, params.max_tokens, params.think_budget) == (0.0, 7, 9, 3)
    assert params.seed == 5
    talk.type("/set max-tokens off", "/set seed 8")
    assert (talk.conversation.params.max_tokens, talk.conversation.params.seed) == (None, 8)
    assert talk.said == "max-tokens = off\nseed = 8\n"


def test_set_takes_every_sampling_setting_and_gives_it_back(talk: Talk) -> None:
    for name, value in (
        ("presence-penalty", "1.5"),
        ("penalty-last-n", "-1"),
        ("dry-multiplier", "0.8"),
        ("dry-sequence-breaker", r"\n 'a b'"),
        ("xtc-probability", "0.5"),
        ("logit-bias", "'7=-2' 'no=-inf'"),
    ):
        talk.type(f"/set {name} {value}")
    params = talk.conversation.params
    assert (params.presence_penalty, params.penalty_last_n, params.dry_multiplier) == (1.5, -1, 0.8)
    assert (params.dry_sequence_breakers, params.xtc_probability) == (("\n", "a b"), 0.5)
    assert params.logit_bias == ((7, -2.0), ("no", -math.inf))
    talk.type("/show")
    assert "presence-penalty 1.5, penalty-last-n -1, dry-multiplier 0.8" in " ".join(talk.said.split())
    talk.type("/set presence-penalty default")
    talk.type("/set logit-bias default")
    assert (talk.conversation.params.presence_penalty, talk.conversation.params.logit_bias) == (0.0, ())


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("/set temp abc", "/set temp takes a number, not 'abc'"),
        ("/set temp nan", "temp must be between 0 and 10, not nan"),
        ("/set temp off", "/set temp takes a number, not 'off'"),
        ("/set top-k 1.5", "/set top-k takes a number, not '1.5'"),
        ("/set max-tokens x", "/set max-tokens takes a number, or off, not 'x'"),
        ("/set thinking loud", "/set thinking takes show, hide, summary, not 'loud'"),
        ("/set colour red", "/set does not know 'colour'"),
        ("/set logit-bias x", "a logit bias is TOKEN=BIAS, not 'x'"),
        ("/set seed -1", "seed must be between 0 and 4,294,967,295, not -1"),
        ("/set repeat-penalty 0", "repeat-penalty must be between 0.1 and 10, not 0"),
    ],
)
def test_set_refuses_and_changes_nothing(talk: Talk, line: str, problem: str) -> None:
    before = talk.conversation.params
    talk.type(line)
    assert talk.said.splitlines()[0] == f"error: {problem}"
    assert talk.conversation.params == before
    assert talk.options == ChatOptions(SamplingRequest(seed=0))


def test_set_thinking(talk: Talk) -> None:
    talk.conversation = conversation("<think>\nhm\n</think>\n\nYes.")
    talk.type("x", "/set thinking hide", "x")
    assert talk.said == "hm\nthinking = hide\n"


def test_stats(talk: Talk) -> None:
    talk.type("/stats", "/stats maybe")
    assert talk.said == "no answer yet\nerror: /stats takes on, off, or nothing\n"
    talk.type("/stats on", "first")
    assert talk.said.splitlines()[0] == "stats are on"
    assert talk.said.splitlines()[1].startswith("22 prompt + 5 answer tokens, prompt read in ")
    talk.type("/stats off", "second", "/stats")
    assert talk.said.splitlines()[0] == "stats are off"
    assert len(talk.said.splitlines()) == 2


def test_show(talk: Talk) -> None:
    talk.conversation.params = SamplingRequest(temperature=0.5, seed=3).applied_to(talk.conversation.params)
    talk.conversation.system = "Be brief."
    talk.type("/show")
    assert talk.said == (
        "model     fake:1b\n"
        "file      fake.gguf\n"
        "context   1000 tokens\n"
        "threads   2\n"
        "thinking  the model's default; show\n"
        "template  no switch in the chat template; system prompt has its own role\n"
        "effort    the chat template knows no levels of effort\n"
        "thoughts  earlier ones are removed; the chat template never writes them\n"
        "sampling  temp 0.5, top-p 0.95, top-k 40, seed 3"
        " (llama.cpp has temp 0.8, top-p 0.95, top-k 40, min-p 0.05)\n"
        "system    Be brief.\n"
        "turns     0\n"
        "on-full   forget\n"
    )
    talk.type("/set temp 0.8", "/set min-p 0.05", "/show")
    assert "top-k 40, min-p 0.05, seed 3 (as llama.cpp has it)\n" in talk.said


def test_a_system_prompt_begins_another_record(talk: Talk) -> None:
    talk.type("first", "/system Be brief.", "second", "/system")
    assert talk.said == "system prompt: Be brief.\nno system prompt\n"
    assert talk.conversation.system == ""
    assert talk.kept == [["first", "Zero."], ["first", "Zero.", "second", "Zero."]]


def test_save_and_load_again(talk: Talk, tmp_path: Path) -> None:
    talk.conversation.system = "Be brief."
    talk.type("first", f"/save {tmp_path}/a b.json")
    assert talk.said == f"saved 2 messages to {tmp_path}/a b.json\n"
    assert json.loads((tmp_path / "a b.json").read_text()) == {
        "schema": "dsr.conversation/1",
        "model": "fake:1b",
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "first"}, {"role": "assistant", "content": "Zero."}],
    }
    talk.conversation = conversation("Two.")
    talk.type(f"/load {tmp_path}/a b.json", "second")
    assert talk.said == "continuing with 2 messages\n"
    assert talk.conversation.system == "Be brief."
    assert talk.kept[-1] == ["first", "Zero.", "second", "Two."]


def test_files_that_cannot_be_saved_or_loaded(talk: Talk, tmp_path: Path) -> None:
    talk.type("/save", "/load", f"/save {tmp_path}", f"/load {tmp_path}/none.json")
    assert talk.said.splitlines() == [
        "error: /save needs a file name",
        "error: /load needs a file name",
        f"error: {tmp_path}: cannot be written: Is a directory",
        f"error: {tmp_path}/none.json: no such file",
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"system": 1, "messages": []}',
        b'{"system": "", "messages": 3}',
        b'{"system": "", "messages": [{"role": "robot", "content": "x"}]}',
        b'{"system": "", "messages": [{"role": "user", "content": 1}]}',
        b'{"system": "", "messages": ["x"]}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_conversation(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"is not a (conversation that /save wrote|text file)"):
        read_conversation(path)
    with pytest.raises(NotFound):
        read_conversation(tmp_path / "none.json")


def test_model_goes_on_with_another_one_and_a_bad_name_stays(talk: Talk) -> None:
    wanted = talk.type("/model no-such-thing", "/model", "/model nano", "never said")
    assert wanted is not None and wanted.embedded
    assert talk.said.splitlines()[0] == "error: no model is called 'no-such-thing'"
    assert "error: /model needs a name" in talk.said
    assert talk.answers == ""


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["one line"], "one line"),
        (['"""one line"""'], "one line"),
        (['"""', "a", "", " b", '"""'], "a\n\n b"),
        (['  """a', 'b""" '], "a\nb"),
        (['"""', "not closed"], "not closed"),
        (['"""Adds.\n\nMore.\n"""\ndef add(a, b):'], '"""Adds.\n\nMore.\n"""\ndef add(a, b):'),
        (['"""quoted"""\nWhat is this?'], '"""quoted"""\nWhat is this?'),
        (['"""'], ""),
    ],
)
def test_messages_of_several_lines(lines: list[str], message: str) -> None:
    assert read_message(keys(*lines)) == message


def test_the_end_and_ctrl_c_in_a_block() -> None:
    with pytest.raises(EOFError):
        read_message(keys())
    with pytest.raises(KeyboardInterrupt):
        read_message(keys('"""', "a", CTRL_C))


def test_the_line_editor_reads_a_terminal_and_remembers(talk: Talk, log: Record) -> None:
    with create_pipe_input() as typed, create_app_session(input=typed, output=DummyOutput()):
        typed.send_text("/sta\tx\x15first\r\x03\x04")
        Repl(talk.conversation, Console(), log, Stop()).run()
    assert talk.kept == [["first", "Zero."]]
    history = paths.input_history_file()
    assert "+first" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600


def test_without_a_log_what_was_typed_is_not_kept_either(talk: Talk) -> None:
    with create_pipe_input() as typed, create_app_session(input=typed, output=DummyOutput()):
        typed.send_text("secret\r\x04")
        with Record.open(None, Console()) as log:
            Repl(talk.conversation, Console(), log, Stop()).run()
    assert backend_of(talk.conversation).decoded > 0
    assert not paths.input_history_file().exists()


# --- several samples


def test_vote_holds_until_it_is_off(talk: Talk) -> None:
    talk.conversation = conversation(SEVEN, "The answer is 8.", SEVEN, slots=4)
    talk.type("/vote 3", "first", "/vote off", "second")
    assert talk.answers == f"{SEVEN}\n{SEVEN}\n"
    assert talk.said.splitlines()[0] == "strategy: vote n=3"
    assert "7: 2 of 3 votes; 8: 1\n" in talk.said
    assert talk.said.endswith("strategy: direct\n")
    assert talk.kept == [["first", SEVEN, "second", SEVEN]]


def test_a_model_whose_file_was_lost_is_opened_again_for_the_next_question(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = talk.conversation.loaded.model
    asked: list[str] = []

    def find(reference: str) -> Model:
        asked.append(reference)
        if len(asked) == 1:
            raise BadModelFile(Path("fake.gguf"), "it is cut")
        return whole

    monkeypatch.setattr("dsr.chat.repl.library.find", find)
    backend = backend_of(talk.conversation)
    backend.abort_after, backend.abort_with = 2, WeightsLost("fake.gguf: the file was cut while the model was running")
    repl = Repl(talk.conversation, Console(), talk._log, Stop())
    assert repl.run(keys("Count.", "/stats", "Still cut?", "Go on.", "never read")) is whole
    assert (asked, repl.unanswered) == ([talk.conversation.reference] * 2, " Go on.")
    said = talk._capsys.readouterr().err
    assert "error: fake.gguf: the file was cut" in said and "your next message opens the model again" in said
    assert "error: fake.gguf: it is cut" in said


def test_a_strategy_is_kept_in_the_options_for_the_next_model(talk: Talk) -> None:
    talk.type("/strategy vote n=2 stop=none")
    assert str(talk.options.strategy) == "vote n=2 stop=none"
    talk.type('/strategy monkeys check="grep -q 7" n=2')
    assert talk.options.strategy is not None and talk.options.strategy.settings.check == "grep -q 7"
    talk.type("/strategy off")
    assert talk.options.strategy is None


def test_strategy_alone_tells_the_present_one_and_the_others(talk: Talk) -> None:
    talk.type("/strategy", "/vote 4", "/strategy")
    lines = talk.said.splitlines()
    assert lines[0] == "now: direct" and "now: vote n=4" in lines
    names = [line.split()[0] for line in lines[1:] if not line.startswith((" ", "now:", "strategy:"))]
    assert names[: len(STRATEGIES)] == list(STRATEGIES)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("/vote", "/vote takes a number of samples, or off"),
        ("/vote many", "/vote takes a number of samples, or off"),
        ("/vote 0", "between 1 and 255 samples can be drawn, not 0"),
        ("/strategy votes", "there is no strategy 'votes'"),
        ("/strategy vote n", "a setting is written KEY=VALUE, not 'n'"),
        ("/strategy monkeys check='true", "a quotation mark is missing"),
    ],
)
def test_a_strategy_that_makes_no_sense_changes_nothing(talk: Talk, line: str, error: str) -> None:
    talk.type("/vote 2", line)
    assert f"error: {error}" in talk.said
    assert str(talk.options.strategy) == "vote n=2"


def test_fewer_slots_than_samples_are_told_at_once(talk: Talk) -> None:
    talk.type("/vote 3")
    assert talk.said.splitlines()[1] == "3 samples in waves of 1"


def test_why(talk: Talk) -> None:
    talk.conversation = conversation(SEVEN, "The answer is 8.", SEVEN, slots=4)
    talk.type("/why", "first", "/why")
    assert talk.said == "no answer yet\nit was the only sample; /vote 8 lets several agree\n"
    talk.type("/vote 3", "second", "/why")
    lines = talk.said.splitlines()
    assert lines.count("7: 2 of 3 votes; 8: 1") == 2
    assert [line.partition(" (")[0] for line in lines[-3:]] == ["sample 1: 7", "sample 2: 8", "sample 3: 7"]


def test_regen_votes_again_with_other_seeds(talk: Talk) -> None:
    talk.conversation = conversation(SEVEN, slots=2)
    talk.type("/vote 2", "first", "/regen")
    assert talk.conversation.params.seed == 65536
    assert talk.kept == [["first", SEVEN]]


def test_ctrl_c_in_a_vote_keeps_the_best_so_far(talk: Talk) -> None:
    talk.conversation = conversation(SEVEN, "It is 8, " + "or more, " * 40, slots=2)
    stop_after(talk.conversation, 40)
    talk.type("/vote 2", "first", "/vote off", "second")
    assert talk.answers == f"{SEVEN}\n{SEVEN}\n"
    assert talk.kept == [["first", SEVEN, "second", SEVEN]]
