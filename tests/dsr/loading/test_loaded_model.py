"""The prompts that an open model makes."""

from __future__ import annotations

import pytest

from runtime.base.types import Message
from tests.dsr.chat.chatting import open_model
from tests.fakes import FakeBackend

TALK = (Message("system", "Be kind."), Message("user", "Why?"))


def test_only_a_cache_that_cannot_be_cut_anywhere_asks_for_branches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model("yes", template="{% for m in messages %}[{{ m.content }}]{% endfor %}>")
    assert model.prompt(TALK).branches == ()
    monkeypatch.setattr(FakeBackend, "cuts_anywhere", False)
    prompt = model.prompt(TALK)
    assert [prompt.text[:length] for length in prompt.branches] == ["[Be kind.][", "[Be kind.][Why?]"]
