"""A strategy chosen, run in a conversation, and what is said of its verdict."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from dsr.chat.conversation import Conversation, Reply
from dsr.chat.options import (
    ChatOptions,
    ends_loops,
    strategy_notes,
    strategy_of,
    table,
    with_piped_text,
)
from dsr.chat.record import Record
from dsr.chat.show_answer import show_answer
from dsr.chat.summary import as_json, stats_line, verdict_lines, why_lines
from dsr.chat.tools.rounds import Round
from dsr.loading.load import LoadedModel
from dsr.models.model import ChatFormat, card_markers
from dsr.store import paths
from dsr.store.conversations import Conversations
from dsr.ui.console import Console
from runtime.base.errors import DoesNotFit, UsageError
from runtime.base.events import Event
from runtime.base.run import Run, Stop
from runtime.base.types import Message, SamplingParams
from runtime.engine.template import ChatTemplate
from runtime.gguf.reader import read_card
from runtime.strategies import rounds, tree, verify
from runtime.strategies.strategy import STRATEGIES, find
from runtime.strategies.verdict import Sample, Unit, count
from tests.dsr.chat.chatting import a_model, backend_of, conversation, stop_after, with_card
from tests.dsr.chat.test_session import GREETING, SUM, chat, process
from tests.fakes import FakeBackend
from tests.runtime.strategies.scripted import completion, drain, sample, task
from tests.runtime.strategies.test_verify import with_mistake

THOUGHT = "<think>\nhm\n</think>\n\n"


# What a strategy cannot do without.
_NEEDED = {"repeated-sampling": ["check=true"]}


def said(answer: str, thought: str = "hm") -> str:
    return f"<think>\n{thought}\n</think>\n\nThe answer is {answer}."


def voters(*answers: str, stop: str = "none", slots: int = 8, **fields: Any) -> Conversation:
    """A conversation whose samples answer these in turn, and which lets them vote."""
    talk = conversation(*(said(answer) if answer else THOUGHT for answer in answers), slots=slots, **fields)
    talk.options.strategy = find("vote").configured([f"n={len(answers)}", f"stop={stop}"])
    return talk


def replied(talk: Conversation, console: Console | None = None) -> Reply:
    return show_answer(talk, talk.ask("x"), console or Console(), Stop())


# --- choosing


def test_vote_is_short_for_a_strategy_and_its_number() -> None:
    assert strategy_of(8, None, ["stop=none"]) == strategy_of(None, "vote", ["n=8", "stop=none"])
    choice = strategy_of(16, "vote", [])
    assert choice is not None
    assert (choice.samples, str(choice)) == (16, "vote n=16")
    assert strategy_of(None, None, []) is None


def test_a_budget_is_that_of_the_strategy_or_of_one_sample() -> None:
    assert str(strategy_of(8, None, [], "4000")) == "vote n=8 budget=4000"
    assert str(strategy_of(None, "tree", ["steps=2"], "30s")) == "tree steps=2 budget=30s"
    assert str(strategy_of(None, None, [], "4000")) == "direct budget=4000"


@pytest.mark.parametrize(
    ("vote", "name", "settings", "problem"),
    [
        (None, None, ["n=8"], "--set changes a strategy, and none was named"),
        (8, "direct", [], "--vote 8 means --strategy vote, and --strategy direct is another"),
        (None, "vot", [], "there is no strategy 'vot'"),
        (None, "vote", ["m=8"], "vote has no setting 'm'"),
        (None, "vote", ["n"], "a setting is written KEY=VALUE, not 'n'"),
        (None, "vote", ["=8"], "a setting is written KEY=VALUE, not '=8'"),
        (None, "vote", ["n=many"], "vote: n takes a number, not 'many'"),
        (0, None, [], "between 1 and 255 samples"),
        (256, None, [], "between 1 and 255 samples"),
    ],
)
def test_what_makes_no_sense_is_refused(vote: int | None, name: str | None, settings: list[str], problem: str) -> None:
    with pytest.raises(UsageError, match=re.escape(problem)):
        strategy_of(vote, name, settings)


def test_the_table_names_every_strategy_with_its_defaults() -> None:
    listed = {each.name: each for each in table()}
    assert [*listed] == list(STRATEGIES)
    assert listed["vote"].settings.startswith("n=8 ")
    assert (listed["direct"].settings, listed["direct"].measured) == ("", "")
    assert listed["tree"].measured.startswith("never gained: ")
    assert listed["repeated-sampling"].measured == ""


def test_what_to_know_before() -> None:
    vote, greedy = find("vote").configured(["n=8"]), SamplingParams(temperature=0)
    backend = FakeBackend(lambda held, seed: 0, slots=3, context=768)
    assert strategy_notes(vote, backend, SamplingParams()) == [
        "8 samples in waves of 3: memory for 768 tokens of context"
    ]
    opened_for_fewer = FakeBackend(lambda held, seed: 0, slots=3, context=9000)
    assert strategy_notes(vote, opened_for_fewer, SamplingParams()) == ["8 samples in waves of 3"]
    roomy = FakeBackend(lambda held, seed: 0, slots=8)
    assert strategy_notes(vote, roomy, greedy) == ["at temperature 0 all samples are the same; try --temp 0.6"]
    assert strategy_notes(None, backend, greedy) == strategy_notes(find("direct").configured(), backend, greedy) == []


# --- deciding


def test_the_answer_most_samples_agree_on_is_the_reply() -> None:
    talk = voters("7", "8", "7", "9", "7")
    reply = replied(talk)
    assert reply.verdict is not None
    assert (reply.verdict.winner, reply.verdict.confidence, reply.stopped) == ("7", 0.6, False)
    assert talk.turns == [Message("user", "x"), Message("assistant", "The answer is 7.", "hm")]


def test_the_turns_before_are_in_every_samples_prompt() -> None:
    talk = voters("7", "7")
    talk.system, talk.turns = "Be brief.", [Message("user", "hello"), Message("assistant", "Hi!")]
    replied(talk)
    assert talk.turns[-1].content == "The answer is 7."
    prompt = len(b"system: Be brief.\nuser: hello\nassistant: Hi!\nuser: x\nassistant:")
    assert talk.last is not None and talk.last.prompt_tokens == prompt
    # The prompt is read once, each sample decodes its own last token of it.
    samples = 2 * len(said("7").encode())
    assert backend_of(talk).decoded == prompt - 1 + samples + 2


def test_without_a_strategy_nothing_is_judged() -> None:
    talk = conversation("Hi.")
    assert replied(talk).verdict is None


def test_again_draws_none_of_the_samples_that_were_drawn_before() -> None:
    talk = voters("7", "7")
    replied(talk)
    list(talk.again())
    assert talk.params.seed == 65536


def test_a_context_larger_than_the_training_length_is_shared_and_not_used_by_one_alone() -> None:
    talk = conversation("endless " * 100, slots=2, reach=40)
    talk.options.strategy = find("vote").configured(["n=2", "stop=none"])
    reply = replied(talk)
    assert len(reply.completion.tokens) + reply.prompt_tokens == 41  # the last one is only drawn
    assert reply.completion.finish_reason == "length"
    with pytest.raises(DoesNotFit, match="the prompt is 67 tokens long, and 40 is the most for a prompt with"):
        list(talk.ask("long " * 10))


@pytest.fixture(scope="module")
def nano(nano_path: Path) -> Iterator[tuple[LoadedModel, Stop]]:
    """The embedded model, opened once, and what stops it."""
    from runtime.llama import LlamaBackend, OpenOptions

    stop, found = Stop(), read_card(nano_path)
    template = ChatTemplate(found.template or "", bos="", eos="")
    markers = card_markers(found)
    assert markers is not None
    options = OpenOptions(context=4096, slots=4, visible=markers.texts)
    with LlamaBackend(nano_path, options, Run(stop)) as backend:
        yield (
            LoadedModel(with_card(a_model("nano"), found), backend, ChatFormat(template, markers), 1, 0.0),
            stop,
        )


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_answers_can_be_stopped_and_is_explained(
    name: str, nano: tuple[LoadedModel, Stop], capsys: pytest.CaptureFixture[str]
) -> None:
    model, stop = nano
    params = SamplingParams(temperature=1.0, seed=1, max_tokens=100)
    talk = Conversation(model, params, ChatOptions(strategy=find(name).configured(_NEEDED.get(name, []))))
    reply = show_answer(talk, talk.ask("What is 34 + 58?"), Console(), stop)
    assert reply.verdict is not None and not reply.stopped
    assert capsys.readouterr().out == reply.completion.answer.rstrip("\n") + "\n"
    assert why_lines(reply.verdict)
    assert json.loads(json.dumps(as_json(talk, [Round(reply)])))["verdict"]["tokens"]["spent"] > 0

    def interrupted() -> Generator[Event, None, None]:
        for number, event in enumerate(talk.ask("What is 34 + 58?")):
            if number == 8:
                stop.set()
            yield event

    reply = show_answer(talk, interrupted(), Console(), stop)
    assert reply.stopped and reply.verdict is not None
    assert "stopped\n" in capsys.readouterr().err


# --- what is shown


def test_the_chosen_answer_then_the_tally(capsys: pytest.CaptureFixture[str]) -> None:
    talk = voters("7", "8", "7", "7")
    replied(talk)
    out, err = capsys.readouterr()
    assert out == "The answer is 7.\n"
    *samples, thought, tally, rule = err.splitlines()
    assert [line.partition(" (")[0] for line in samples] == [f"sample {n}: {a}" for n, a in enumerate("7877", 1)]
    assert (thought, tally) == ("hm", "7: 3 of 4 votes; 8: 1")
    assert re.fullmatch(r"vote: majority of 4.*; \d+ tokens", rule)


def test_quiet_gives_the_answer_alone(capsys: pytest.CaptureFixture[str]) -> None:
    replied(voters("7", "8", "7"), Console(quiet=True))
    assert capsys.readouterr() == ("The answer is 7.\n", "")


def test_a_strategy_of_one_sample_is_shown_while_it_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    talk = conversation(said("7"))
    talk.options.strategy = find("direct").configured()
    assert replied(talk).verdict is not None
    assert capsys.readouterr() == ("The answer is 7.\n", "hm\n")


def test_all_different(capsys: pytest.CaptureFixture[str]) -> None:
    reply = replied(voters(*"123456"))
    assert reply.verdict is not None and reply.verdict.tied
    tally, rule = verdict_lines(reply.verdict)
    assert tally == "1: 1 of 6 votes; 2: 1; 3: 1; 4: 1; 2 other answers"
    assert "tie" in rule


def test_a_tie_says_how_it_was_broken() -> None:
    talk = conversation(said("7", "a long thought"), said("8", "short"), slots=2)
    talk.options.strategy = find("vote").configured(["n=2", "stop=none"])
    reply = replied(talk)
    assert reply.verdict is not None
    tally, rule = verdict_lines(reply.verdict)
    assert tally == "8: 1 of 2 votes; 7: 1"
    assert "tie" in rule and "shorter thought" in rule


def test_nobody_answered(capsys: pytest.CaptureFixture[str]) -> None:
    talk = voters("", "", "")
    reply = replied(talk)
    assert reply.verdict is not None and (reply.verdict.winner, reply.verdict.abstained) == (None, 3)
    err = capsys.readouterr().err
    assert "sample 1: no answer (" in err
    assert "no sample gave an answer; showing the surest\n" in err


def test_votes_and_weights() -> None:
    talk = voters("7", "8", "7")
    talk.options.strategy = find("vote").configured(["n=3", "stop=none", "weights=certainty"])
    reply = replied(talk)
    assert reply.verdict is not None
    assert re.fullmatch(r"7: 2 of 3 votes \(\d+ %\); 8: 1 \(\d+ %\)", verdict_lines(reply.verdict)[0])


def test_samples_that_did_not_answer_are_counted_apart() -> None:
    reply = replied(voters("7", "", "7"))
    assert reply.verdict is not None
    assert verdict_lines(reply.verdict)[0] == "7: 2 of 2 votes; no answer: 1"


def test_rounds_tell_what_each_of_them_said_and_count_no_votes(capsys: pytest.CaptureFixture[str]) -> None:
    answers = ("4", "7", "8", "7", "8", "")
    verdict = rounds.judge([sample(number, f"\\boxed{{{text}}}") for number, text in enumerate(answers)])
    assert verdict_lines(verdict) == [
        "2 earlier rounds; round 3: 8; round 4: 7; round 5: 8; round 6: no answer",
        f"rounds: the last answer that was given, in round 5 of 6; {verdict.spent} tokens",
    ]
    talk = conversation(said("7"), said("8"))
    talk.options.strategy = find("rounds").configured()
    replied(talk)
    tally, rule = capsys.readouterr().err.splitlines()[-2:]
    assert tally == "round 1: 7; round 2: 8"
    assert rule.startswith("rounds: the last answer that was given, in round 2 of 2; ")


def test_rounds_of_which_none_began() -> None:
    verdict = rounds.judge([sample(0, "", tokens=0, finish_reason="cancelled")])
    assert verdict_lines(verdict)[0] == "no sample gave an answer; showing the longest"


def test_a_verified_solution_and_its_revision_are_told_in_turn_and_judges_are_samples_too() -> None:
    _, verdict = drain(verify.run(task(with_mistake), verify.VerifySettings(verifiers=3, stable=2, rounds=5)))
    assert verdict_lines(verdict) == [
        "solution: 8; revised: 7",
        f"verify: step 2 was found wrong: 2 of 3 judges after round 3; {verdict.spent} tokens",
    ]
    assert verdict.drawn == 1 + 3 + 3 + 3 + 1


def test_what_was_chosen_is_told_without_votes() -> None:
    samples = [Sample.of(completion(number, text), 0.0) for number, text in enumerate(("7.", "8.", "8.", ""))]
    samples[0] = replace(samples[0], weight=1.0)
    for unit, tally in {
        "beam": "7: 1 of 4 beams; 8: 2; no answer: 1",
        "path": "7: 1 of 4 paths; 8: 2; no answer: 1",
        "sample": "7: 1 of 4 samples; 8: 2; no answer: 1",
        "vote": "7: 1 of 3 votes (100 %); 8: 2 (0 %); no answer: 1",
    }.items():
        assert verdict_lines(count("x", samples, "a rule", unit=cast(Unit, unit)))[0] == tally


def test_a_path_that_was_chosen_without_an_answer_is_not_called_the_surest() -> None:
    _, verdict = drain(
        tree.run(
            task(lambda question, sample: f"Thanks, {sample}.\n\nYou are welcome! Send me another puzzle."),
            tree.TreeSettings(n_generate=2),
        )
    )
    assert verdict_lines(verdict)[0] == "no path gave an answer; showing the best"


@pytest.mark.parametrize(
    ("name", "settings", "unit"),
    [
        ("vote", [], "vote"),
        ("first-finish", [], "sample"),
        ("first-finish", ["k=2"], "vote"),
        ("monkeys", ["check=true"], "sample"),
        ("rounds", [], "turn"),
        ("verify", [], "turn"),
        ("tree", [], "path"),
        ("phi", [], "beam"),
    ],
)
def test_each_strategy_says_what_it_counts(name: str, settings: list[str], unit: str) -> None:
    choice = find(name).configured(settings)
    _, verdict = drain(choice.run(task(lambda question, sample: "\\boxed{7}")))
    assert (verdict.winner, verdict.unit) == ("7", unit)


def test_why_tells_of_every_sample() -> None:
    reply = replied(voters("7", "", "7", "7", "7", "7", stop="certain", slots=6))
    assert reply.verdict is not None
    lines = [re.sub(r"\d+\.\d s", "_ s", line) for line in why_lines(reply.verdict)[2:]]
    tokens = len(said("7"))
    assert f"sample 1: 7 ({tokens} tokens, _ s, 61 % sure)" in lines
    assert f"sample 2: no answer ({len(THOUGHT)} tokens, _ s, 61 % sure)" in lines


def test_stats_count_all_samples() -> None:
    reply = replied(voters("7", "7"))
    assert reply.verdict is not None
    assert f"{reply.verdict.spent} tokens in 2 samples, " in stats_line(reply)


# --- Ctrl-C, memory, the record


def test_ctrl_c_shows_the_best_so_far_and_the_tally(capsys: pytest.CaptureFixture[str]) -> None:
    talk = conversation(said("7"), said("7"), said("8", "an endless " * 40), slots=3)
    talk.options.strategy = find("vote").configured(["n=3", "stop=none"])
    stop_after(talk, 3 * len(said("7")) + 30)
    reply = replied(talk)
    assert reply.stopped and reply.verdict is not None
    out, err = capsys.readouterr()
    assert out == "The answer is 7.\n"
    assert "\nstopped\n7: 2 of 2 votes\n" in err
    assert err.count("stopped\n") == 1
    assert "sample 3: stopped (" in err


def test_ctrl_c_before_any_answer_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    talk = voters("7", "7")
    stop_after(talk, 16)
    reply = replied(talk)
    assert reply.stopped and reply.drew_something
    assert "stopped\nno sample gave an answer; showing the longest\n" in capsys.readouterr().err


def test_ctrl_c_before_the_first_token_leaves_the_conversation_alone() -> None:
    talk = voters("7", "7")
    stop_after(talk, 0)
    reply = replied(talk)
    assert reply.stopped and not reply.drew_something
    assert talk.turns == []


def test_more_samples_than_the_context_holds_wait_for_each_other() -> None:
    talk = voters(*"77777777", slots=8, context=150)
    reply = replied(talk)
    assert reply.verdict is not None
    assert [(each.answer, each.votes) for each in reply.verdict.tally] == [("7", 8)]


def test_a_full_context_cuts_every_sample_and_it_still_ends() -> None:
    talk = conversation("endless " * 100, slots=4, context=120)
    talk.options.strategy = find("vote").configured(["n=4", "stop=none"])
    reply = replied(talk)
    assert reply.verdict is not None and reply.verdict.winner is None
    assert {each.completion.finish_reason for each in reply.verdict.samples} == {"length"}


def test_the_record_keeps_the_tally() -> None:
    talk = voters("7", "8", "7")
    with Record.open(paths.conversations_file(), Console()) as log:
        log.begin("fake:1b", "")
        log.keep("x", [Round(replied(talk))])
    with Conversations(paths.conversations_file()) as store:
        stats = store.get(1).turns[1].stats
    assert stats is not None and stats["verdict"] == {
        "strategy": "vote",
        "winner": "7",
        "tally": [{"answer": "7", "votes": 2, "weight": 2.0}, {"answer": "8", "votes": 1, "weight": 1.0}],
    }


# --- with the embedded model


def test_json_carries_the_whole_verdict() -> None:
    result = chat(SUM, "--vote", "4", "--set", "stop=none", "--temp", "1", "--seed", "5", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    body = json.loads(result.stdout)
    verdict = body["verdict"]
    assert list(verdict) == [
        "strategy", "winner", "confidence", "tally", "abstained", "tied", "rule", "samples", "tokens", "valued_by",
        "evidence",
    ]  # fmt: skip
    assert (verdict["strategy"], verdict["winner"]) == ("vote", "933")
    assert sum(each["votes"] for each in verdict["tally"]) + verdict["abstained"] == 4
    samples = verdict["samples"]
    assert sorted(each["seed"] for each in samples) == [5, 6, 7, 8]
    assert {"answer", "tokens", "finish_reason", "seconds", "confidence", "note"} < set(samples[0])
    assert verdict["tokens"]["spent"] == sum(each["tokens"] for each in samples)
    assert body["answer"] == "The answer is \\boxed{933}."
    again = json.loads(chat(SUM, "--vote", "4", "--set", "stop=none", "--temp", "1", "--seed", "5", "--json").stdout)
    assert [each["tokens"] for each in again["verdict"]["samples"]] == [each["tokens"] for each in samples]


def test_piped_the_answer_is_alone_on_stdout() -> None:
    result = chat(SUM, "--vote", "3", "--temp", "1", "--seed", "5", "--thinking", "hide")
    assert (result.exit_code, result.stdout) == (0, "The answer is \\boxed{933}.\n")
    lines = result.stderr.splitlines()
    assert lines[0] == GREETING
    assert lines[1].startswith("sample ")
    assert re.match(r"933: \d of \d votes", lines[-2])


def test_the_strategies_are_listed() -> None:
    result = chat("--list-strategies")
    assert result.exit_code == 0
    names = [line.split()[0] for line in result.stdout.splitlines() if not line.startswith(" ")]
    assert names == list(STRATEGIES)
    body = json.loads(chat("--list-strategies", "--json").stdout)
    assert body["schema"] == "dsr.chat.strategies/1"
    assert [each["name"] for each in body["strategies"]] == list(STRATEGIES)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--vote", "0"], "invalid value for '--vote'"),
        (["--vote", "300"], "between 1 and 255 samples"),
        (["--strategy", "votes"], "there is no strategy 'votes'"),
        (["--set", "n=3"], "--set changes a strategy, and none was named"),
    ],
)
def test_bad_orders_are_one_error(arguments: list[str], error: str) -> None:
    result = chat("-p", "x", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert error in result.stderr


def test_a_small_context_says_in_which_waves_it_draws() -> None:
    result = chat(SUM, "--vote", "8", "--temp", "1", "-c", "600", "--thinking", "hide")
    assert result.exit_code == 0
    assert "8 samples in waves of 2: memory for 600 tokens of context\n" in result.stderr


def test_ctrl_c_in_a_vote_exits_130_with_the_best_so_far() -> None:
    running = process("-p", SUM, "--vote", "99", "--set", "stop=none", "--temp", "1", "-c", "1024", "--thinking=hide")
    assert running.stdout is not None and running.stderr is not None
    begun = b""
    while not re.search(rb"sample \d+: \d", begun):
        piece = running.stderr.read(1)
        assert piece, begun
        begun += piece
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert re.search(rb"\nstopped\n\d+: \d+", err)
    assert out.startswith(b"The answer is")
    with Conversations(paths.conversations_file()) as store:
        assert store.get(1).turns[1].content == out.decode().removesuffix("\n")


def test_a_reader_who_leaves_during_a_vote_ends_it_silently(tmp_path: Path) -> None:
    running = process("-p", SUM, "--vote", "4", "--temp", "1", "-q", stdout=subprocess.PIPE)
    assert running.stdout is not None and running.stderr is not None
    running.stdout.close()
    assert running.stderr.read() == b""
    assert running.wait(timeout=60) == 0
    running.stderr.close()


def test_what_is_piped_in_comes_before_the_question() -> None:
    assert with_piped_text(b"text\n", "Why?") == "text\n\nWhy?"
    assert with_piped_text(b"\xef\xbb\xbfone\r\ntwo\r\n", None) == "one\ntwo"
    assert with_piped_text(b" \n", "  ") is None
    assert with_piped_text(None, " Why? ") == "Why?"
    with pytest.raises(UsageError, match="standard input is not a text file"):
        with_piped_text(b"\xff\xfe\x00", "Why?")


def test_loops_are_ended_or_kept() -> None:
    assert (ends_loops("end"), ends_loops("keep")) == (True, False)
    with pytest.raises(UsageError, match="--loops must be end or keep, not 'x'"):
        ends_loops("x")
