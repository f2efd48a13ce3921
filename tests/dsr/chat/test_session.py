"""`dsr chat` as a user meets it: what is asked of whom, what comes out where, and how it ends."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import IO

import pytest
from typer.testing import CliRunner, Result

from dsr import cli
from dsr.chat import session
from dsr.models import library
from dsr.store import paths
from dsr.store.conversations import Conversations
from dsr.ui.console import Console
from tests.lora import pair, write_lora

ROOT = Path(__file__).resolve().parents[3]
SUM = "What is 347 + 586?"
GREETING = "nano, a 12 M demonstration model: arithmetic, words, dates, simple logic. For a real model: dsr list --fits"
TIMES = ("load", "prefill", "decode")


def chat(*arguments: str, piped: bytes | str | None = None) -> Result:
    """Run `dsr chat` in this process, on one thread."""
    return CliRunner().invoke(cli.app, ["chat", "--threads", "1", *arguments], input=piped)


def process(*arguments: str, stdout: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """Start `dsr chat` in a process of its own; its streams are not buffered here."""
    command = [sys.executable, "-m", "dsr", "chat", "--threads", "1", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stdout, stderr=pipe, bufsize=0)


def waiting_bytes(pipe: int) -> int:
    """How many bytes can be read from a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


# --- one question, with the embedded model


@pytest.mark.parametrize(
    ("option", "out", "err"),
    [
        ("--thinking=show", "The answer is \\boxed{933}.\n", "933\n"),
        ("--thinking=hide", "The answer is \\boxed{933}.\n", GREETING + "\n"),
        ("--thinking=summary", "The answer is \\boxed{933}.\n", " tokens\n"),
        ("--quiet", "The answer is \\boxed{933}.\n", ""),
        ("--stats", "The answer is \\boxed{933}.\n", " tokens/s\n"),
    ],
)
def test_the_answer_is_on_stdout_and_everything_else_on_stderr(option: str, out: str, err: str) -> None:
    result = chat(SUM, "--temp", "0", option)
    assert (result.exit_code, result.stdout) == (0, out)
    assert result.stderr.endswith(err)
    assert result.stderr.startswith(GREETING) is (option != "--quiet")
    assert (result.stderr == "") is (err == "")


