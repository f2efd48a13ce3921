"""The marks of a thought, such as `<think>`: how one is written, and which ones have names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

# What takes the place of the end of a thought that is to go on (s1: Simple test-time scaling, arXiv 2501.19393).
EXTENSION = "Wait"
_LONGEST_HEADER = 200  # characters
# A tag: what templates and vocabularies write in brackets.
TAG = re.compile(r"<[^<>\n]{1,60}>|\[[^\[\]\n]{1,60}\]|◁[^◁▷\n]{1,60}▷")

# The beginning of a call without marks. Small models that write code put it into a block (Qwen2.5-Coder 0.5B does so
# for every third question; llama.cpp of 2025 read such blocks, too).
FENCE = "```"
BARE = re.compile(rf"\s*(?:{FENCE}(?:json)?\s*)?\{{")
BARE_SO_FAR = re.compile(rf"\s*(?:`{{0,2}}|{FENCE}(?:j|js|jso|json)?|{FENCE}(?:json)?\s*)")


def tokens_among(texts: Iterable[str], has_token: Callable[[str], bool]) -> frozenset[str]:
    """The texts, or else the tags in them, that a vocabulary has as one token each."""
    tags = {tag for text in texts for tag in ([text] if has_token(text) else TAG.findall(text))}
    return frozenset(filter(has_token, tags))


@dataclass(frozen=True, slots=True)
class Header:
    """The beginning of a message in a format with channels: from one of `begins` to `end`, with a `channel` inside.

    What else a header holds (recipient, data format) is not read.
    """

    begins: tuple[str, ...]
    end: str
    channel: str  # the text before the name of the channel
    thought: str  # the name of the channel that holds the thought

    def names_thought(self, text: str) -> bool:
        """Whether a header, whole or cut short, belongs to the thought."""
        found = re.search(re.escape(self.channel) + r"\s*(\w+)", text)
        return found is not None and found[1] == self.thought

    def whole(self, text: str, prompted: int = 0) -> str | None:
        """The header that a text begins with; None while its end is missing. The first `prompted` characters belong to
        it in any case.

        A header that is longer than 200 characters, or goes on in the next line, has lost its end.
        """
        line, newline, _ = text[:_LONGEST_HEADER].partition("\n")
        end = line.find(self.end)
        if end >= 0:
            return line[: end + len(self.end)]
        if not newline and len(text) < _LONGEST_HEADER:
            return None
        if prompted:
            return text[:prompted]
        # Without its end it is no longer than the name of the channel.
        begin = next(each for each in self.begins if text.startswith(each))
        found = re.match(rf"(?:{re.escape(begin)}\w*)?({re.escape(self.channel)}\s*\w+)?", line)
        return found[0] if found and found[0] else begin

    def open_at_end(self, prompt: str) -> str:
        """The header that a prompt ends in, "" if it is complete."""
        begun = prompt[max(map(prompt.rfind, self.begins)) :] if any(each in prompt for each in self.begins) else ""
        return "" if self.end in begun else begun


@dataclass(frozen=True, slots=True)
class ThinkingMarkers:
    """How a model marks its thought.

    `lead` is the white space before the opening tag, `gap` that inside the tags, `after` that after the closing one.
    `answer_open` comes between the closing tag and the answer; `dropped` are further texts of the format that never
    belong to thought or answer. `wrapper` are the tags that the model may put around its answer. `tokens` are those
    texts, or tags in them, that its vocabulary has as one token. `conclusion`: the last sentence of a thought that was
    cut, in the words that the family knows.
    """

    open: str
    close: str
    gap: str = "\n"
    after: str = "\n\n"
    answer_open: str = ""
    dropped: tuple[str, ...] = ()
    header: Header | None = None
    wrapper: tuple[str, str] | None = None
    lead: str = ""
    tokens: frozenset[str] = field(default=frozenset(), compare=False)
    conclusion: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        tags = self.texts
        if not (self.open and all(tags)) or any(a != b and a in b for a in tags for b in tags):
            raise ValueError(f"tags must not be empty or part of each other: {tags}")

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text of the format that must not reach a reader."""
        if self.header is not None:
            return tuple(dict.fromkeys((self.close, *self.header.begins, self.header.end, *self.dropped)))
        # Words without a tag open a thought at the beginning of a reply only: Apriel's "Here are my reasoning steps:".
        opens = (self.open,) if TAG.search(self.open) else ()
        return tuple(dict.fromkeys((*opens, self.close, *self.dropped)))

    @property
    def forced_open(self) -> str:
        """What begins a thought by force."""
        return self.lead + self.open + self.gap

    @property
    def forced_close(self) -> str:
        """What ends a thought by force, up to where the answer begins."""
        return self.gap + self.close + self.after + self.answer_open

    def rewritten(self, rewrite: Callable[[str], str]) -> ThinkingMarkers:
        """The markers with `rewrite` of each text of the format, as a reply would have it."""
        header = self.header
        if header is not None:
            begins = tuple(map(rewrite, header.begins))
            header = replace(header, begins=begins, end=rewrite(header.end), channel=rewrite(header.channel))
        return replace(
            self,
            open=rewrite(self.open),
            close=rewrite(self.close),
            answer_open=rewrite(self.answer_open),
            dropped=tuple(map(rewrite, self.dropped)),
            header=header,
        )

    def with_tokens(self, has_token: Callable[[str], bool]) -> ThinkingMarkers:
        """The same marks; `has_token` tells which texts the vocabulary has as one token."""
        return replace(self, tokens=tokens_among(self.texts, has_token))


