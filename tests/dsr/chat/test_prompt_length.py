"""A question that is too long is refused before the model is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsr.chat import session
from dsr.chat.prompt_length import check_length
from dsr.loading.options import LoadOptions, RopeRequest
from dsr.models import library
from dsr.ui.console import Console
from runtime.base.errors import DoesNotFit
from runtime.base.run import Run
from runtime.base.types import Message
from runtime.engine.prompt_options import PromptOptions

LONG = "What is 12 + 34? " * 400  # 4,000 tokens of nano


def never(*_: object, **__: object) -> None:
    raise AssertionError("must not be called")


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "load", never)


def ask(prompt: str, **fields: object) -> int:
    request = session.ChatRequest(prompt=prompt, keep=False, **fields)  # type: ignore[arg-type]
    return session.run(request, Console(json_mode=False, quiet=True), interactive=False)


def test_a_long_question_is_refused_before_the_model_is_loaded(unloaded: None) -> None:
    with pytest.raises(DoesNotFit, match=r"the prompt is \d+ tokens long, and 2048 is the most") as caught:
        ask(LONG)
    assert caught.value.hint == "shorten the prompt"  # nobody knows that this model reaches so far


def test_a_long_file_is_refused_before_the_model_is_loaded(unloaded: None, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(LONG, encoding="utf-8")
    with pytest.raises(DoesNotFit, match="2048 is the most"):
        ask("Why?", files=(tmp_path / "long.txt",))


def test_the_context_of_the_user_counts(unloaded: None) -> None:
    with pytest.raises(DoesNotFit, match="and 64 is the most") as caught:
        ask("What is 12 + 34? " * 10, load=LoadOptions(context=64))
    assert caught.value.hint is not None and "or use --ctx-size 1" in caught.value.hint


def check(question: str, options: LoadOptions) -> None:
    check_length(library.find("nano"), options, [Message("user", question)], PromptOptions(), Run())


def test_what_fits_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    import runtime.llama.token_count

    monkeypatch.setattr(runtime.llama.token_count, "count_tokens", never)
    check("What is 12 + 34?", LoadOptions())
    check(LONG, LoadOptions(rope=RopeRequest(4)))


def test_a_long_text_that_fits_is_counted_and_passes() -> None:
    check("hello " * 400, LoadOptions())
