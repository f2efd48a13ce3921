"""From a stream of text to thought and answer.

How a stream is cut into pieces never changes the result.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from runtime.engine.markers import BARE, BARE_SO_FAR, PAIRS, TAG, CallMarks, Header, ThinkingMarkers
from runtime.engine.quoted_marks import Place, is_quoted, may_close
from runtime.engine.text_streams import SeamGuard, any_of, first_of, tail_that_may_become

# "calls": from the first mark of a call on, as it stands, marks included; see `runtime.engine.tool_calls`.
Part = Literal["thinking", "answer", "calls"]

# Before the text of a token that is a mark, or part of one. Text that several tokens spell does not have it. It is a
# noncharacter, which no text should have (Unicode, section 23.7).
_SIGN = "\ufdd0"
_SIGNED = _SIGN + r"\g<0>"
# Words that open a thought in one family are ordinary words in another.
_UNANNOUNCED = tuple(markers for markers in PAIRS if TAG.search(markers.open))


@dataclass(frozen=True, slots=True)
class _Doubt:
    """A mark after which the thought goes on, though the answer may go on there instead. The end of the reply tells."""

    mark: str
    place: Place  # where it stands
    thought: int  # the length of the thought given out before it
    at: int  # where the text after it begins in the text since the first doubt


class ThinkingSplitter:
    """Tells thought from answer while the text arrives.

    - A mark inside of code, quotation marks or a block quote is text; `is_quoted` has the rules. Where the vocabulary
      has a mark, or a tag in it, as one token, `feed_token` takes it for text when several tokens spell it.
    - No other mark reaches either part. What may become a mark, or is not decided yet, is held back.
    - The first closing mark ends the thought, and so does the mark of the answer; in the answer a closing mark is
      dropped. In a thought an opening mark is dropped. In the answer it opens another thought; but if it is spelled out
      behind other text of its line, it is text, and so is the next closing mark.
    - A reply that begins with an opening mark begins with a thought, also if nothing announced that mark.
    - A reply that ends inside a thought, as if nothing closed it, is looked at again: a closing mark that counted as
      text because of a block may have been its end, and an opening mark inside of a line of the answer only text.
    - A thought is stripped at both ends, an answer at its start, and the inside of an answer in tags at both ends.
      Later thoughts follow after an empty line.
    - A mark of `calls` in the answer, or a header with a call, begins calls of tools, and all text from there on is
      theirs. An answer that may have calls is stripped at its end, too.
    - Text around a removed mark could join to form a new one. The character that would complete it is left out.
    """

    def __init__(
        self,
        markers: ThinkingMarkers | None,
        starts_in_thought: bool = False,
        *,
        open_header: str = "",
        plain: bool = False,
        continued: bool = False,
        calls: CallMarks | None = None,
    ) -> None:
        """`plain`: all of the text is the answer. `open_header`: the header that the prompt ends in. `continued`: the
        thought or answer has begun before this text. `calls`: the marks of calls, if the answer may have some."""
        self._calls = calls
        self._begins = calls.begins if calls else ()  # the marks of calls as they stand in the text that is read
        self._bare = calls is not None and calls.bare  # and the answer has not begun
        self._opening = ""  # the answer so far, while it may still become a call without marks
        markers = None if plain else markers
        self._part: Part = "thinking" if markers and starts_in_thought else "answer"
        self._prompted = open_header if markers and markers.header else ""
        self._held = self._prompted  # the end of the text so far that may still become a mark
        self._beginning: str | None = (
            None if self.in_thought or plain or continued or self._held else ""
        )  # of a reply, if it may open a thought
        self._undecided: list[tuple[str, bool]] = []  # (text, whether it is a mark), the first one a mark
        self._spaces = ""  # white space that counts only when more text follows
        self._fresh = not continued  # no text of this thought or answer came yet: white space is dropped
        self._wrapped = False  # the answer stands in tags, which did not close yet
        self._places = {"thinking": Place(), "answer": Place()}
        self._quoting = False  # an opening mark in the answer was text: so is the next closing one
        self._thought = 0  # the length of the thought given out
        self._doubts: list[_Doubt] = []
        self._since: list[str] = []  # the text since the first doubt
        # Where the thought ends in what was given out of it, if that was seen only at the end of the reply.
        self.thought_end: int | None = None
        self._tokens: re.Pattern[str] | None = None  # of the vocabulary; None before the first of them comes
        self._adopt(markers)

    def _adopt(self, markers: ThinkingMarkers | None) -> None:
        self.markers = markers
        guarded = [] if markers is None else [tag for tag in markers.texts if not any(t in tag for t in markers.tokens)]
        self._seams = {"thinking": SeamGuard(guarded), "answer": SeamGuard(guarded)}
        self._look_for(markers)

    def _look_for(self, marks: ThinkingMarkers | None) -> None:
        """`marks`: the markers as they stand in the text that is read."""
        self._marks = marks
        self._tags = (*marks.texts, *(marks.wrapper or ())) if marks else ()
        self._tags += self._begins
        self._starts = frozenset(tag[0] for tag in self._tags)

    @property
    def in_thought(self) -> bool:
        return self._part == "thinking"

    @property
    def in_header(self) -> bool:
        """Whether the header of a message has begun and not ended."""
        return self._header is not None and self._held.startswith(self._header.begins)

    @property
    def may_have_ended(self) -> bool:
        """Whether a mark that may close the thought waits for its decision."""
        close = self._marks.close if self._marks else None
        return self.in_thought and any(text == close for text, is_mark in self._undecided if is_mark)

    def ends_thought(self, text: str) -> bool:
        """Whether `text`, a piece of its own, would be a mark that ends the thought."""
        return (
            self.in_thought
            and not self._undecided
            and self.markers is not None
            and text == self.markers.close
            and is_quoted(self._places["thinking"], "", thought=True, closes=True) is False
        )

    def feed(self, text: str) -> list[tuple[Part, str]]:
        """Take more text; give out what is certain by now, as (part, text), texts never empty."""
        out: list[tuple[Part, str]] = []
        if self._beginning is not None:
            text = self._begun(text)
        self._read(text, out)
        return out

    def feed_token(self, text: str) -> list[tuple[Part, str]]:
        """As `feed`, for the text of exactly one token. From the first one on, marks that are tokens are no text."""
        if self._tokens is None:
            of_calls = self._calls.tokens if self._calls else frozenset[str]()
            tokens = self._tokens = any_of((self.markers.tokens if self.markers else frozenset()) | of_calls)
            if of_calls:
                self._begins = tuple(tokens.sub(_SIGNED, text) for text in self._begins)
                self._look_for(self._marks)
            if self.markers and self.markers.tokens:
                self._look_for(self.markers.rewritten(lambda text: tokens.sub(_SIGNED, text)))
                self._held = self._prompted = tokens.sub(_SIGNED, self._prompted)
        return self.feed(self._tokens.sub(_SIGNED, text))

    def decide(self) -> list[tuple[Part, str]]:
        """Decide about every mark that waits, as if the reply ended here; the reply goes on."""
        out: list[tuple[Part, str]] = []
        while self._undecided:
            self._decide(out, ended=True)
        return out

    def open(self) -> None:
        """A thought begins, with a mark that was spelled out, and of which at most the beginning was fed here."""
        assert self.markers is not None
        self._beginning, self._held = None, ""
        self._adopt(replace(self.markers, tokens=frozenset()))
        self._turn("thinking")

    def begin_calls(self) -> None:
        """The prompt ends in the mark of a call: all text is that of calls."""
        self._part, self._beginning = "calls", None

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

    def finish(self, *, complete: bool = True) -> list[tuple[Part, str]]:
        """No more text comes. A mark cut short is dropped at the end of a thought, or if a token begins it; else it is
        text.

        `complete`: the model ended the reply, so a thought without an end is a doubt about marks. An answer that is
        found so comes out once more, as the answer.
        """
        out: list[tuple[Part, str]] = []
        if self._beginning:
            beginning, self._beginning = self._beginning, None
            self._read(beginning, out)
        while self._undecided:
            self._decide(out, ended=True)
        header = self._header if self._header and self._held.startswith(self._header.begins) else None
        if self._part == "calls":
            self._pass_on(self._held, out)
        elif header is not None:
            self._meet_header(self._held, header)
        elif not self._held.startswith(_SIGN) and not (self.in_thought and len(self._held) > 1):
            self._write(self._held, out)
        self._held = ""
        self._let_go(out)
        if complete and self.in_thought and self._doubts:
            out += self._overlooked("".join(self._since))
        return out

    def _overlooked(self, since: str) -> list[tuple[Part, str]]:
        """The answer after the first doubt that can be one."""
        for doubt in self._doubts:
            after = since[doubt.at :]
            if self.markers is None or not after.strip():
                continue
            if self._marks is None or doubt.mark != self._marks.close:
                self.thought_end = doubt.thought
                seam = self._seams["answer"]
                mark = doubt.mark.replace(_SIGN, "")
                return [("answer", seam.pass_on(mark, whole=True) + seam.pass_on(after, whole=False))]
            if may_close(doubt.place, after):
                self.thought_end = doubt.thought
                again = ThinkingSplitter(self.markers)
                parts = again.feed(after) + again.finish(complete=False)
                return [part for part in parts if part[0] == "answer"]
        return []

    @property
    def _header(self) -> Header | None:
        return self._marks.header if self._marks else None

    def _begun(self, text: str) -> str:
        """The text to read now: nothing while the beginning of a reply may still become an opening mark."""
        text = (self._beginning or "") + text
        bare = text.lstrip()
        self._beginning = None
        if bare.startswith(_SIGN):
            return text
        known = _UNANNOUNCED if self.markers is None else (self.markers, *_UNANNOUNCED)
        for markers in known:
            if bare.startswith(markers.open):
                # It was spelled out, so its end may be spelled out too.
                self._adopt(replace(markers, tokens=frozenset()))
                self._part = "thinking"
                return bare[len(markers.open) :]
        if any(markers.open.startswith(bare) for markers in known):
            self._beginning, text = text, ""
        return text

    def _read(self, text: str, out: list[tuple[Part, str]]) -> None:
        """Divide the text into marks and what stands between them."""
        if self._part == "calls":
            text, self._held = self._held + text, ""
            self._pass_on(text, out)
            return
        if not self._held and self._starts.isdisjoint(text):
            self._take(text, False, out)
            return
        tags = self._tags
        text = self._held + text
        self._held = ""
        while found := first_of(tags, text):
            start, tag = found
            if self._header and tag in self._header.begins:
                header = self._header.whole(text[start:], 0 if start else len(self._prompted))
                if header is None:
                    self._take(text[:start], False, out)
                    self._held = text[start:]
                    return
                tag, self._prompted = header, ""
            self._take(text[:start], False, out)
            self._take(tag, True, out)
            text = text[start + len(tag) :]
        kept = tail_that_may_become(tags, text)
        self._held = text[len(text) - kept :]
        self._take(text[: len(text) - kept], False, out)

    def _take(self, text: str, is_mark: bool, out: list[tuple[Part, str]]) -> None:
        """Pass text on, and decide about marks; everything after an undecided mark waits with it."""
        if is_mark:
            self._let_go(out)
        if self._part == "calls":
            self._pass_on(text, out)
        elif self._undecided:
            if text:
                self._undecided.append((text, is_mark))
                self._decide(out)
        elif is_mark:
            self._undecided = [(text, True)]
            self._decide(out)
        else:
            self._write(text, out)

    def _let_go(self, out: list[tuple[Part, str]]) -> None:
        """What could have been the beginning of a call without marks is text."""
        if self._opening:
            opening, self._opening, self._bare = self._opening, "", False
            self._write(opening, out)

    def _decide(self, out: list[tuple[Part, str]], *, ended: bool = False) -> None:
        """Decide about the first mark that waits, if that is possible now, and go on with what waits behind it."""
        (mark, _), *rest = self._undecided
        place, thought = self._places[self._part], self.in_thought
        closes = self._marks is not None and mark == self._marks.close
        after = ""
        for text, is_mark in rest:  # a mark below ends its line, so that a block can end directly before it
            after += "\n" if is_mark and "\n" in after else text.replace(_SIGN, "")
        quoted = is_quoted(place, after, thought=thought, closes=closes)
        if quoted is None and ended:
            # Whoever reads an answer loses nothing by a mark too many.
            quoted = is_quoted(place, after, thought=True, closes=closes, ended=True) if thought else True
        if quoted is None:
            return
        self._undecided = []
        if self._begins_calls(mark, quoted):
            header = self._calls.header if self._calls else ""
            self._call(mark[max(0, mark.find(header)) :] if header else mark, out)
            for text, _ in rest:
                self._pass_on(text, out)
            return
        doubt = _Doubt(mark, Place(place.line, place.fence), self._thought, 0)
        if quoted or not self._meet(mark):
            self._write(mark, out, quoted=True)
            if thought and closes:
                self._doubt(doubt)
        elif not thought and self.in_thought and self._header is None and place.line.strip():
            self._doubt(doubt)
        for text, is_mark in rest:
            self._take(text, is_mark, out)

    def _doubt(self, doubt: _Doubt) -> None:
        self._doubts.append(replace(doubt, at=sum(map(len, self._since))))

    def _meet(self, mark: str) -> bool:
        """Do what a mark says. False for one that is text where it stands."""
        marks = self._marks
        if marks is None or mark in self._begins:
            return False
        if marks.wrapper and mark in marks.wrapper:
            return self._meet_wrapper(mark, marks.wrapper[0])
        if marks.header and mark.startswith(marks.header.begins):
            self._meet_header(mark, marks.header)
        elif self.in_thought and (mark == marks.close or (mark != marks.open and marks.answer_open.endswith(mark))):
            self._turn("answer")
        elif not self.in_thought and not marks.header and mark == marks.open:
            self._quoting = _SIGN not in mark and bool(self._places["answer"].line.strip())
            if self._quoting:
                return False
            self._turn("thinking")
        elif not self.in_thought and mark == marks.close and self._quoting:
            self._quoting = False
            return False
        return True

    def _begins_calls(self, mark: str, quoted: bool) -> bool:
        if self._calls is None or quoted:
            return False
        header = self._calls.header
        return bool(header and header in mark) or (not self.in_thought and mark in self._begins)

    def _call(self, text: str, out: list[tuple[Part, str]]) -> None:
        """Calls begin with this text."""
        self._part = "calls"
        self._spaces = ""
        self._pass_on(text, out)

    def _pass_on(self, text: str, out: list[tuple[Part, str]]) -> None:
        """The text of calls, as it stands."""
        if text := text.replace(_SIGN, ""):
            out.append(("calls", text))

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
        self._doubts, self._since = [], []
        self._spaces = ""
        # An answer that goes on after a later thought keeps its white space, unless it has some already.
        self._fresh = part == "thinking" or self._seams["answer"].ends_in_space
        if part == "thinking":
            self._places["thinking"] = Place()

    def _write(self, text: str, out: list[tuple[Part, str]], *, quoted: bool = False) -> None:
        """Give out text of the present part. `quoted`: it is a mark that counts as text."""
        if _SIGN in text:
            text = text.replace(_SIGN, "")
        if self._bare and not self.in_thought:
            text, self._opening = self._opening + text, ""
            if BARE_SO_FAR.fullmatch(text):
                self._opening = text
                return
            self._bare = False
            if BARE.match(text):
                self._call(text.lstrip(), out)
                return
        self._places[self._part].pass_over(text, mark=quoted)
        if self._doubts:
            self._since.append(text)
        if self.markers is not None and self._fresh:
            text = text.lstrip()
        if not text:
            return
        if self.in_thought or self._wrapped or self._calls is not None:
            text = self._spaces + text
            if self.in_thought and self._fresh and self._seams["thinking"].wrote:
                text = "\n\n" + text
            bare = text.rstrip()
            self._spaces = text[len(bare) :]
            text = bare
        self._fresh = self._fresh and not text
        text = self._seams[self._part].pass_on(text, whole=quoted)
        if self.in_thought:
            self._thought += len(text)
        if text and out and out[-1][0] == self._part:
            out[-1] = (self._part, out[-1][1] + text)
        elif text:
            out.append((self._part, text))
