"""In which form a chat template wants earlier thoughts back, if it writes them at all."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from runtime.base.types import Message
from runtime.engine.chat_template import ChatTemplate, ThoughtForm, in_blocks, in_fields, in_parts
from runtime.engine.markers import ThinkingMarkers
from runtime.engine.template_variables import KEEP_THOUGHTS, Variables, probe, template_variables

Keeps = Literal["never", "optional", "always"]

THOUGHT, ANSWER, QUESTION = "Qzthoughtqz", "Qzanswerqz", "Qzquestionqz"

_ASKED = Message("user", QUESTION)
_ANSWERED = Message("assistant", ANSWER, THOUGHT)


def keeps_thoughts(template: ChatTemplate, markers: ThinkingMarkers | None) -> Keeps:
    return _kept(template, markers)[0]


def thought_form(template: ChatTemplate, markers: ThinkingMarkers | None) -> ThoughtForm | None:
    """How to hand over earlier thoughts; None for a template that writes none."""
    return _kept(template, markers)[1]


@lru_cache(maxsize=8)
def _kept(template: ChatTemplate, markers: ThinkingMarkers | None) -> tuple[Keeps, ThoughtForm | None]:
    on = template_variables(template).on
    inline = _in_content(markers) if markers else None
    for thoughts in (in_fields, in_parts, in_blocks, inline):
        if thoughts is None:
            continue
        # A thought in the content is kept by every template that does not know of thoughts.
        if thoughts is not inline and _writes(template, thoughts, on):
            return "always", thoughts
        if _writes(template, thoughts, {**on, **KEEP_THOUGHTS}) and not _writes(template, thoughts, on):
            return "optional", thoughts
    return "never", None


def _writes(template: ChatTemplate, thoughts: ThoughtForm, variables: Variables) -> bool:
    """Whether it writes the thought of an earlier answer, and not only its content as it stands."""
    talk = (_ASKED, _ANSWERED, _ASKED, Message("assistant", ANSWER), _ASKED)
    written = probe(template, variables, talk=talk, thoughts=thoughts) or ""
    return THOUGHT in written and not is_dump(written)


def is_dump(written: str) -> bool:
    """Whether the template wrote a list or mapping with the thought in it, which it does not understand."""
    before, after = written.partition(THOUGHT)[::2]
    return before.rstrip()[-1:] in ("'", '"') and after.lstrip()[:1] in ("'", '"')


def _in_content(markers: ThinkingMarkers) -> ThoughtForm:
    def thoughts(thought: str, answer: str) -> dict[str, object]:
        return {"content": markers.forced_open + thought + markers.forced_close + answer if thought else answer}

    return thoughts
