"""What a chat template knows about thinking: found by rendering it, not by the name of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from runtime.base.errors import Incompatible
from runtime.base.types import Message
from runtime.engine.markers import ThinkingMarkers
from runtime.engine.template import EFFORT_NAMES, KEEP_THOUGHTS, ChatTemplate

LEVELS = ("minimal", "low", "medium", "high", "max")

_SENTINEL = "Sentinel of a thought"
_HELLO = Message("user", "hello")


@dataclass(frozen=True, slots=True)
class TemplateFacts:
    """`switch`: thinking can be switched on and off. `efforts`: the levels of effort in rising order, () for none.

    `default_effort` is "" where the default is none of them. `keeps_thoughts`: whether earlier thoughts are written
    never, when a variable asks for them, or always.
    """

    thinks: bool
    switch: bool
    efforts: tuple[str, ...]
    default_effort: str
    keeps_thoughts: Literal["never", "optional", "always"]
    takes_system: bool


def template_facts(template: ChatTemplate, markers: ThinkingMarkers | None) -> TemplateFacts:
    """The facts of a template; `markers` are those of its model."""
    efforts = dict(_efforts(template))
    default = _render(template)
    return TemplateFacts(
        thinks=markers is not None,
        switch=_render(template, enable_thinking=True) != _render(template, enable_thinking=False),
        efforts=tuple(efforts),
        default_effort=next((level for level, text in efforts.items() if text == default), ""),
        keeps_thoughts=_keeps_thoughts(template),
        takes_system=template.takes_system,
    )


def _efforts(template: ChatTemplate) -> Iterator[tuple[str, str | None]]:
    """(level, what the template writes then) of every level that makes a difference."""
    for name in EFFORT_NAMES:
        if name in template.source:
            written = {level: _render(template, {name: level}) for level in LEVELS if level in template.source}
            if len(set(written.values())) > 1:
                yield from ((level, text) for level, text in written.items() if text is not None)


def _keeps_thoughts(template: ChatTemplate) -> Literal["never", "optional", "always"]:
    talk = (_HELLO, replace(Message("assistant", "Hi."), thinking=_SENTINEL), _HELLO)
    if _SENTINEL in (_render(template, talk=talk) or ""):
        return "always"
    return "optional" if _SENTINEL in (_render(template, KEEP_THOUGHTS, talk=talk) or "") else "never"


def _render(
    template: ChatTemplate,
    variables: Mapping[str, object] | None = None,
    *,
    talk: tuple[Message, ...] = (_HELLO,),
    enable_thinking: bool | None = None,
) -> str | None:
    """What the template writes; None if it refuses."""
    try:
        return template.render(talk, enable_thinking=enable_thinking, variables=variables)
    except Incompatible:
        return None
