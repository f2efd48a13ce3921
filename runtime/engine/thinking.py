"""From a stream of text to thought and answer.

How a stream is cut into pieces never changes the result.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from runtime.engine.markers import PAIRS, Header, ThinkingMarkers
from runtime.engine.quoted_marks import Place, is_quoted
from runtime.engine.text_streams import first_of, tail_that_may_become

Part = Literal["thinking", "answer"]

_LONGEST_HEADER = 200  # characters; a header that is longer, or goes on in the next line, has lost its end


class ThinkingSplitter:
    """Tells thought from answer while the text arrives.

    - A mark inside of code, quotation marks or a block quote is text; `is_quoted` has the rules. Where the vocabulary
      has a mark as one token, `feed_token` takes it for text when several tokens spell it.
    - No other mark reaches either part. What may become a mark, or is not decided yet, is held back.
    - The first closing mark ends the thought; in the answer it is dropped. In a thought an opening mark is dropped;
      in the answer it opens another thought.
    - A reply that begins with an opening mark begins with a thought, also if nothing announced that mark.
    - A thought is stripped at both ends, an answer at its start, and the inside of an answer in tags at both ends.
      Later thoughts follow after an empty line.
    - Text around a removed mark could join to form a new one. The character that would complete it is left out.
    """

    def __init__(
        self, markers: ThinkingMarkers | None, starts_in_thought: bool = False, *, plain: bool = False
    ) -> None:
        """`plain`: all of the text is the answer, whatever it says."""
        markers = None if plain else markers
        self._part: Part = "thinking" if markers and starts_in_thought else "answer"
        self._held = ""  # the end of the text so far that may still become a mark
        self._beginning: str | None = None if self.in_thought or plain else ""  # of a reply, if it may open a thought
        self._undecided: list[tuple[str, bool]] = []  # (text, whether it is a mark), the first one a mark
        self._spaces = ""  # white space that counts only when more text follows
        self._fresh = True  # no text of this thought or answer came yet: white space is dropped
        self._wrapped = False  # the answer stands in tags, which did not close yet
        self._places = {"thinking": Place(), "answer": Place()}
        self._adopt(markers, frozenset() if markers is None else markers.tokens)

    def _adopt(self, markers: ThinkingMarkers | None, tokens: frozenset[str]) -> None:
        self.markers = markers
        self._tokens = tokens
        self._tags = (*markers.texts, *(markers.wrapper or ())) if markers else ()
        self._spelled = tuple(tag for tag in self._tags if tag not in tokens)
        guarded = [] if markers is None else [tag for tag in markers.texts if tag not in tokens]
        self._seams = {"thinking": _SeamGuard(guarded), "answer": _SeamGuard(guarded)}

    @property
    def in_thought(self) -> bool:
        return self._part == "thinking"

    def ends_thought(self, text: str) -> bool:
        """Whether `text`, a piece of its own, would be a mark that ends the thought."""
        return (
            self.in_thought
            and not self._undecided
            and self.markers is not None
            and text == self.markers.close
            and is_quoted(self._places["thinking"], "", thought=True) is False
        )

    def feed(self, text: str) -> list[tuple[Part, str]]:
        """Take more text; give out what is certain by now, as (part, text), texts never empty."""
        out: list[tuple[Part, str]] = []
        self._read(self._begun(text), self._tags, out)
        return out

    def feed_token(self, text: str) -> list[tuple[Part, str]]:
        """As `feed`, for the text of exactly one token. Use one of the two for a whole stream."""
        out: list[tuple[Part, str]] = []
        if not any(tag in text for tag in self._tokens):
            self._read(self._begun(text), self._spelled, out)
            return out
        text = (self._beginning or "") + text
        self._beginning = None
        self._read(text, self._tags, out)
        return out

    def close(self) -> list[tuple[Part, str]]:
        """The thought was closed by force, outside of the text fed here. A part of a mark goes with it."""
        out: list[tuple[Part, str]] = []
        self._held = ""
        undecided, self._undecided = self._undecided, []
        for text, is_mark in undecided:
            self._write(text, out, quoted=is_mark)
        if self.in_thought:
            self._turn("answer")
        return out

    def finish(self) -> list[tuple[Part, str]]:
        """No more text comes. A mark cut short at the end of a thought is dropped; else what was held is text."""
        out: list[tuple[Part, str]] = []
        if self._beginning:
            beginning, self._beginning = self._beginning, None
            self._read(beginning, self._tags, out)
        while self._undecided:
            self._decide(out, ended=True)
        header = self._header if self._header and self._held.startswith(self._header.begins) else None
        if header is not None:
            self._meet_header(self._held, header)
        elif not (self.in_thought and len(self._held) > 1):
            self._write(self._held, out)
        self._held = ""
        return out

    @property
    def _header(self) -> Header | None:
        return self.markers.header if self.markers else None

    def _begun(self, text: str) -> str:
        """The text to read now: nothing while the beginning of a reply may still become an opening mark."""
        if self._beginning is None:
            return text
        text = self._beginning + text
        bare = text.lstrip()
        self._beginning = None
        for markers in PAIRS:
            if bare.startswith(markers.open):
                own = self.markers is not None and self.markers.open == markers.open
                # It was spelled out, so its end may be spelled out too.
                self._adopt(self.markers if own else markers, frozenset())
                return text
        if any(markers.open.startswith(bare) for markers in PAIRS):
            self._beginning, text = text, ""
        return text

    def _read(self, text: str, tags: Sequence[str], out: list[tuple[Part, str]]) -> None:
        """Divide the text into marks and what stands between them."""
        if self._header and self._held.startswith(self._header.begins):
            tags = self._tags
        text = self._held + text
        self._held = ""
        while found := first_of(tags, text):
            start, tag = found
            if self._header and tag in self._header.begins:
                header = _whole_header(text[start:], self._header)
                if header is None:
                    self._take(text[:start], False, out)
                    self._held = text[start:]
                    return
                tag = header
            self._take(text[:start], False, out)
            self._take(tag, True, out)
            text = text[start + len(tag) :]
        kept = tail_that_may_become(tags, text)
        self._held = text[len(text) - kept :]
        self._take(text[: len(text) - kept], False, out)

    def _take(self, text: str, is_mark: bool, out: list[tuple[Part, str]]) -> None:
        """Pass text on, and decide about marks; everything after an undecided mark waits with it."""
        if self._undecided:
            if text:
                self._undecided.append((text, is_mark))
                self._decide(out)
        elif is_mark:
            self._undecided = [(text, True)]
            self._decide(out)
        else:
            self._write(text, out)

    def _decide(self, out: list[tuple[Part, str]], *, ended: bool = False) -> None:
        """Decide about the first mark that waits, if that is possible now, and go on with what waits behind it."""
        (mark, _), *rest = self._undecided
        place, thought = self._places[self._part], self.in_thought
        after = "".join(text for text, _ in rest)
        quoted = is_quoted(place, after, thought=thought)
        if quoted is None and ended:
            # Whoever reads an answer loses nothing by a mark too many.
            quoted = is_quoted(place, after, thought=True, ended=True) if thought else True
        if quoted is None:
            return
        self._undecided = []
        if quoted or not self._meet(mark):
            self._write(mark, out, quoted=True)
        for text, is_mark in rest:
            self._take(text, is_mark, out)

    def _meet(self, mark: str) -> bool:
        """Do what a mark says. False for tags of an answer where no answer is: they are text."""
        markers = self.markers
        assert markers is not None
        if markers.wrapper and mark in markers.wrapper:
            return self._meet_wrapper(mark, markers.wrapper[0])
        if markers.header and mark.startswith(markers.header.begins):
            self._meet_header(mark, markers.header)
        elif self.in_thought and mark == markers.close:
            self._turn("answer")
        elif not self.in_thought and mark == markers.open:
            self._turn("thinking")
        return True

    def _meet_header(self, text: str, header: Header) -> None:
        part: Part = "thinking" if header.names_thought(text) else "answer"
        if part != self._part:
            self._turn(part)

    def _meet_wrapper(self, mark: str, opening: str) -> bool:
        before, self._wrapped = self._wrapped, False
        if self.in_thought:
            return False
        if mark != opening:
            return before
        self._wrapped = not self._seams["answer"].wrote
        return self._wrapped

    def _turn(self, part: Part) -> None:
        self._part = part
        self._spaces = ""
        # An answer that goes on after a later thought keeps its white space, unless it has some already.
        self._fresh = part == "thinking" or self._seams["answer"].ends_in_space
        if part == "thinking":
            self._places["thinking"] = Place()

    def _write(self, text: str, out: list[tuple[Part, str]], *, quoted: bool = False) -> None:
        """Give out text of the present part. `quoted`: it is a mark that counts as text."""
        self._places[self._part].pass_over(text)
        if self.markers is not None and self._fresh:
            text = text.lstrip()
        if not text:
            return
        if self.in_thought or self._wrapped:
            text = self._spaces + text
            if self.in_thought and self._fresh and self._seams["thinking"].wrote:
                text = "\n\n" + text
            bare = text.rstrip()
            self._spaces = text[len(bare) :]
            text = bare
        self._fresh = self._fresh and not text
        text = self._seams[self._part].pass_on(text, whole=quoted)
        if text and out and out[-1][0] == self._part:
            out[-1] = (self._part, out[-1][1] + text)
        elif text:
            out.append((self._part, text))


def answer_of(text: str, markers: ThinkingMarkers | None) -> str:
    """The answer in a stored message, which may still hold its thought, as a person or another program wrote it.

    A thought begins with its mark, or ends with it on a line of its own.
    """
    begins = text.lstrip().startswith(tuple(each.open for each in (*PAIRS, *((markers,) if markers else ()))))
    ends = markers is not None and re.search(rf"^[ \t]*{re.escape(markers.close)}[ \t]*$", text, re.MULTILINE)
    if not begins and not ends:
        return text
    splitter = ThinkingSplitter(markers, starts_in_thought=not begins)
    parts = splitter.feed(text) + splitter.finish()
    if not begins and splitter.in_thought:
        return text  # the mark was only quoted
    return "".join(said for part, said in parts if part == "answer")


class _SeamGuard:
    """Passes one part's text on, less the characters that would complete a mark across a seam."""

    def __init__(self, tags: Iterable[str]) -> None:
        self._tags = tuple(tags)
        self._starts = {tag[0] for tag in self._tags}
        self._tail = ""  # the end of what was passed on, as far as it may become a mark
        self.wrote = False
        self.ends_in_space = True

    def pass_on(self, text: str, *, whole: bool) -> str:
        """`whole`: the text is a mark that stands for itself."""
        if whole:
            self._tail = ""
        nothing_begins = not self._tail and not any(start in text for start in self._starts)
        passed = text if whole or nothing_begins else self._guarded(self._tail + text)
        if passed:
            self.wrote = True
            self.ends_in_space = passed[-1].isspace()
        return passed

    def _guarded(self, whole: str) -> str:
        # What comes first completed is what the reader would see first.
        while ends := [at + len(tag) for tag in self._tags if (at := whole.find(tag)) >= 0]:
            whole = whole[: min(ends) - 1] + whole[min(ends) :]
        passed = whole[len(self._tail) :]
        kept = tail_that_may_become(self._tags, whole)
        self._tail = whole[len(whole) - kept :]
        return passed


def _whole_header(text: str, header: Header) -> str | None:
    """The header that a text begins with; None while its end is missing."""
    line, newline, _ = text[:_LONGEST_HEADER].partition("\n")
    end = line.find(header.end)
    if end >= 0:
        return line[: end + len(header.end)]
    if not newline and len(text) < _LONGEST_HEADER:
        return None
    # Without its end it is no longer than the name of the channel.
    begin = next(each for each in header.begins if text.startswith(each))
    found = re.match(rf"(?:{re.escape(begin)}\w*)?({re.escape(header.channel)}\s*\w+)?", line)
    return found[0] if found and found[0] else begin
