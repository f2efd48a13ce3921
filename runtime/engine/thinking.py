"""From a stream of text to thought and answer: the markers, the splitter, and its small helpers.

Everything here is a filter over pieces of any length: how a stream is cut into pieces never changes the
result.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Part = Literal["thinking", "answer"]

# What takes the place of the end of a thought that is to go on (s1: Simple test-time scaling, arXiv 2501.19393).
EXTENSION = "Wait"


@dataclass(frozen=True, slots=True)
class ThinkingMarkers:
    """How a model marks its thought.

    `gap` is the white space it writes inside the tags, and twice after the closing one. `answer_open` comes
    between the closing tag and the answer; `dropped` are further texts of the format that never belong to
    thought or answer.
    """

    open: str
    close: str
    gap: str = "\n"
    answer_open: str = ""
    dropped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        tags = self.texts
        if not all(tags) or any(a != b and a in b for a in tags for b in tags):
            raise ValueError(f"tags must not be empty or part of each other: {tags}")

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text that must not reach a reader."""
        return (self.open, self.close, *self.dropped)

    @property
    def forced_open(self) -> str:
        """What begins a thought by force."""
        return self.open + self.gap

    @property
    def forced_close(self) -> str:
        """What ends a thought by force, up to where the answer begins."""
        return self.gap + self.close + self.gap * 2 + self.answer_open


