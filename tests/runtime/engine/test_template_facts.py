from __future__ import annotations

from runtime.engine.markers import ThinkingMarkers
from runtime.engine.template import ChatTemplate
from runtime.engine.template_facts import TemplateFacts, template_facts

THINK = ThinkingMarkers("<think>", "</think>")


def facts(text: str) -> TemplateFacts:
    return template_facts(ChatTemplate(text, bos="", eos=""), THINK)


def test_a_template_without_variables_knows_nothing() -> None:
    plain = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    assert facts(plain) == TemplateFacts(True, False, (), "", "never", True)
    assert not template_facts(ChatTemplate(plain, bos="", eos=""), None).thinks


def test_levels_are_those_that_the_template_takes() -> None:
    strict = facts(
        "{% set effort = thinking_effort | default('max') %}{% if effort not in ['low', 'high', 'max'] %}"
        "{{ raise_exception('no') }}{% endif %}{{ effort }}{{ messages[0].content }}"
    )
    assert (strict.efforts, strict.default_effort) == (("low", "high", "max"), "max")


def test_earlier_thoughts_are_kept_always_or_when_a_variable_asks() -> None:
    turns = "{% for m in messages %}[{% if KEEP %}{{ m.reasoning_content }}{% endif %}{{ m.content }}]{% endfor %}"
    assert facts(turns.replace("KEEP", "true")).keeps_thoughts == "always"
    assert facts(turns.replace("KEEP", "preserve_thinking")).keeps_thoughts == "optional"
    assert facts(turns.replace("KEEP", "clear_thinking is false")).keeps_thoughts == "optional"
    assert facts(turns.replace("KEEP", "loop.last")).keeps_thoughts == "never"
