"""From messages to the prompt text that a model expects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import prompts
from runtime.base.types import Message
from runtime.engine.prompt import Prompt
from runtime.engine.template import ChatTemplate, build_prompt
from runtime.engine.thinking import ThinkingMarkers


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How a model reads a conversation: its chat template, its thinking markers, its family's conventions."""

    template: ChatTemplate
    markers: ThinkingMarkers | None
    family: str = ""

    def prompt(self, messages: Sequence[Message], thinking: bool | None = None) -> Prompt:
        """The prompt for the next answer, not tokenized yet; `thinking` None leaves the model's own default.

        Raises Incompatible when the template fails.
        """
        r1 = self.family == "deepseek-r1"
        return build_prompt(
            self.template,
            messages,
            self.markers,
            # R1 sometimes skips its thought; its authors advise to begin the reply with one (README, "Usage").
            thinking=True if thinking is None and r1 else thinking,
            no_think_text=prompts.read("no-think-r1") if r1 else "",
        )

    @property
    def has_switch(self) -> bool:
        """Whether the template itself can switch thinking on and off."""
        hello = [Message("user", "hello")]
        return self.template.render(hello, enable_thinking=True) != self.template.render(hello, enable_thinking=False)

    def thinking_note(self, think: bool | None, budget: int | None) -> str | None:
        """One line for a person whose thinking options the model cannot follow, or None."""
        asked = think is not None or budget is not None
        if self.markers is not None or not asked or (budget is None and self.has_switch):
            return None
        return "this model does not mark thoughts: they cannot be switched on or off, limited or hidden"