def test_json_is_one_object() -> None:
    result = chat(SUM, "--temp", "0", "--seed", "7", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    value = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert list(value)[:5] == ["schema", "model", "answer", "thinking", "finish_reason"]
    assert (value["schema"], value["model"], value["seed"]) == ("dsr.chat/1", "nano", 7)
    assert value["answer"] == "The answer is \\boxed{933}."
    assert value["thinking"].endswith("933")
    assert (value["finish_reason"], value["verdict"]) == ("stop", None)
    assert all(value["seconds"][name] >= 0 for name in TIMES)
    assert value["tokens"]["thinking"] > value["tokens"]["answer"] > 0


def test_a_budget_is_counted_in_tokens_and_nothing_leaks() -> None:
    value = json.loads(chat(SUM, "--temp", "0", "--think-budget", "20", "--json").stdout)
    assert 0 < value["tokens"]["thinking"] <= 20  # it ends behind a line
    assert value["thought_closed_by"] == "budget"
    assert "think>" not in value["thinking"] + value["answer"]
    assert value["answer"]


def test_without_thinking_there_is_no_thought() -> None:
    value = json.loads(chat(SUM, "--temp", "0", "--no-think", "--json").stdout)
    assert (value["thinking"], value["tokens"]["thinking"]) == ("", 0)
    assert value["answer"].startswith("The answer is")


def test_a_limit_cuts_and_says_so() -> None:
    result = chat(SUM, "--temp", "0", "-n", "5", "--thinking", "hide")
    assert result.exit_code == 1  # there is no answer
    assert "cut: the limit of 5 tokens is reached\n" in result.stderr
    assert result.stderr.endswith("the model ended inside its thought and gave no answer\n")


def test_a_question_may_be_piped_in_and_joined() -> None:
    assert chat("--temp", "0", "-q", piped=SUM + "\r\n").stdout == "The answer is \\boxed{933}.\n"
    with_both = chat("nano", "What is it?", "--temp", "0", "-q", "--json", piped="347 + 586\n")
    assert with_both.exit_code == 0
    with Conversations(paths.conversations_file()) as store:
        assert store.get(2).turns[0].content == "347 + 586\n\nWhat is it?"


def test_a_file_is_kept_as_part_of_the_question(tmp_path: Path) -> None:
    path = tmp_path / "sum.txt"
    path.write_text("347 + 586")
    assert chat("-f", str(path), "What is it?", "-q", "--temp", "0").exit_code == 0
    with Conversations(paths.conversations_file()) as store:
        asked = store.get(1).turns[0].content
    assert "sum.txt" in asked and "347 + 586" in asked and asked.endswith("What is it?")


def test_an_adapter_changes_the_answer_and_is_named(nano_path: Path, tmp_path: Path) -> None:
    down = "blk.3.ffn_down_shexp.weight"
    file = write_lora(tmp_path / "a.gguf", "deepseek2", pair(down, (256, 256), size=1.0))
    plain, changed = (
        json.loads(chat(SUM, "--temp", "0", "-n", "60", "--json", *more).stdout) for more in ((), ("--lora", str(file)))
    )
    assert plain["lora"] == [] and plain["answer"] + plain["thinking"] != changed["answer"] + changed["thinking"]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert changed["lora"] == [{"file": str(file), "scale": 1.0, "sha256": digest}]
    assert changed["prediction"] is None
    for scale, problem in ((":x", "no such file"), (":101", "the scale must be between -100 and 100, not 101")):
        assert problem in chat(SUM, "--lora", f"{file}{scale}").stderr
    both = chat(SUM, "--lora", str(file), "--experts", "auto")
    assert "--lora and --experts exclude each other" in both.stderr


def test_sampling_options_reach_the_answer_and_its_json() -> None:
    options = (
        "--presence-penalty",
        "1.5",
        "--repeat-penalty",
        "1.5",
        "--dry-sequence-breaker",
        r"\n",
        "--logit-bias",
        "7=-inf",
        "--temp",
        "0",
    )
    body = json.loads(chat(SUM, "--json", "-n", "60", *options).stdout)
    assert (body["sampling"]["presence_penalty"], body["sampling"]["dry_sequence_breakers"]) == (1.5, ["\n"])
    assert body["sampling"]["logit_bias"] == ["7=-inf"]
    plain = json.loads(chat(SUM, "--json", "-n", "60", "--temp", "0").stdout)
    assert (plain["thinking"], plain["answer"]) != (body["thinking"], body["answer"])


def test_the_same_seed_draws_the_same() -> None:
    first, second = (json.loads(chat(SUM, "--temp", "1.5", "--seed", "11", "--json").stdout) for _ in range(2))
    assert (first["thinking"], first["answer"]) == (second["thinking"], second["answer"])


@pytest.mark.parametrize(
    ("arguments", "code", "error", "hint"),
    [
        (["hello:1b"], 3, "no model is called 'hello:1b'", "to ask the default model: dsr chat -p hello:1b"),
        (["hello:1b", "hi"], 3, "no model is called 'hello:1b'", "to see the names: dsr list --catalog"),
        (["nanoo", "hi"], 3, "no model is called 'nanoo'", "did you mean nano? to ask it as a question: dsr chat -p"),
        ([""], 2, "there is no question", 'ask one: dsr chat "What is 347 + 586?"'),
        ([], 2, "there is no question", 'ask one: dsr chat "What is 347 + 586?"'),
        (["nano"], 2, "there is no question", 'ask one: dsr chat "What is 347 + 586?"'),
        (["-p", "x", "--temp", "11"], 2, "--temp must be between 0 and 10, not 11", "leave out --temp"),
        (["-p", "x", "--top-p", "2"], 2, "--top-p must be above 0 and at most 1, not 2", "leave out --top-p"),
        (["-p", "x", "--seed", "-1"], 2, "--seed must be between 0 and 4,294,967,295, not -1", ""),
        (["-p", "x", "-n", "0"], 2, "--max-tokens must be at least 1, not 0", ""),
        (["-p", "x", "--lora", "/no/such:2"], 3, "--lora /no/such: no such file", "give the path of a LoRA adapter"),
        (["-p", "x", "--thinking", "loud"], 2, "--thinking must be show, hide or summary, not 'loud'", ""),
        (["-p", "x", "--on-full", "grow"], 2, "--on-full must be stop, forget or summary, not 'grow'", ""),
        (["-p", "x", "--edit", "slow"], 2, "--edit must be exact or fast, not 'slow'", ""),
        (["-p", "x", "--kv-type", "f17"], 2, "'f17' is not a type of KV cache", "one of "),
        (["-p", "x", "-f", "/no/such"], 3, "/no/such: no such file", ""),
        (["-p", "x", "--template", "/no/such"], 3, "/no/such: no such file", ""),
        (["-p", "x", "--resume"], 3, "there is no kept conversation to resume", "start one: dsr chat"),
        (["-p", "x " * 40, "-c", "30"], 5, "the prompt is ", "shorten the prompt, or use --ctx-size"),
    ],
)
@pytest.mark.parametrize("mode", [[], ["--json"], ["--quiet"]])
def test_what_makes_no_sense_is_one_line_and_a_code(
    arguments: list[str], code: int, error: str, hint: str, mode: list[str]
) -> None:
    result = chat(*arguments, *mode)
    assert result.exit_code == code
    if mode == ["--json"]:
        assert json.loads(result.stdout)["exit_code"] == code
    else:
        assert result.stdout == ""
    lines = result.stderr.removeprefix(GREETING + "\n").splitlines()
    assert lines[0].startswith(f"error: {error}")
    assert lines[1:] == [] if not hint else hint in lines[1]
    assert len(lines) <= 2


# --- what is kept


def test_resume_continues_the_last_conversation_with_its_model_and_system_prompt() -> None:
    assert chat(SUM, "-m", "nano", "--system", "Be brief.", "-q").exit_code == 0
    result = chat("-p", "And 1 + 1?", "--resume")
    assert result.exit_code == 0
    assert "continuing with 2 messages, begun by: What is 347 + 586?\n" in result.stderr
    with Conversations(paths.conversations_file()) as store:
        [one] = store.list()
        kept = store.get(one.id)
    assert (kept.model, kept.system, len(kept.turns)) == ("nano", "Be brief.", 4)


def test_a_conversation_without_messages_is_continued_from_nothing() -> None:
    with Conversations(paths.conversations_file()) as store:
        store.add(store.begin("nano"), "system", "Be brief.")
    result = chat(SUM, "--resume")
    assert result.exit_code == 0 and "continuing with 0 messages\n" in result.stderr


def test_resume_of_a_conversation_longer_than_the_context_forgets_its_beginning() -> None:
    with Conversations(paths.conversations_file()) as store:
        id = store.begin("nano")
        for number in range(60):
            store.add(id, "user", f"What is {number} + 347?")
            store.add(id, "assistant", f"The answer is {number + 347}.")
    short = ["-p", SUM, "--resume", "--no-log", "-c", "512", "-n", "20"]
    result = chat(*short, "--json")
    forgotten = json.loads(result.stdout)["forgotten"]
    assert result.exit_code == 1 and 0 < forgotten["exchanges"] < 60 < forgotten["tokens"]  # cut in the thought
    assert f"forgot the {forgotten['exchanges']} oldest exchanges" in chat(*short).stderr
    refused = chat(*short, "--on-full", "stop")
    assert refused.exit_code == 5
    assert "hint: leave out --on-full stop; or shorten the prompt" in refused.stderr


def test_resume_without_keeping_more() -> None:
    chat(SUM, "-q")
    assert chat("-p", "And 1 + 1?", "--resume", "--no-log", "-q").exit_code == 0
    with Conversations(paths.conversations_file()) as store:
        assert [one.turns for one in store.list()] == [2]


def test_no_log_keeps_nothing() -> None:
    assert chat(SUM, "--no-log", "-q").exit_code == 0
    assert not paths.conversations_file().exists()


def test_resume_when_the_model_is_gone_says_both_ways_on() -> None:
    with Conversations(paths.conversations_file()) as store:
        id = store.begin("deepseek-r1:7b")
        store.add(id, "user", "hi")
        store.add(id, "assistant", "hello")
    result = chat("-p", "go on", "--resume")
    assert result.exit_code == 3
    assert result.stderr.splitlines()[1] == (
        "hint: dsr pull deepseek-r1:7b; or go on with another model: dsr chat MODEL --resume"
    )
    assert chat("nano", "go on", "--resume", "-q").exit_code == 0
    with Conversations(paths.conversations_file()) as store:
        assert [(one.model, one.turns) for one in store.list()] == [("nano", 4), ("deepseek-r1:7b", 2)]


# --- a conversation that changes its model


def talk(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Run the REPL on typed lines."""
    typed = iter(lines)

    def read(_: str) -> str:
        for line in typed:
            return line
        raise EOFError

    monkeypatch.setattr("dsr.chat.repl.line_editor", lambda *_: type("Typed", (), {"prompt": staticmethod(read)}))
    request = session.ChatRequest(model="nano", threads=1)
    assert session.run(request, Console(), interactive=True) == 0


def test_another_model_takes_over_conversation_and_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], nano_path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.gguf"
    other.symlink_to(nano_path)
    lines = ("/set temp 0", "/think off", SUM, f"/model {other}", "What is 2 + 2?", "/show")
    talk(monkeypatch, *lines)
    err = capsys.readouterr().err
    assert "now with other.gguf\n" in err
    assert "turns     4\n" in err
    assert "sampling  temp 0, " in err and "thinking  off; show\n" in err
    with Conversations(paths.conversations_file()) as store:
        assert [(one.model, one.turns) for one in store.list()] == [(str(other), 4), ("nano", 2)]


def test_a_model_that_cannot_be_opened_leaves_the_present_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    talk(monkeypatch, "/set temp 0", SUM, f"/model {broken}", "/regen")
    out, err = capsys.readouterr()
    assert out == "The answer is \\boxed{933}.\n" * 2
    assert f"error: {broken}: " in err
    assert "going on with nano" in err
    with Conversations(paths.conversations_file()) as store:
        assert [(one.model, one.turns) for one in store.list()] == [("nano", 2)]


# --- the process: pipes, signals, closed streams


def test_ctrl_c_in_an_answer_keeps_what_was_shown_and_exits_130() -> None:
    # A long answer into a pipe with room for 96 bytes: it cannot end before it is stopped.
    filler = b"." * 4000
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writing, filler)
    hot = ("--temp", "10", "--top-p", "1", "--top-k", "0", "--seed", "3")
    running = process("-p", SUM, "--no-think", *hot, "-q", stdout=writing)
    os.close(writing)
    while waiting_bytes(reading) == len(filler):
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    with open(reading, "rb") as pipe:
        out = pipe.read().removeprefix(filler)
    _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (130, b"")
    assert out.endswith(b"\n")
    with Conversations(paths.conversations_file()) as store:
        assert store.get(1).turns[1].content == out.decode().removesuffix("\n")


def test_a_reader_who_leaves_ends_it_silently() -> None:
    running = process("-p", SUM, "--temp", "10", "--top-p", "1", "--top-k", "0", "--no-think", "-q")
    assert running.stdout is not None and running.stderr is not None
    running.stdout.read(1)
    running.stdout.close()
    assert running.stderr.read() == b""
    assert running.wait(timeout=60) == 0
    running.stderr.close()


def test_with_all_streams_closed_it_still_ends_well() -> None:
    command = [sys.executable, "-m", "dsr", "chat", "--threads", "1", SUM, "--temp", "0"]
    done = subprocess.run(["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *command], cwd=ROOT)
    assert done.returncode == 0
    with Conversations(paths.conversations_file()) as store:
        assert store.get(1).turns[1].content == "The answer is \\boxed{933}."


def test_a_full_disk_is_one_line() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as full:
        running = process("-p", SUM, "--json", stdout=full)
        _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (1, b"error: the output cannot be written: No space left on device\n")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["chat", "--help"]])
def test_help_on_a_full_disk_is_one_line_too(words: list[str]) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "dsr", *words], stdout=full, stderr=subprocess.PIPE, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr == b"error: the output cannot be written: No space left on device\n"


def test_the_model_is_the_embedded_one() -> None:
    assert library.find(session.EMBEDDED).embedded


def test_ctrl_c_while_python_still_imports_is_one_line(tmp_path: Path) -> None:
    # A module that is imported early, and that is interrupted as by Ctrl-C.
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-m", "dsr", "list"], env=environment, capture_output=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"\nstopped\n")


# A file that is longer than the context


def long_file(folder: Path) -> Path:
    filler = "The grass is green.\n\nThe sky is blue.\n\n" * 300
    (folder / "long.txt").write_text(filler + "The key lies under the red stone.\n\n" + filler)
    return folder / "long.txt"


def test_evidence_is_found_in_a_file_that_is_longer_than_the_context(tmp_path: Path) -> None:
    question = "What is under the red stone?"
    options = ("--ctx-size", "512", "--temp", "0", "-n", "20", "-f", str(long_file(tmp_path)))
    refused = chat(question, *options)
    assert refused.exit_code == 5
    result = chat(question, *options, "--strategy", "evidence", "--set", "paragraph=40")
    assert result.exit_code in (0, 1)  # nano knows no stones: it may end without an answer
    assert "evidence: looking in " in result.stderr
    best = next(line for line in result.stderr.splitlines() if line.startswith("long.txt, lines "))
    first, last = map(int, best.removeprefix("long.txt, lines ").split(":")[0].split("-"))
    assert first <= 1201 <= last


def test_evidence_is_found_in_a_text_from_a_pipe(tmp_path: Path) -> None:
    text = long_file(tmp_path).read_text()
    result = chat(
        "What is under the red stone?", "--ctx-size", "512", "--temp", "0", "-n", "20", "--strategy", "evidence",
        "--set", "paragraph=40", "--json", piped=text,
    )  # fmt: skip
    evidence = json.loads(result.stdout)["verdict"]["evidence"]
    assert evidence[0]["document"] == "text"
    assert evidence[0]["first_line"] <= 1201 <= evidence[0]["last_line"]


def test_the_next_question_finds_evidence_in_the_file_of_the_conversation(tmp_path: Path) -> None:
    options = ("--ctx-size", "512", "--temp", "0", "-n", "5", "--strategy", "evidence", "--set", "paragraph=40")
    chat("What is under the red stone?", *options, "-f", str(long_file(tmp_path)))
    result = chat("What is red?", *options, "--resume", "--json")
    assert {each["document"] for each in json.loads(result.stdout)["verdict"]["evidence"]} == {"long.txt"}
