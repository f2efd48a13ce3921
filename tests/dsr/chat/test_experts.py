"""`dsr chat --experts`: which experts a conversation gets, and what dsr says about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dsr import cli
from dsr.chat import session
from dsr.chat.experts import task_warning
from dsr.experts.selection import Selection, Selector
from dsr.loading.options import ExpertsRequest, experts_request
from dsr.models.library import find
from dsr.models.model import Model
from dsr.store import paths
from dsr.ui.console import Console
from quant.experts.task_match import Match
from runtime.base.errors import Incompatible, NotFound, UsageError
from runtime.base.types import ByteCount
from runtime.gguf.reader import read_card
from tests.quant.models import model

SUM, BACKWARDS, FRANCE = "What is 347 + 586?", "Reverse the word 'house'.", "What is the capital of France?"
GREEDY = ("--threads", "1", "--temp", "0", "--thinking", "hide")


def chat(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["chat", *GREEDY, *arguments])


def experts(*arguments: str) -> dict[str, Any]:
    result = chat("--json", *arguments)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)["experts"]
    assert isinstance(found, dict)
    return found


def files() -> set[str]:
    return {path.name for path in (paths.cache_folder() / "experts").iterdir()}


# --- one question


@pytest.mark.usefixtures("profiled")
def test_the_question_decides() -> None:
    found = experts("--experts", "auto", "--keep", "50%", "-p", SUM)
    assert (found["task"], found["kept"], found["of"]) == ("addsub", 8, 16)
    assert found["certainty"] > 0.5 and 0 < found["lost"] < 0.5 and found["kld"] > 0
    # Eight experts of three layers, each of three matrices of 128 x 256 Q8_0 or so, with router rows and bias.
    card = read_card(find("nano").path)
    sliced = sum(t.size for t in card.tensors if "exps" in t.name or "ffn_gate_inp" in t.name or "exp_probs" in t.name)
    assert found["bytes_saved"] == sliced // 2
    assert experts("--experts", "auto", "--keep", "8", "-p", BACKWARDS)["task"] == "reverse"


@pytest.mark.usefixtures("profiled")
def test_it_is_told_and_the_answer_stays_right() -> None:
    result = chat("--experts", "auto", "-p", BACKWARDS)
    assert result.stdout == "The answer is \\boxed{esuoh}.\n"
    [told] = [line for line in result.stderr.splitlines() if line.startswith("experts: reverse")]
    assert "reverse (sure: 0." in told or "reverse (sure: 1." in told
    assert " of 16 kept, " in told and "MiB less" in told and " KLD 0.0" in told


@pytest.mark.usefixtures("profiled")
def test_a_question_like_no_task_keeps_all_experts() -> None:
    found = experts("--experts", "auto", "-p", FRANCE)
    assert (found["task"], found["kept"], found["of"], found["kld"]) == (None, 16, 16, None)
    assert found["certainty"] < 0.01
    assert "experts: all 16 kept: the question matches no task (" in chat("--experts", "auto", "-p", FRANCE).stderr


@pytest.mark.usefixtures("profiled")
def test_a_task_that_is_named_is_taken_whatever_is_asked() -> None:
    found = experts("--experts", "tales", "--keep", "8", "-p", SUM)
    assert (found["task"], found["certainty"], found["kept"]) == ("tales", None, 8)


@pytest.mark.usefixtures("profiled")
def test_too_few_for_the_task_are_warned_of() -> None:
    result = chat("--experts", "addsub", "--keep", "4", "-p", SUM)
    assert "warning: the answers will be worse with so few experts; --keep auto" in result.stderr


@pytest.mark.usefixtures("profiled")
def test_all_of_them_are_no_file() -> None:
    before = files()
    assert experts("--experts", "addsub", "--keep", "100%", "-p", SUM)["kept"] == 16
    assert files() == before


@pytest.mark.usefixtures("profiled")
def test_a_vote_is_held_with_them() -> None:
    result = chat("--experts", "reverse", "--keep", "8", "--vote", "2", "-p", BACKWARDS)
    assert result.stdout == "The answer is \\boxed{esuoh}.\n" and "2 of 2 votes" in result.stderr


def test_off_says_nothing() -> None:
    result = chat("--experts", "off", "--json", "-p", SUM)
    assert "experts" not in json.loads(result.stdout) and result.stderr == ""


def test_without_a_profile_it_says_how_to_make_one() -> None:
    assert "experts: all 16 kept: this model has no task profile; make one: dsr experts profile nano\n" in (
        chat("--experts", "auto", "-p", SUM).stderr
    )


# --- what is refused


@pytest.mark.usefixtures("profiled")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--experts", "sums"), "this model has no profile of the task 'sums'"),
        (("--experts", "auto", "--keep", "3"), "--keep 3 is 3 experts, but each token uses 4"),
        (("--experts", "addsub", "--keep", "5%"), "--keep 5% is 1 expert, but each token uses 4"),
        (("--experts", "auto", "--keep", "17"), "not between 1 and the 16 experts"),
        (("--experts", "auto", "--keep", "some"), "--keep some: neither a number of experts nor a percentage"),
        (("--keep", "8"), "--keep needs a task: it sets how many of its experts to keep"),
        (("--experts", "off", "--keep", "8"), "--keep needs a task: it sets how many of its experts to keep"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple[str, ...], said: str) -> None:
    result = chat(*arguments, "-p", SUM)
    assert result.exit_code in (NotFound.exit_code, UsageError.exit_code) and said in result.stderr


def test_a_dense_model_is_refused(tmp_path: Path) -> None:
    result = chat(str(model(tmp_path / "dense.gguf")), "--experts", "auto", "-p", SUM)
    assert result.exit_code == Incompatible.exit_code and "is a dense model" in result.stderr


def test_what_the_options_mean() -> None:
    assert experts_request(None, None) is None and experts_request("off", None) is None
    assert experts_request("auto", None) == ExpertsRequest("auto", "auto")
    assert experts_request("addsub", "50%") == ExpertsRequest("addsub", "50%")


# --- a conversation


def talk(monkeypatch: pytest.MonkeyPatch, *lines: str, wanted: ExpertsRequest | None) -> None:
    typed = iter(lines)

    def read(_: str) -> str:
        for line in typed:
            return line
        raise EOFError

    editor = type("Typed", (), {"prompt": staticmethod(read)})
    for module in ("repl", "line_editor"):
        monkeypatch.setattr(f"dsr.chat.{module}.line_editor", lambda *_: editor)
    request = session.ChatRequest(model="nano", threads=1, experts=wanted, thinking="hide")
    assert session.run(request, Console(), interactive=True) == 0


@pytest.mark.usefixtures("profiled")
def test_the_first_question_decides_and_a_drift_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ("/set temp 0", SUM, BACKWARDS, BACKWARDS, "/experts reverse", "/show", BACKWARDS)
    talk(monkeypatch, *lines, wanted=ExpertsRequest(keep="8"))
    captured = capsys.readouterr()
    said = captured.err.splitlines()
    order = [
        "experts: all 16 kept: the first question decides",
        "experts: addsub (sure",
        "warning: this looks like rev",
    ]
    order += ["experts: reverse, 8 of 16"]
    assert [next(n for n, line in enumerate(said) if line.startswith(each)) for each in order] == sorted(
        next(n for n, line in enumerate(said) if line.startswith(each)) for each in order
    )
    assert captured.err.count("to change: /experts reverse") == 1
    assert "turns     6\n" in captured.err
    assert captured.out.splitlines()[0] == "The answer is \\boxed{933}."
    assert captured.out.splitlines()[-1] == "The answer is \\boxed{esuoh}."


@pytest.mark.usefixtures("profiled")
def test_a_question_that_looks_like_a_command_is_still_one_after_another_file_was_opened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Selector, "match", lambda *_: found("addsub"))
    talk(monkeypatch, "/set temp 0", " /why is what?", "/bye", wanted=ExpertsRequest(keep="8"))
    captured = capsys.readouterr()
    assert "experts: addsub (sure: 0.90), 8 of 16 kept" in captured.err and captured.out
    assert "no answer yet" not in captured.err


@pytest.mark.usefixtures("profiled")
def test_a_question_typed_first_is_answered_with_its_experts_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ("", BACKWARDS, "/clear", SUM, "/experts off", "/experts", "/experts sums", "/experts auto", BACKWARDS)
    talk(monkeypatch, *lines, wanted=ExpertsRequest(keep="8"))
    said = capsys.readouterr().err
    assert "what you ask first decides which experts are loaded" in said and "the first question decides" not in said
    told = [line.split(" (")[0] for line in said.splitlines() if line.startswith(("experts", "all experts", "error"))]
    assert told == [
        "experts: reverse",
        "experts: addsub",
        "experts: all",
        "all experts",
        "error: this model has no profile of the task 'sums'",
        "experts: reverse",
    ]


def test_leaving_before_anything_was_asked(
    profiled_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DSR_HOME", str(profiled_folder))
    talk(monkeypatch, "  ", wanted=ExpertsRequest())
    assert capsys.readouterr().out == ""


PRESENT = Selection(Model(Path("x"), (Path("x"),), "x", "x", ByteCount(0)), task="sums", certainty=0.9, kept=8, of=16)


def found(task: str | None, certainty: float = 0.9) -> Match:
    return Match(task, certainty, ((task or "sums", certainty),))


def test_what_is_said_of_a_drift() -> None:
    assert task_warning(found("sums"), PRESENT, ()) is None
    assert task_warning(found("words"), PRESENT, ()) == (
        "this looks like words (sure: 0.90), but the experts for sums are loaded; to change: /experts words"
    )
    assert task_warning(found("words"), PRESENT, {"words"}) is None
    assert task_warning(found(None, 0.1), PRESENT, {"words"}) == (
        "this question matches no task, and only the experts for sums are loaded; for all: /experts off"
    )
    assert task_warning(found(None, 0.1), PRESENT, {None}) is None
