"""The Python interface with the embedded model, and its documents against the code."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from dsr import api
from runtime.base.events import Event, SampleFinished
from tests import api_page

ROOT = Path(__file__).resolve().parents[3]
GUIDE = ROOT / "docs" / "guides" / "python.md"
SUM = "What is 347 + 586?"


@pytest.fixture(scope="module")
def model() -> Iterator[api.Model]:
    with api.load("nano", threads=1) as opened:
        yield opened


# Answers


def test_an_answer(model: api.Model) -> None:
    answer = model.chat(SUM, temperature=0)
    assert answer.text == "The answer is \\boxed{933}."
    assert answer.thinking.endswith("\nH:3+5+1=9=>933")
    assert (answer.finish, answer.prompt_tokens) == ("stop", 18)


def test_a_stream_has_the_pieces_of_the_answer(model: api.Model) -> None:
    stream = model.stream(SUM, temperature=0)
    pieces = list(stream)
    for part, whole in (("thinking", stream.answer.thinking), ("answer", stream.answer.text)):
        assert "".join(each.text for each in pieces if each.part == part).strip() == whole


def test_a_stream_that_is_closed_has_no_answer(model: api.Model) -> None:
    stream = model.stream(SUM, temperature=0)
    next(stream)
    stream.close()
    with pytest.raises(api.Aborted, match="was closed"):
        _ = stream.answer


def test_other_calls_work_between_two_pieces(model: api.Model) -> None:
    stream = model.stream(SUM, temperature=0)
    next(stream)
    assert model.score("12 + 13 = ", "25").total < 0
    assert model.chat("What is 12 + 13?", temperature=0).text.endswith("\\boxed{25}.")
    assert stream.answer.text == "The answer is \\boxed{933}."


def test_options_reach_the_answer(model: api.Model) -> None:
    assert model.chat(SUM, temperature=0, max_tokens=5).finish == "length"
    assert model.chat(SUM, temperature=0, stop=["boxed"]).text == "The answer is \\"
    assert model.chat(SUM, temperature=0, think=False).thinking == ""
    schema = '{"type": "array", "items": {"const": 7}, "minItems": 2, "maxItems": 2}'
    assert "".join(model.chat(SUM, temperature=0, schema=schema, max_tokens=200).text.split()) == "[7,7]"


def test_the_same_seed_draws_the_same(model: api.Model) -> None:
    one, other = (model.chat(SUM, temperature=1, seed=7).text for _ in range(2))
    assert one == other


def test_files_and_a_system_prompt_stand_before_the_question(model: api.Model, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("The answer is 7.")
    plain = model.chat(SUM, temperature=0, max_tokens=1).prompt_tokens
    with_file = model.chat(SUM, temperature=0, max_tokens=1, files=[tmp_path / "notes.txt"]).prompt_tokens
    with_both = model.chat(
        SUM, temperature=0, max_tokens=1, files=[str(tmp_path / "notes.txt")], system="Be brief."
    ).prompt_tokens
    assert plain < with_file < with_both


def test_a_vote_decides(model: api.Model) -> None:
    heard: list[Event] = []
    decision = model.vote(SUM, 4, temperature=1, seed=1)
    again = model.solve(SUM, "vote", {"n": 4}, listen=heard.append, temperature=1, seed=1)
    assert decision == again or decision.answer == again.answer  # the seconds differ
    assert decision.answer == "933"
    assert decision.text == "The answer is \\boxed{933}."
    assert decision.ballots[0] == api.Ballot("933", decision.ballots[0].votes, decision.share)
    assert sum(isinstance(event, SampleFinished) for event in heard) == len(again.samples)
    assert not decision.stopped


# Scores and vectors


def test_scores_are_of_the_text_behind_the_prompt(model: api.Model) -> None:
    both = model.score("12 + 13 = ", ["25", "26"])
    assert both[0].logprobs == pytest.approx(model.score("12 + 13 = ", "25").logprobs, abs=0.02)
    assert both[0].total == pytest.approx(both[0].mean * len(both[0].logprobs))
    assert model.score("12 + 13 = ", []) == []
    assert api.Score(()).mean == 0


def test_a_score_counts_what_was_drawn(model: api.Model) -> None:
    asked = [api.Message("user", SUM)]
    drawn = model.chat(asked, temperature=0, think=False).text
    assert model.score(asked, drawn).mean > model.score(asked, drawn.replace(drawn[-4], "q")).mean


def test_special_tokens_in_a_text_are_text(model: api.Model) -> None:
    assert model.count_tokens("<｜end▁of▁sentence｜>") > 1
    assert len(model.score("a", "<｜end▁of▁sentence｜>").logprobs) > 1


def test_vectors_have_length_one(model: api.Model) -> None:
    one, other = model.embed(["a cat", "a dog"])
    assert sum(value * value for value in one) == pytest.approx(1)
    assert model.embed("a cat") == pytest.approx(one, abs=1e-3)
    assert len(model.embed("a cat", 16)) == 16
    assert one != other


# Stopping, closing, errors


def test_cancel_keeps_the_text_of_an_answer(model: api.Model) -> None:
    stream = model.stream(SUM, temperature=0)
    next(stream)
    threading.Thread(target=model.cancel).start()
    answer = stream.answer
    assert answer.finish in ("cancelled", "stop")
    assert model.chat(SUM, temperature=0).finish == "stop"


def test_cancel_ends_a_score(model: api.Model) -> None:
    def cancel_while_it_reads(event: Event) -> None:
        model.cancel()

    decision = model.solve(SUM, "vote", {"n": 8}, listen=cancel_while_it_reads, temperature=1)
    assert decision.stopped


def test_threads_take_turns(model: api.Model) -> None:
    answers: list[str] = []

    def ask() -> None:
        answers.append(model.chat(SUM, temperature=0).text)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert answers == ["The answer is \\boxed{933}."] * 3


def test_a_closed_model_says_so(nano_path: Path) -> None:
    opened = api.load(str(nano_path), threads=1, ctx_size=256, samples=1)
    assert opened.context == 256
    opened.close()
    opened.close()
    for call in (opened.chat, opened.stream, opened.embed, opened.vote, opened.count_tokens):
        with pytest.raises(api.UsageError, match="closed"):
            call("Hi")


def test_errors_are_those_of_the_command(model: api.Model) -> None:
    with pytest.raises(api.NotFound):
        api.load("deepseek-r1:671b")
    with pytest.raises(api.UsageError, match="at least 1 sample"):
        api.load("nano", samples=0)
    with pytest.raises(api.UsageError, match="no option 'heat'"):
        model.chat(SUM, heat=1)  # type: ignore[call-arg]
    with pytest.raises(api.UsageError, match="there is no strategy 'vot'"):
        model.solve(SUM, "vot")
    with pytest.raises(api.UsageError, match="no setting 'm'"):
        model.solve(SUM, "vote", {"m": 1})
    with pytest.raises(api.UsageError, match="temp"):
        model.chat(SUM, temperature=-1)
    with pytest.raises(api.UsageError, match="ends with a question"):
        model.chat([])
    with pytest.raises(api.DoesNotFit):
        model.chat("x " * 5000)
    with pytest.raises(api.DoesNotFit):
        model.score("x " * 5000, "y")


# The module and its documents


def test_the_import_is_light() -> None:
    code = "import sys, dsr.api; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(child.stdout))
    assert loaded & {"llama_cpp", "numpy", "jinja2", "rich", "typer", "huggingface_hub", "psutil", "sqlite3"} == set()


def test_the_reference_is_fresh() -> None:
    assert api_page.PAGE.read_text(encoding="utf-8") == api_page.page(), "run `make docs`"


def test_every_public_name_is_explained() -> None:
    for name in api.__all__:
        value = getattr(api, name)
        if name != "Question" and not api_page.is_error(name):
            assert (value.__doc__ or "").strip(), name


def blocks(text: str) -> list[str]:
    """The indented examples of a page or of a docstring."""
    found = re.findall(r"(?:^ {4}.*\n(?:\s*\n(?= {4}))*)+", text + "\n", re.MULTILINE)
    return ["\n".join(line[4:] for line in each.splitlines()) for each in found]


def run(examples: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the examples one after the other; returns how many lines they said that they print."""
    monkeypatch.chdir(folder)
    names: dict[str, object] = {"__name__": "example"}
    said = 0
    for example in examples:
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile(example, "the guide", "exec"), names)
        expected = re.findall(r"print\(.*\)  # (.*)$", example, re.MULTILINE)
        joined = "end=" in example
        assert printed.getvalue().splitlines() == expected or (joined and printed.getvalue() == "".join(expected))
        said += len(expected)
    return said


def test_the_examples_of_the_guide_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filler = "The grass is green.\n\nThe sky is blue.\n\n"
    (tmp_path / "notes.txt").write_text(filler * 40 + "The key lies under the red stone.\n\n" + filler * 40)
    text = GUIDE.read_text(encoding="utf-8")
    assert run(blocks(text), tmp_path, monkeypatch) >= 10


def test_the_example_of_the_docstring_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [example] = blocks(api.__doc__ or "")
    names: dict[str, object] = {}
    exec(example, names)
