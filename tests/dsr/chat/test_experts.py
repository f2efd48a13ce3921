"""`dsr chat --experts`: which experts a conversation gets, what is said about it, and which files it takes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dsr import cli
from dsr.chat import session
from dsr.chat.experts import task_warning
from dsr.experts.profile import ProfileRequest, make_profiles, profile_store
from dsr.experts.pruned_cache import CachedFile, files_to_delete
from dsr.experts.selection import Selection, Selector
from dsr.loading.options import ExpertsRequest, experts_request
from dsr.models.library import find
from dsr.models.model import Model
from dsr.store import paths
from dsr.ui.console import Console
from quant.experts.profile import router_digest
from quant.experts.task_match import Match
from runtime.base.errors import EngineFailed, Incompatible, NotFound, UsageError
from runtime.base.events import Event, Notice
from runtime.base.run import Run
from runtime.base.types import ByteCount
from runtime.gguf.reader import read_card
from tests.quant.models import model

SUM, BACKWARDS, FRANCE = "What is 347 + 586?", "Reverse the word 'house'.", "What is the capital of France?"
GREEDY = ("--threads", "1", "--temp", "0", "--thinking", "hide")

RUN = Run(threads=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dsr's folder with profiles of two tasks and of a text; what is measured with them stays for the next test."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSR_HOME", str(folder))
        for task in ("addsub", "reverse"):
            make_profiles(find("nano"), ProfileRequest(task=task, limit=16, max_tokens=120), RUN)
        (folder / "text").write_text("Tom has 3 red apples and gives 2 of them to Mary. " * 40)
        make_profiles(find("nano"), ProfileRequest(text=folder / "text", task="tales"), RUN)
    return folder


@pytest.fixture
def profiled(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DSR_HOME", str(home))
    yield
    paths.conversations_file().unlink(missing_ok=True)


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


# --- files


@pytest.mark.usefixtures("profiled")
def test_a_file_is_made_once() -> None:
    with Selector(find("nano"), ExpertsRequest("addsub", "7")) as selector:
        first = selector.select(None, RUN).local.path
        made = first.stat().st_ino
        os.utime(first, ns=(1, 1))
        again = selector.select(None, RUN).local.path
    assert again == first and again.stat().st_ino == made
    assert again.stat().st_mtime_ns > 1  # it was used
    assert read_card(first).experts == 7


@pytest.mark.usefixtures("profiled")
def test_without_room_all_experts_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsr.experts.pruned_cache.MAX_DISK_SHARE", 0)
    with Selector(find("nano"), ExpertsRequest("addsub", "9")) as selector:
        found = selector.select(None, RUN)
    assert (found.kept, found.local) == (16, find("nano"))
    assert found.why.startswith("no room for the file with 9: ")


@pytest.mark.usefixtures("profiled")
def test_the_whole_model_is_read_where_its_first_layers_do_not_open_alone(
    monkeypatch: pytest.MonkeyPatch, nano_path: Path, tmp_path: Path
) -> None:
    tried = []

    def refuse(model: Model) -> None:
        tried.append(model.path.name)
        if model.path.name.endswith("-scout.gguf"):
            raise EngineFailed("missing tensor")

    monkeypatch.setattr("dsr.experts.selection.try_once", refuse)
    (tmp_path / "other.gguf").symlink_to(nano_path)
    with Selector(find(str(tmp_path / "other.gguf")), ExpertsRequest()) as selector:
        assert selector.match(SUM, RUN).task == "addsub"
    assert len(tried) == 2 and tried[1] == "other.gguf"


@pytest.mark.usefixtures("profiled")
def test_a_long_question_is_read_to_its_end() -> None:
    with Selector(find("nano"), ExpertsRequest()) as selector:
        assert selector.match("apples and pears, " * 2000 + SUM, RUN).task is None


def test_a_damaged_profile_leaves_the_others(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(home / "data", tmp_path / "copy" / "data")
    monkeypatch.setenv("DSR_HOME", str(tmp_path / "copy"))
    profile_store().path(router_digest(find("nano").path), "reverse").write_bytes(b"GGUF, they said")
    heard: list[Event] = []
    with Selector(find("nano"), ExpertsRequest(keep="8")) as selector:
        assert selector.select(BACKWARDS, Run(listen=heard.append, threads=1)).task is None
        assert selector.select(SUM, Run(listen=heard.append, threads=1)).task == "addsub"
    [told] = [event.text for event in heard if isinstance(event, Notice) and "ignored: " in event.text]
    assert told.startswith("ignored: ") and "reverse.gguf" in told


def held(*sizes: int) -> list[CachedFile]:
    """Files named by their numbers, the first used first."""
    return [CachedFile(Path(str(number)), size, float(number)) for number, size in enumerate(sizes)]


def test_old_files_go_when_half_of_the_disk_would_be_theirs() -> None:
    assert files_to_delete([], 50, free=100) == ()
    assert files_to_delete([], 51, free=100) is None
    assert files_to_delete(held(20, 30), 25, free=100) == ()
    assert files_to_delete(held(20, 30), 26, free=100) == (Path("0"),)
    assert files_to_delete(held(20, 30), 75, free=100) == (Path("0"), Path("1"))
    assert files_to_delete(held(20, 30), 76, free=100) is None
    assert files_to_delete([CachedFile(Path("new"), 40, 9.0), CachedFile(Path("old"), 40, 1.0)], 40, free=100) == (
        Path("old"),
    )


# --- a conversation


def talk(monkeypatch: pytest.MonkeyPatch, *lines: str, wanted: ExpertsRequest | None) -> None:
    typed = iter(lines)

    def read(_: str) -> str:
        for line in typed:
            return line
        raise EOFError

    editor = type("Typed", (), {"prompt": staticmethod(read)})
    monkeypatch.setattr("dsr.chat.repl.line_editor", lambda *_: editor)
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
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DSR_HOME", str(home))
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