@dataclass(frozen=True, slots=True)
class CallMarks:
    """Where calls of tools begin in an answer: at a mark of `begins`, in a header with `header` inside, or, with
    `bare`, at a brace that the answer begins with, also in a block of code. `tokens` are those texts, or tags in them,
    that are one token each.
    """

    begins: tuple[str, ...] = ()
    header: str = ""
    bare: bool = False
    tokens: frozenset[str] = frozenset()


# In the order of preference. For replies that open a thought unannounced, and for templates that neither write a
# thought nor an empty one. Sources: the published chat templates of DeepSeek-R1, Qwen3 and many others; Apriel 1.5;
# EXAONE Deep; Seed-OSS; MiniMax M3 (llama.cpp, common/parsers/minimax-m3.cpp); Kimi-VL-Thinking; Magistral 2509
# (mistral-common); Gemma 4 (common/parsers/gemma4.cpp); Apertus; Command A Reasoning (common/parsers/cohere2moe.cpp).
PAIRS = (
    ThinkingMarkers("<think>", "</think>"),
    ThinkingMarkers(
        "Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]", after="\n", dropped=("[END FINAL RESPONSE]",)
    ),
    ThinkingMarkers("<thinking>", "</thinking>"),
    ThinkingMarkers("<thought>", "</thought>"),
    ThinkingMarkers("<reasoning>", "</reasoning>"),
    ThinkingMarkers("<seed:think>", "</seed:think>", gap="", after=""),
    ThinkingMarkers("<mm:think>", "</mm:think>", gap="", after=""),
    ThinkingMarkers("◁think▷", "◁/think▷", gap="", after=""),
    ThinkingMarkers("[THINK]", "[/THINK]", gap="", after=""),
    ThinkingMarkers("<|channel>thought", "<channel|>", after=""),
    ThinkingMarkers("<|inner_prefix|>", "<|inner_suffix|>", gap="", after=""),
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
HARMONY = ThinkingMarkers(
    "<|channel|>analysis<|message|>",
    "<|end|>",
    gap="",
    after="",
    answer_open="<|start|>assistant<|channel|>final<|message|>",
    header=Header(("<|start|>", "<|channel|>"), "<|message|>", channel="<|channel|>", thought="analysis"),
)

# Tags around the whole answer. Sources: the chat templates of Granite 3.3 and Hunyuan A13B, which name them.
WRAPPERS = (("<response>", "</response>"), ("<answer>", "</answer>"))
