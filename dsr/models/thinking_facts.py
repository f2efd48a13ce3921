"""What a chat template knows about thinking and tools, in words and as JSON."""

from __future__ import annotations

from typing import Any

from runtime.engine.template_facts import TemplateFacts

_DEFAULTS = {
    "on": "on by default, --no-think switches it off",
    "off": "off by default, --think switches it on",
    "adaptive": "the model decides by default, --think and --no-think switch it",
}


def switch_text(facts: TemplateFacts) -> str:
    return _DEFAULTS[facts.default_thinking] if facts.switch else "no switch in the chat template"


def effort_text(facts: TemplateFacts) -> str:
    """'low, medium, high; default medium'."""
    if not facts.efforts:
        return "the chat template knows no levels"
    return f"{', '.join(facts.efforts)}; default {facts.default_effort or 'none of these'}"


def kept_text(facts: TemplateFacts) -> str:
    if facts.keeps_thoughts == "never":
        return "removed; the chat template never writes them"
    return "removed; --keep-thoughts leaves them in the prompt"


def system_text(facts: TemplateFacts) -> str:
    return (
        "has its own role" if facts.takes_system else "joins the first question: the chat template has no role for it"
    )


def tools_text(facts: TemplateFacts) -> str:
    if not facts.tools:
        return "unknown to the chat template: the system prompt lists them"
    return f"the chat template knows them; {'several calls' if facts.parallel_calls else 'one call'} in one answer"


def facts_json(facts: TemplateFacts) -> dict[str, Any]:
    return {
        "switch": facts.switch,
        "default_thinking": facts.default_thinking if facts.switch else None,
        "efforts": list(facts.efforts),
        "default_effort": facts.default_effort or None,
        "keeps_thoughts": facts.keeps_thoughts,
        "system_role": facts.takes_system,
        "tools": facts.tools,
        "parallel_calls": facts.parallel_calls,
    }
