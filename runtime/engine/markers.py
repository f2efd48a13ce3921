"""The marks of a thought, such as `<think>`: which ones a model uses."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

# What takes the place of the end of a thought that is to go on (s1: Simple test-time scaling, arXiv 2501.19393).
EXTENSION = "Wait"


@dataclass(frozen=True, slots=True)
class Header:
    """The beginning of a message in a format with channels: from one of `begins` to `end`, with a `channel` inside.

    What else a header holds (recipient, data format) is not read.
    """

    begins: tuple[str, ...]
    end: str
    channel: str  # the mark before the name of the channel
    thought: str  # the name of the channel that holds the thought

    def names_thought(self, text: str) -> bool:
        """Whether a header, whole or cut short, belongs to the thought."""
        found = re.search(re.escape(self.channel) + r"\s*(\w+)", text)
        return found is not None and found[1] == self.thought


@dataclass(frozen=True, slots=True)
class ThinkingMarkers:
    """How a model marks its thought.

    `gap` is the white space it writes inside the tags, `after` what it writes after the closing one. `answer_open`
    comes between the closing tag and the answer; `dropped` are further texts of the format that never belong to
    thought or answer. `wrapper` are the tags that the model may put around its answer. `tokens` are the texts that
    its vocabulary has as one token.
    """

    open: str
    close: str
    gap: str = "\n"
    after: str = "\n\n"
    answer_open: str = ""
    dropped: tuple[str, ...] = ()
    header: Header | None = None
    wrapper: tuple[str, str] | None = None
    tokens: frozenset[str] = field(default=frozenset(), compare=False)

    def __post_init__(self) -> None:
        tags = self.texts
        if not all(tags) or any(a != b and a in b for a in tags for b in tags):
            raise ValueError(f"tags must not be empty or part of each other: {tags}")

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text of the format that must not reach a reader."""
        if self.header is not None:
            return (self.close, *self.header.begins, self.header.end, *self.dropped)
        return (self.open, self.close, *self.dropped)

    @property
    def forced_open(self) -> str:
        """What begins a thought by force."""
        return self.open + self.gap

    @property
    def forced_close(self) -> str:
        """What ends a thought by force, up to where the answer begins."""
        return self.gap + self.close + self.after + self.answer_open


# In the order of preference. Sources: the published chat templates of DeepSeek-R1, Qwen3 and many others;
# EXAONE Deep; Seed-OSS; Kimi-VL-Thinking; Magistral 2509 (mistral-common); Gemma 4; Command A Reasoning.
PAIRS = (
    ThinkingMarkers("<think>", "</think>"),
    ThinkingMarkers("<thinking>", "</thinking>"),
    ThinkingMarkers("<thought>", "</thought>"),
    ThinkingMarkers("<reasoning>", "</reasoning>"),
    ThinkingMarkers("<seed:think>", "</seed:think>", gap="", after=""),
    ThinkingMarkers("◁think▷", "◁/think▷", gap="", after=""),
    ThinkingMarkers("[THINK]", "[/THINK]", gap="", after=""),
    ThinkingMarkers("<|channel>thought", "<channel|>", after=""),
    ThinkingMarkers(
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        gap="",
        after="",
        answer_open="<|START_RESPONSE|>",
        dropped=("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ),
)

# gpt-oss. Its closing tag also ends other things in other models, so it counts only together with the opening
# one. Source: openai/harmony, docs/format.md.
_HARMONY = ThinkingMarkers(
    "<|channel|>analysis<|message|>",
    "<|end|>",
    gap="",
    after="",
    answer_open="<|start|>assistant<|channel|>final<|message|>",
    header=Header(("<|start|>", "<|channel|>"), "<|message|>", channel="<|channel|>", thought="analysis"),
)

# Tags around the whole answer. Sources: the chat templates of Granite 3.3 and Hunyuan A13B, which name them.
_WRAPPERS = (("<response>", "</response>"), ("<answer>", "</answer>"))


def thinking_markers(template: str | None, has_token: Callable[[str], bool]) -> ThinkingMarkers | None:
    """The model's own markers; None for a model that does not announce any.

    What the template writes out counts before what only the vocabulary has: vocabularies are inherited.
    """
    text = template or ""
    found = _announced(text, has_token)
    if found is None:
        return None
    wrapper = next((tags for tags in _WRAPPERS if all(tag in text for tag in tags)), None)
    return replace(found, wrapper=wrapper, tokens=frozenset(filter(has_token, found.texts)))


def _announced(template: str, has_token: Callable[[str], bool]) -> ThinkingMarkers | None:
    if _HARMONY.open in template:
        return _HARMONY
    for markers in PAIRS:
        if markers.open in template or markers.close in template:
            return markers
    for markers in PAIRS:
        if has_token(markers.open) and has_token(markers.close):
            return markers
    return _HARMONY if has_token("<|channel|>") and has_token("<|message|>") else None
