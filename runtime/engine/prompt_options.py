"""How a prompt asks for the next answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PromptOptions:
    """`thinking`: on, off, or None for the model's own default. `effort`: a level of `template_facts.LEVELS`; None is
    the default of the template. `keep_thoughts`: earlier thoughts stay in the prompt. `special`: texts of special
    tokens in a message act as special tokens; otherwise they are text. `continues`: the last message is an answer that
    goes on.
    """

    thinking: bool | None = None
    effort: str | None = None
    keep_thoughts: bool = False
    special: bool = False
    continues: bool = False
