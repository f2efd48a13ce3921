"""What a chat template knows about thinking and tools: found by rendering it, not by the name of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runtime.engine.chat_template import ChatTemplate
from runtime.engine.markers import ThinkingMarkers
from runtime.engine.template_variables import LEVELS, probe, template_variables
from runtime.engine.thought_form import keeps_thoughts
from runtime.engine.tool_form import tool_form

__all__ = ["LEVELS", "TemplateFacts", "template_facts"]


@dataclass(frozen=True, slots=True)
class TemplateFacts:
    """`switch`: thinking can be switched on and off; `default_thinking` is how it is if nobody asks, "adaptive" where
    the template then writes neither of both. `efforts`: the levels of effort in rising order, () for none.

    `default_effort` is "" where the default is none of them. `keeps_thoughts`: whether earlier thoughts are written
    never, when a variable asks for them, or always. `tools`: it lists tools, or writes calls; `parallel_calls`: several
    in one answer.
    """

    thinks: bool
    switch: bool
    efforts: tuple[str, ...]
    default_effort: str
    keeps_thoughts: Literal["never", "optional", "always"]
    takes_system: bool
    default_thinking: Literal["on", "off", "adaptive"] = "on"
    tools: bool = False
    parallel_calls: bool = False


def template_facts(template: ChatTemplate, markers: ThinkingMarkers | None) -> TemplateFacts:
    """The facts of a template; `markers` are those of its model."""
    known = template_variables(template)
    default = probe(template)
    form = tool_form(template, markers)
    tools = bool(form.lists) or form.writes is not None
    same = (level for level in known.efforts if probe(template, known.asked(None, level)) == default)
    return TemplateFacts(
        thinks=markers is not None,
        switch=bool(known.on),
        efforts=tuple(known.efforts),
        default_effort=next(same, "") if default is not None else "",
        keeps_thoughts=keeps_thoughts(template, markers),
        takes_system=template.takes_system,
        default_thinking=_default_thinking(template, default),
        tools=tools,
        parallel_calls=tools and form.parallel,
    )


def _default_thinking(template: ChatTemplate, default: str | None) -> Literal["on", "off", "adaptive"]:
    known = template_variables(template)
    if not known.on or default == probe(template, known.on):
        return "on"
    return "off" if default == probe(template, known.off) else "adaptive"
