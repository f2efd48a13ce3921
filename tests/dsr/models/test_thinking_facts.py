from __future__ import annotations

from dataclasses import replace

import pytest

from dsr.models.model import card_facts
from dsr.models.thinking_facts import effort_text, facts_json, kept_text, switch_text, system_text, tools_text
from runtime.engine.template import ChatTemplate
from runtime.engine.template_facts import TemplateFacts, template_facts
from tests.dsr.chat.chatting import LEVELLED, PLAIN, SWITCHED, TAGS, card


def known(source: str) -> TemplateFacts:
    return template_facts(ChatTemplate(source, bos="", eos=""), TAGS)


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        (
            PLAIN,
            (
                "no switch in the chat template",
                "the chat template knows no levels",
                "removed; the chat template never writes them",
                "has its own role",
            ),
        ),
        (
            LEVELLED,
            (
                "no switch in the chat template",
                "low, medium, high; default medium",
                "removed; --keep-thoughts leaves them in the prompt",
                "has its own role",
            ),
        ),
        (
            SWITCHED.replace("messages", "messages if m.role != 'system'"),
            (
                "on by default, --no-think switches it off",
                "the chat template knows no levels",
                "removed; the chat template never writes them",
                "joins the first question: the chat template has no role for it",
            ),
        ),
    ],
    ids=["plain", "levels", "switch"],
)
def test_facts_in_words(source: str, lines: tuple[str, ...]) -> None:
    facts = known(source)
    assert (switch_text(facts), effort_text(facts), kept_text(facts), system_text(facts)) == lines


def test_facts_as_json() -> None:
    assert facts_json(known(LEVELLED)) == {
        "switch": False,
        "default_thinking": None,
        "efforts": ["low", "medium", "high"],
        "default_effort": "medium",
        "keeps_thoughts": "optional",
        "system_role": True,
        "tools": False,
        "parallel_calls": False,
    }


def test_tools_in_words() -> None:
    facts = known(LEVELLED)
    assert tools_text(facts) == "unknown to the chat template: the system prompt lists them"
    several = replace(facts, tools=True, parallel_calls=True)
    assert tools_text(several) == "the chat template knows them; several calls in one answer"
    assert tools_text(replace(facts, tools=True)) == "the chat template knows them; one call in one answer"


def test_a_file_without_a_readable_template_has_no_facts() -> None:

    assert card_facts(card()) == replace(known(PLAIN), thinks=False)  # PLAIN has no marks
    assert card_facts(replace(card(), template=None)) is None
    assert card_facts(replace(card(), template="{% if %}")) is None
