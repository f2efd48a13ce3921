"""What a chat template knows about thinking: found by rendering it, not by the name of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runtime.engine.chat_template import ChatTemplate
from runtime.engine.markers import ThinkingMarkers
from runtime.engine.template_variables import LEVELS, probe, template_variables
from runtime.engine.thought_form import keeps_thoughts

__all__ = ["LEVELS", "TemplateFacts", "template_facts"]


@dataclass(frozen=True, slots=True)
class TemplateFacts:
    """`switch`: thinking can be switched on and off; `default_thinking` is how it is if nobody asks, "adaptive" where
    the template then writes neither of both. `efforts`: the levels of effort in rising order, () for none.

    `default_effort` is "" where the default is none of them. `keeps_thoughts`: whether earlier thoughts are written
    never, when a variable asks for them, or always.
    """

    thinks: bool
    switch: bool
    efforts: tuple[str, ...]
    default_effort: str
    keeps_thoughts: Literal["never", "optional", "always"]
    takes_system: bool
    default_thinking: Literal["on", "off", "adaptive"] = "on"


def template_facts(template: ChatTemplate, markers: ThinkingMarkers | None) -> TemplateFacts:
    """The facts of a template; `markers` are those of its model."""
    known = template_variables(template)
    default = probe(template)
    same = (level for level in known.efforts if probe(template, known.asked(None, level)) == default)
    return TemplateFacts(
        thinks=markers is not None,
        switch=bool(known.on),
        efforts=tuple(known.efforts),
        default_effort=next(same, "") if default is not None else "",
        keeps_thoughts=keeps_thoughts(template, markers),
        takes_system=template.takes_system,
        default_thinking=_default_thinking(template, default),
    )


def _default_thinking(template: ChatTemplate, default: str | None) -> Literal["on", "off", "adaptive"]:
    known = template_variables(template)
    if not known.on or default == probe(template, known.on):
        return "on"
    return "off" if default == probe(template, known.off) else "adaptive"
