"""The prompts of reasoning families, and options that a model cannot follow."""

from __future__ import annotations

from dsr.models.chat_format import ChatFormat
from runtime.engine.template import ChatTemplate
from tests.dsr.chat.chatting import PLAIN, SWITCHED, TAGS


def test_thinking_options_that_cannot_be_followed_are_named() -> None:
    note = "this model does not mark thoughts: they cannot be switched on or off, limited or hidden"
    plain = ChatFormat(ChatTemplate(PLAIN, bos="", eos=""), None)
    assert plain.thinking_note(None, None) is None
    assert plain.thinking_note(True, None) == plain.thinking_note(False, None) == note
    assert plain.thinking_note(None, 20) == note
    switched = ChatFormat(ChatTemplate(SWITCHED, bos="", eos=""), None)
    assert switched.thinking_note(False, None) is None
    assert switched.thinking_note(True, 20) == note
    assert ChatFormat(plain.template, TAGS).thinking_note(False, 20) is None
