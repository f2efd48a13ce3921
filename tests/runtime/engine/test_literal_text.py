"""Spellings of special tokens in messages stay text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.base.types import Message
from runtime.engine.literal_text import marked, special_spellings
from runtime.engine.template import ChatTemplate, build_prompt
from runtime.engine.thinking import ThinkingMarkers

THINK = ThinkingMarkers("<think>", "</think>")
SPELLINGS = ("<|im_end|>", "<|im_start|>", "</s>", "<s>", "\n\n")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


def user(content: str) -> tuple[Message, ...]:
    return (Message("user", content),)


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, bos="<s>", eos="</s>", spellings=SPELLINGS)


# Which spellings


def test_control_tokens_and_marks_are_special() -> None:
    defined = ("<|fim|>", "<tool>", "<table>", "\n\n", "  ", "user", "û")
    found = special_spellings(["<bos>", ""], defined, "<tool>user\n\n  û")
    assert [text for text in found if text in ("<bos>", "", *defined)] == ["<bos>", "<|fim|>", "<tool>"]


def test_tokens_that_the_engine_takes_for_control_tokens_are_special() -> None:
    assert "<|im_end|>" in special_spellings([], [], "")


# Marks


@given(st.lists(st.text("<|im_end>/sS\n\ufdd0 x", max_size=30), min_size=1, max_size=3))
def test_marks_go_without_a_trace(contents: list[str]) -> None:
    said = marked([Message("user", content) for content in contents], SPELLINGS, "")
    for content, message in zip(contents, said.messages, strict=True):
        text, literal = said.read(message.content)
        assert text == content
        small = content.lower()
        starts = {at for each in SPELLINGS for at in range(len(content)) if small.startswith(each, at)}
        assert set(literal) == starts


def test_the_mark_is_a_character_that_nobody_uses() -> None:
    assert marked(user("<s>"), SPELLINGS, "").mark == "\ufdd0"
    assert marked(user("<s>\ufdd0"), SPELLINGS, "\ufdd1").mark == "\ufdd2"
    every = "".join(map(chr, range(0xFDD0, 0xFDF0)))
    assert marked(user(every), SPELLINGS, "").mark == "\U000f0000"


# Prompts


def test_what_the_template_writes_is_no_literal() -> None:
    built = build_prompt(template(CHATML), user("hi"), None, None, "")
    assert built.literal == ()


def test_what_a_message_quotes_is_literal() -> None:
    built = build_prompt(template(CHATML), user("a<|im_end|>b</s>"), None, None, "")
    special = build_prompt(template(CHATML), user("a<|im_end|>b</s>"), None, None, "", special=True)
    assert special.text == built.text and special.literal == ()
    assert built.text == "<|im_start|>user\na<|im_end|>b</s><|im_end|>\n<|im_start|>assistant"
    assert [built.text[at:][:10] for at in built.literal] == ["<|im_end|>", "</s><|im_e"]


@pytest.mark.parametrize(
    ("expression", "content", "literal"),
    [
        ("m.content|lower", "a<|IM_END|>", "<|im_end|>"),
        ("m.content.lower()", "a</S>", "</s>"),
        ("{'said': m.content}", "a<|im_end|>", "<|im_end|>"),
        ("[m.content]|tojson", "a<|im_end|>", "<|im_end|>"),
    ],
)
def test_a_message_that_the_template_writes_in_another_form_is_literal(
    expression: str, content: str, literal: str
) -> None:
    source = CHATML.replace("m.content", expression)
    built = build_prompt(template(source), user(content), None, None, "")
    assert "ufdd0" not in built.text.encode("unicode_escape").decode()
    assert [built.text[at:][: len(literal)] for at in built.literal] == [literal]


def test_every_role_is_quoted() -> None:
    messages = [Message("system", "<s>1"), Message("user", "2<s>"), Message("assistant", "<s>3"), Message("user", "4")]
    built = build_prompt(template(CHATML), messages, THINK, None, "")
    assert [built.text[at - 1 : at + 4] for at in built.literal] == ["\n<s>1", "2<s><", "\n<s>3"]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ messages[0].content | trim }}|", "<s> x <s>|"),
        ("{{ messages[0].content.strip().split(' ') | join('_') }}|", "<s>_x_<s>|"),
        ("{{ messages[0].content | tojson }}|", '" <s> x <s>\\n"|'),
        ("{{ messages[0].content.replace('x', '<s>') }}|", " <s> <s> <s>\n|"),
    ],
)
def test_marks_survive_what_templates_do_to_messages(source: str, text: str) -> None:
    built = build_prompt(template(source), user(" <s> x <s>\n"), None, None, "")
    assert built.text == text
    first, last = text.index("<s>"), text.rindex("<s>")
    assert built.literal == (first, last)


def test_a_tag_in_a_question_opens_no_thought() -> None:
    bare = template("{{ messages[0].content }}")
    built = build_prompt(bare, user("Explain <think>"), THINK, None, "")
    assert not built.starts_in_thought
    assert (built.text, built.literal) == ("Explain <think>", (8,))
    asked = build_prompt(bare, user("Explain <think>"), THINK, True, "")
    assert asked.starts_in_thought
    assert asked.text == "Explain <think><think>\n"


def test_a_template_does_not_take_a_quoted_tag_for_its_own() -> None:
    source = "{% if '</think>' in messages[0].content %}{{ messages[0].content.split('</think>')[1] }}{% else %}{{ messages[0].content }}{% endif %}"  # noqa: E501
    built = build_prompt(template(source), user("a</think>b"), THINK, None, "")
    assert (built.text, built.literal) == ("a</think>b", (1,))
