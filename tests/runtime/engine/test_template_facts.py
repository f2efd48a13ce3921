from __future__ import annotations

import pytest

from runtime.base.errors import Incompatible
from runtime.base.types import Message
from runtime.engine.chat_template import ChatTemplate
from runtime.engine.markers import ThinkingMarkers
from runtime.engine.template import build_prompt
from runtime.engine.template_facts import TemplateFacts, template_facts
from runtime.engine.template_variables import TemplateVariables, template_variables

THINK = ThinkingMarkers("<think>", "</think>", gap="", after="")
SAID = "{{ messages[0].content }}"


def template(text: str) -> ChatTemplate:
    return ChatTemplate(text, bos="", eos="")


def facts(text: str) -> TemplateFacts:
    return template_facts(template(text), THINK)


def variables(text: str) -> TemplateVariables:
    return template_variables(template(text))


def test_a_template_without_variables_knows_nothing() -> None:
    plain = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    assert facts(plain) == TemplateFacts(True, False, (), "", "never", True)
    assert not template_facts(template(plain), None).thinks
    assert facts("{{ raise_exception('no') }}") == TemplateFacts(True, False, (), "", "never", True)


STRICT = (
    "{% set effort = thinking_effort | default('max') %}{% if effort not in ['low', 'high', 'max'] %}"
    "{{ raise_exception('no') }}{% endif %}{{ effort }}" + SAID
)
LENIENT = "{% if reasoning_effort in ['low', 'minimal'] %}!{% elif reasoning_effort == 'high' %}{% endif %}" + SAID
ANY = "Effort: {{ reasoning_effort | default('medium') }}" + SAID
OFF = (
    "{% set e = reasoning_effort | default('no_think') %}{% if e not in ['no_think', 'low', 'high'] %}"
    "{{ raise_exception('no') }}{% endif %}" + SAID + "{{ e }}"
)
ONLY_IF_ON = SAID + "{% if thinking and reasoning_effort == 'max' %}!{% endif %}{% if thinking %}<think>{% endif %}"


@pytest.mark.parametrize(
    ("text", "efforts", "default"),
    [
        (STRICT, ("low", "high", "max"), "max"),
        (LENIENT, ("minimal", "low", "high"), "high"),
        (ANY, ("low", "medium", "high"), "medium"),
        (OFF, ("low", "high"), ""),
        (ONLY_IF_ON, ("max",), ""),
        ("{% if reasoning_strength == 'xhigh' %}!{% endif %}" + SAID, ("max",), ""),
        (SAID + "{# reasoning_effort 'high' #}", (), ""),
    ],
    ids=["refuses others", "ignores others", "writes any", "off by default", "only if on", "another word", "unread"],
)
def test_levels_are_the_words_that_the_template_takes(text: str, efforts: tuple[str, ...], default: str) -> None:
    found = facts(text)
    assert (found.efforts, found.default_effort) == (efforts, default)


@pytest.mark.parametrize(
    ("text", "on", "off"),
    [
        (SAID + "{{ enable_thinking }}", {"enable_thinking": True}, {"enable_thinking": False}),
        (SAID + "{{ thinking }}", {"thinking": True}, {"thinking": False}),
        (SAID + "{{ thinking_mode }}", {"thinking_mode": "enabled"}, {"thinking_mode": "disabled"}),
        (SAID + "{{ messages[0].thinking }}", {}, {}),
        (OFF, {"reasoning_effort": "high"}, {"reasoning_effort": "no_think"}),
    ],
)
def test_a_switch_is_a_variable_that_changes_the_prompt(
    text: str, on: dict[str, object], off: dict[str, object]
) -> None:
    found = variables(text)
    assert (dict(found.on), dict(found.off)) == (on, off)
    assert facts(text).switch is bool(on)


@pytest.mark.parametrize(
    ("text", "default"),
    [
        (SAID, "on"),
        (SAID + "{% if enable_thinking is false %}!{% endif %}", "on"),
        (SAID + "{% if thinking %}!{% endif %}", "off"),
        (OFF, "off"),
        (SAID + "{{ thinking_mode }}", "adaptive"),
    ],
)
def test_how_a_model_thinks_if_nobody_asks(text: str, default: str) -> None:
    assert facts(text).default_thinking == default


