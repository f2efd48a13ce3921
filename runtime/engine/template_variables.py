"""The variables of a chat template that are about thinking: found by giving them and comparing the prompts.

Templates agree on no names. The names in use are listed here with their sources; rendering tells which of them a
template reads, and which words it takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from runtime.base.errors import Incompatible
from runtime.base.types import Message
from runtime.engine.chat_template import PLAIN_CALLS, CallsAs, ChatTemplate, ThoughtForm

Variables = Mapping[str, object]

# In rising order. The words that mean the same in templates stand behind each; the first one that is taken counts.
_WORDS: dict[str, tuple[str, ...]] = {
    "minimal": ("minimal",),
    "low": ("low",),
    "medium": ("medium",),
    "high": ("high",),
    "max": ("max", "xhigh"),
}
LEVELS = tuple(_WORDS)
# The variable that holds the effort: gpt-oss, Hy3, Solar Open, DeepSeek-V4; Kimi K3; Muse Glimmer.
EFFORT_NAMES = ("reasoning_effort", "thinking_effort", "reasoning_strength")
# Words for no effort: OpenAI's API, Command A (`none`); Hy3.
_NO_EFFORT = ("none", "no_think")
# What templates that write out any word expect: openai/harmony, docs/format.md, "System Message".
_ANY_WORD = ("low", "medium", "high")

# Variables that switch thinking: (name, on, off). The first two have most templates. Then MiniMax M3; Command A;
# Seed-OSS (-1: without a limit).
_SWITCHES: tuple[tuple[str, object, object], ...] = (
    ("enable_thinking", True, False),
    ("thinking", True, False),
    ("thinking_mode", "enabled", "disabled"),
    ("reasoning", True, False),
    ("thinking_budget", -1, 0),
)

# Variables with which templates are asked to write earlier thoughts. Source of the first four: llama.cpp,
# common/jinja/caps.cpp, caps_apply_preserve_reasoning. The others: the templates of Hy3, LFM2.5 and Solar Open.
KEEP_THOUGHTS: dict[str, object] = {
    "preserve_thinking": True,
    "clear_thinking": False,
    "truncate_history_thinking": False,
    "drop_thinking": False,
    "preserved_thinking": True,
    "keep_past_thinking": True,
    "think_render_option": "all",
}

_HELLO = (Message("user", "hello"),)
_NONSENSE = "zuvhdq"


@dataclass(frozen=True, slots=True)
class TemplateVariables:
    """`on` and `off` switch thinking; both are empty without a switch. `efforts`: the variables of each known level."""

    on: Variables
    off: Variables
    efforts: Mapping[str, Variables]

    def asked(self, thinking: bool | None, effort: str | None) -> dict[str, object]:
        """The variables for a wish. An effort is one of thinking, so it switches that on.

        Raises Incompatible for an effort that the template does not know.
        """
        if effort is not None and effort not in self.efforts:
            known = f"it knows {', '.join(self.efforts)}" if self.efforts else "it has no levels of effort"
            raise Incompatible(f"the chat template does not know the effort {effort}: {known}")
        if thinking is False:
            return dict(self.off)
        switched = self.on if thinking or effort else {}
        return {**switched, **(self.efforts[effort] if effort else {})}


@lru_cache(maxsize=8)
def template_variables(template: ChatTemplate) -> TemplateVariables:
    """The variables that make a difference in the prompt for "hello"."""
    if probe(template) is None:
        return TemplateVariables({}, {}, {})
    on, off = dict[str, object](), dict[str, object]()
    for name, yes, no in _SWITCHES:
        if _reads(template, name) and _differ(probe(template, {name: yes}), probe(template, {name: no})):
            on[name], off[name] = yes, no
    efforts: dict[str, Variables] = {}
    for name in EFFORT_NAMES:
        if _reads(template, name):
            words = _Words(template, name, on)
            efforts |= words.levels()
            if words.off is not None and "reasoning" not in on:
                off[name] = words.off
                if efforts and not _differ(words.written(words.off), probe(template)):
                    on |= efforts.get("high") or efforts[list(efforts)[-1]]  # without effort it does not think
    return TemplateVariables(on, off, efforts)


def probe(
    template: ChatTemplate,
    variables: Variables | None = None,
    *,
    talk: Sequence[Message] = _HELLO,
    add_generation_prompt: bool = True,
    thoughts: ThoughtForm | None = None,
    calls: CallsAs = PLAIN_CALLS,
) -> str | None:
    """What the template writes to `talk`; None if it refuses."""
    return template.probe(
        talk,
        variables,
        add_generation_prompt=add_generation_prompt,
        thoughts=thoughts,
        calls=calls,
    )


class _Words:
    """Which words the variable `name` takes."""

    def __init__(self, template: ChatTemplate, name: str, on: Variables) -> None:
        self._template, self._name, self._on = template, name, on
        self._nonsense = self.written(_NONSENSE)
        self.off = next((word for word in _NO_EFFORT if self._knows(word)), None)

    def written(self, word: str) -> str | None:
        return probe(self._template, {**self._on, self._name: word})

    def levels(self) -> dict[str, Variables]:
        first: Callable[[Iterator[str]], str | None] = lambda words: next(words, None)  # noqa: E731
        found = {level: first(word for word in words if self._knows(word)) for level, words in _WORDS.items()}
        if all(self.written(word) == self._nonsense for word in found.values() if word is not None):
            return {}
        return {level: {self._name: word} for level, word in found.items() if word is not None}

    def _knows(self, word: str) -> bool:
        """A word is known if the template refuses nonsense and not this, or treats it otherwise, or names it.

        A template that writes out every word does not tell.
        """
        written = self.written(word)
        if written is None or self._nonsense is None:
            return written is not None
        if _NONSENSE in self._nonsense:
            return word in _ANY_WORD
        named = re.search(rf"([\"']){word}\1", self._template.source) is not None
        return named and (written != self._nonsense or word in _WORDS)


def _reads(template: ChatTemplate, name: str) -> bool:
    """Whether the name occurs other than as a field or in quotes."""
    return re.search(rf"(?<![\w.\"']){name}\b", template.source) is not None


def _differ(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and one != other