# In the order of preference. Sources: the published chat templates of DeepSeek-R1, Qwen3 and many others;
# EXAONE Deep; Seed-OSS; Kimi-VL-Thinking; Magistral 2509 (mistral-common); Command A Reasoning.
_PAIRS = (
    ThinkingMarkers("<think>", "</think>"),
    ThinkingMarkers("<thinking>", "</thinking>"),
    ThinkingMarkers("<thought>", "</thought>"),
    ThinkingMarkers("<reasoning>", "</reasoning>"),
    ThinkingMarkers("<seed:think>", "</seed:think>", gap=""),
    ThinkingMarkers("◁think▷", "◁/think▷", gap=""),
    ThinkingMarkers("[THINK]", "[/THINK]", gap=""),
    ThinkingMarkers(
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        gap="",
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
    answer_open="<|start|>assistant<|channel|>final<|message|>",
    dropped=("<|start|>assistant", "<|channel|>final<|message|>", "<|channel|>commentary<|message|>"),
)


def thinking_markers(template: str | None, has_token: Callable[[str], bool]) -> ThinkingMarkers | None:
    """The model's own markers; None for a model that does not mark thoughts.

    What the template writes out counts before what only the vocabulary has: vocabularies are inherited.
    """
    text = template or ""
    if _HARMONY.open in text:
        return _HARMONY
    for markers in _PAIRS:
        if markers.open in text or markers.close in text:
            return markers
    for markers in _PAIRS:
        if has_token(markers.open) and has_token(markers.close):
            return markers
    return _HARMONY if has_token("<|channel|>") and has_token("<|message|>") else None


class ThinkingSplitter:
    """Tells thought from answer while the text arrives.

    - Nothing of a tag reaches either part. A piece of text that may become a tag is held back until it is
      clear.
    - The first closing tag ends the thought; in the answer a closing tag is dropped. In a thought an opening
      tag is dropped; in the answer it opens another thought, unless it stands in a code block or code span,
      where a model explains tags: there it is dropped too.
    - A thought is stripped at both ends, an answer at its start. Later thoughts follow after an empty line.
    - Text around a removed tag could join to form a new tag. The character that would complete it is left
      out.
    """

    def __init__(self, markers: ThinkingMarkers | None, starts_in_thought: bool = False) -> None:
        self._markers = markers
        self._tags = markers.texts if markers else ()
        self._starts = {tag[0] for tag in self._tags}
        self._part: Part = "thinking" if markers and starts_in_thought else "answer"
        self._held = ""  # the end of the text so far that may still become a tag
        self._spaces = ""  # white space of the thought that counts only when more text follows
        self._fresh = True  # no text of this thought or answer came yet: white space is dropped
        self._seams = {"thinking": _SeamGuard(self._tags), "answer": _SeamGuard(self._tags)}
        self._code = _CodeWatcher()

    @property
    def in_thought(self) -> bool:
        return self._part == "thinking"

    def feed(self, text: str) -> list[tuple[Part, str]]:
        """Take more text; give out what is certain by now, as (part, text), texts never empty."""
        if not self._tags:
            return [("answer", text)] if text else []
        out: list[tuple[Part, str]] = []
        if not self._held and not any(start in text for start in self._starts):
            self._write(text, out)  # most text is this
            return out
        text = self._held + text
        while found := _first_of(self._tags, text):
            start, tag = found
            self._write(text[:start], out)
            self._meet(tag)
            text = text[start + len(tag) :]
        kept = _tail_that_may_become(self._tags, text)
        self._held = text[len(text) - kept :]
        self._write(text[: len(text) - kept], out)
        return out

    def close(self) -> None:
        """The thought was closed by force, outside of the text fed here. What was held back goes with the tag."""
        self._held = ""
        if self.in_thought:
            self._turn("answer")

    def finish(self) -> list[tuple[Part, str]]:
        """No more text comes. A tag cut short at the end of a thought is dropped; else what was held is text."""
        out: list[tuple[Part, str]] = []
        if not (self.in_thought and len(self._held) > 1):
            self._write(self._held, out)
        self._held = ""
        return out

    def _meet(self, tag: str) -> None:
        assert self._markers is not None
        if self.in_thought:
            if tag == self._markers.close:
                self._turn("answer")
        elif tag == self._markers.open and not self._code.inside:
            self._turn("thinking")

    def _turn(self, part: Part) -> None:
        self._part = part
        self._spaces = ""
        # An answer that goes on after a later thought keeps its white space, unless it has some already.
        self._fresh = part == "thinking" or self._seams["answer"].ends_in_space

    def _write(self, text: str, out: list[tuple[Part, str]]) -> None:
        if self._markers is not None and self._fresh:
            text = text.lstrip()
        if not text:
            return
        if self.in_thought:
            text = self._spaces + text
            if self._fresh and self._seams["thinking"].wrote:
                text = "\n\n" + text
            bare = text.rstrip()
            self._spaces = text[len(bare) :]
            text = bare
        self._fresh = self._fresh and not text
        text = self._seams[self._part].pass_on(text)
        if not self.in_thought:
            self._code.watch(text)
        if text and out and out[-1][0] == self._part:
            out[-1] = (self._part, out[-1][1] + text)
        elif text:
            out.append((self._part, text))


class _SeamGuard:
    """Passes one part's text on, less the characters that would complete a tag across a seam."""

    def __init__(self, tags: Sequence[str]) -> None:
        self._tags = tags
        self._starts = {tag[0] for tag in tags}
        self._tail = ""  # the end of what was passed on, as far as it may become a tag
        self.wrote = False
        self.ends_in_space = True

    def pass_on(self, text: str) -> str:
        nothing_begins = not self._tail and not any(start in text for start in self._starts)
        passed = text if nothing_begins else self._guarded(self._tail + text)
        if passed:
            self.wrote = True
            self.ends_in_space = passed[-1].isspace()
        return passed

    def _guarded(self, whole: str) -> str:
        # What comes first completed is what the reader would see first.
        while ends := [at + len(tag) for tag in self._tags if (at := whole.find(tag)) >= 0]:
            whole = whole[: min(ends) - 1] + whole[min(ends) :]
        passed = whole[len(self._tail) :]
        kept = _tail_that_may_become(self._tags, whole)
        self._tail = whole[len(whole) - kept :]
        return passed


class _CodeWatcher:
    """Whether the text so far ends inside a fenced block or a code span (CommonMark 4.5 and 6.1)."""

    def __init__(self) -> None:
        self._fence = ""  # the fence that opened the block, "" outside
        self._line = ""

    @property
    def inside(self) -> bool:
        # In the line of the fence itself the tag would be part of the info string: code as well.
        return bool(self._fence) or fence_of(self._line) != "" or self._line.count("`") % 2 == 1

    def watch(self, text: str) -> None:
        *ended, rest = text.split("\n")
        for line in ended:
            self._end(self._line + line)
            self._line = ""
        self._line += rest

    def _end(self, line: str) -> None:
        fence = fence_of(line)
        if not self._fence:
            self._fence = fence
        elif fence.startswith(self._fence) and line.strip() == fence:
            self._fence = ""


def fence_of(line: str) -> str:
    """The run of three or more backticks or tildes that a line begins with, or nothing."""
    text = line.lstrip(" ")
    if not text.startswith(("```", "~~~")):
        return ""
    run = text[: len(text) - len(text.lstrip(text[0]))]
    return "" if text[0] == "`" and "`" in text[len(run) :] else run


class StopStrings:
    """Ends a stream before the first stop string; what may become one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self._stopped = False

    def feed(self, text: str) -> tuple[str, bool]:
        """The text that is certain by now, and whether a stop string was met. After it nothing comes."""
        if self._stopped:
            return "", True
        if not self._stops:
            return text, False
        text = self._held + text
        self._held = ""
        # The one that is complete first ends the stream; of those complete at once, the longest.
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self._stopped = True
            return text[: min(found)[1]], True
        kept = _tail_that_may_become(self._stops, text)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept], False

    def finish(self) -> str:
        """What was held back, now that nothing more comes."""
        held, self._held = self._held, ""
        return held


class UTF8Pieces:
    """Bytes of tokens -> text, never a part of a character. Bytes that are no UTF-8 become U+FFFD."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, piece: bytes) -> str:
        return self._decoder.decode(piece)

    def finish(self) -> str:
        """The remains of a character that never became whole."""
        return self._decoder.decode(b"", final=True)

    @property
    def at_boundary(self) -> bool:
        """Whether no character is half there."""
        return not self._decoder.getstate()[0]


def _first_of(tags: Sequence[str], text: str) -> tuple[int, str] | None:
    """The first tag in the text and where it begins."""
    found = [(at, tag) for tag in tags if (at := text.find(tag)) >= 0]
    return min(found) if found else None


def _tail_that_may_become(tags: Sequence[str], text: str) -> int:
    """How many characters at the end of a text are the beginning of a tag, at most."""
    longest = 0
    for tag in tags:
        start = text.find(tag[0], max(0, len(text) - len(tag) + 1))
        while start >= 0 and len(text) - start > longest:
            if tag.startswith(text[start:]):
                longest = len(text) - start
                break
            start = text.find(tag[0], start + 1)
    return longest