def test_a_template_that_is_slow_to_probe_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.engine.chat_template.MAX_PROBED", -1.0)
    assert facts(OFF) == TemplateFacts(True, False, (), "", "never", True)


def test_an_effort_switches_thinking_on_and_no_thinking_wins_over_it() -> None:
    def prompt(thinking: bool | None, effort: str | None) -> str:
        said = (Message("user", "q"),)
        return build_prompt(template(ONLY_IF_ON), said, THINK, thinking, "", effort=effort).text

    assert prompt(None, "max") == "q!<think>"
    assert prompt(False, "max") == "q"
    assert prompt(True, None) == "q<think>"
    assert variables(OFF).asked(False, "low") == {"reasoning_effort": "no_think"}
    assert variables("{% if reasoning_strength == 'xhigh' %}!{% endif %}" + SAID).asked(None, "max") == {
        "reasoning_strength": "xhigh"
    }


def test_a_level_that_a_template_does_not_know_is_refused() -> None:
    with pytest.raises(Incompatible, match=r"does not know the effort medium: it knows low, high, max"):
        variables(STRICT).asked(None, "medium")
    with pytest.raises(Incompatible, match="it has no levels of effort"):
        variables(SAID).asked(None, "low")


TURNS = "{% for m in messages %}[{% if KEEP %}{{ m.reasoning_content }}|{% endif %}{{ m.content }}]{% endfor %}"
INLINE = (
    "{% for m in messages %}[{% if '</think>' in m.content and not keep_past_thinking %}"
    "{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}]{% endfor %}"
)
PARTS = (
    "{% for m in messages %}[{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
    "{{ part.thinking }}{{ part.text }}{% endfor %}{% endif %}]{% endfor %}"
)
ALL_BLOCKS = (
    "{% for m in messages %}[{% if m.role == 'user' %}{{ m.content }}{% else %}{% for block in m.content.blocks %}"
    "{{ block.text }}{% endfor %}{% endif %}]{% endfor %}"
)


@pytest.mark.parametrize(
    ("text", "keeps", "written"),
    [
        (TURNS.replace("KEEP", "m.reasoning_content"), "always", "[q][why|a][r][b][s]"),
        (TURNS.replace("KEEP", "preserve_thinking and m.reasoning_content"), "optional", "[q][why|a][r][b][s]"),
        (TURNS.replace("KEEP", "clear_thinking is false and m.reasoning_content"), "optional", "[q][why|a][r][b][s]"),
        (TURNS.replace("KEEP", "loop.last and m.reasoning_content"), "never", "[q][a][r][b][s]"),
        (INLINE, "optional", "[q][<think>why</think>a][r][b][s]"),
        (PARTS, "always", "[q][whya][r][b][s]"),
        (ALL_BLOCKS, "always", "[q][whya][r][b][s]"),
        ("{% for m in messages %}[{{ m.content }}]{% endfor %}", "never", "[q][a][r][b][s]"),
    ],
)
def test_earlier_thoughts_come_back_in_the_form_that_the_template_reads(text: str, keeps: str, written: str) -> None:
    talk = (
        *(Message("user", "q"), Message("assistant", "a", "why")),
        *(Message("user", "r"), Message("assistant", "b"), Message("user", "s")),
    )
    model = template(text)
    assert template_facts(model, THINK).keeps_thoughts == keeps
    assert build_prompt(model, talk, THINK, None, "", keep_thoughts=True).text == written
    if text is not ALL_BLOCKS:
        assert build_prompt(model, talk, THINK, None, "").text == "[q][a][r][b][s]"


def test_special_tokens_in_an_earlier_thought_are_text() -> None:
    model = ChatTemplate(TURNS.replace("KEEP", "m.reasoning_content"), bos="", eos="", spellings=("<|end|>",))
    talk = (Message("user", "q"), Message("assistant", "a", "say <|end|>"), Message("user", "r"))
    prompt = build_prompt(model, talk, THINK, None, "", keep_thoughts=True)
    assert prompt.text == "[q][say <|end|>|a][r]"
    assert prompt.literal == (prompt.text.index("<|end|>"),)
