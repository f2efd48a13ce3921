"""Whether a mark is only quoted: it stands in code, between quotation marks or in a block quote.

All of it is decided on the text around the mark, and a decision never changes when more text arrives.
"""

from __future__ import annotations

import re

# A quotation mark that opens, and the text from there to the mark. Straight ones: perhaps after the prefix of a Python
# string. The others need no white space before them, as in Chinese.
_STRAIGHT = re.compile(r"(?:^|\W)[rbf]{0,2}([\"'])([^\s\"']*)$", re.IGNORECASE)
_CURLY = re.compile(r"([“‘«„「『])([^\s\"'“”‘’«»„「」『』]*)$")
_CLOSING = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "„": "“", "「": "」", "『": "』"}
_BRACKETS = {"(": ")", "[": "]", "{": "}", "（": "）", "【": "】"}


class Place:
    """Where a text has arrived: its last line so far, and the fence of the code block that it is in."""

    def __init__(self, line: str = "", fence: str = "") -> None:
        self.fence = fence  # the fence that opened the block, "" outside
        self.line = line
        self.shows_marks = False  # the block has a mark already

    def pass_over(self, text: str, *, mark: bool = False) -> None:
        self.shows_marks = self.shows_marks or (mark and bool(self.fence))
        if "\n" not in text:
            self.line += text
            return
        *ended, rest = text.split("\n")
        for line in ended:
            self._end(self.line + line)
            self.line = ""
        self.line += rest

    def _end(self, line: str) -> None:
        if not self.fence:
            self.fence, self.shows_marks = fence_of(line), False
        elif closes_fence(line, self.fence):
            self.fence = ""


def is_quoted(place: Place, after: str, *, thought: bool, closes: bool = False, ended: bool = False) -> bool | None:
    """Whether a mark at `place`, with the text `after` it, is text; None until more has arrived.

    With `ended` no more comes, and the answer is never None. In an answer a code block counts while it is open.
    A thought is more careful, because a mark that `closes` it must not be lost after a block or a span that the model
    forgot to close: a block counts when it is closed later, and not for its first mark if that is a paragraph.
    """
    line = place.line
    rest, newline, below = after.partition("\n")
    whole = bool(newline) or ended
    if not thought and (place.fence or fence_of(line) or line.startswith(("    ", "\t")) or _in_block_quote(line)):
        return True
    ends_block = bool(place.fence) and closes_fence(line, place.fence)
    found = [_in_quotes(line, rest, whole), not ends_block and _in_span(line, rest, whole, thought=thought)]
    if thought and _in_block_quote(line):
        found.append(True if rest.strip() or not line.strip(" >") else False if whole else None)
    if thought and place.fence and not ends_block:
        stands_alone = _stands_alone(line, after, ended) if closes and not place.shows_marks else False
        found.append(_fence_closes(place.fence, below, ended) if stands_alone is False else stands_alone and False)
    if True in found:
        return True
    return None if None in found else False


def may_close(place: Place, after: str) -> bool:
    """Whether a mark that counted as text could all the same have closed the thought, now that the reply has ended.

    It could if only a block quote or a code block spoke against it, and the text after it closes every block that it
    opens itself.
    """
    rest = after.partition("\n")[0]
    if _in_quotes(place.line, rest, True) or _in_span(place.line, rest, True, thought=True):
        return False
    answer = Place()
    answer.pass_over(after + "\n")
    return not place.fence or not answer.fence


def _stands_alone(line: str, after: str, ended: bool) -> bool | None:
    """Whether the mark has its line for itself and an empty line follows, as models write the real one."""
    if line.strip():
        return False
    if re.match(r"[ \t]*\n[ \t]*\n", after):
        return True
    if re.fullmatch(r"[ \t]*(\n[ \t]*)?", after):
        return True if ended else None
    return False


def _in_block_quote(line: str) -> bool:
    return line.lstrip(" ").startswith("> ")


def _in_quotes(line: str, rest: str, whole: bool) -> bool | None:
    """Quotes enclose the mark, without white space between, as in '<think>...</think>'; or brackets: (</think>)."""
    if line and line[-1] in _BRACKETS:
        return rest[0] == _BRACKETS[line[-1]] if rest else False if whole else None
    opened = _STRAIGHT.search(line) or _CURLY.search(line)
    # An even number of them: this one closes what an earlier one opened.
    if opened is None or (opened[1] == '"' and line.count('"') % 2 == 0):
        return False
    closing = _CLOSING[opened[1]]
    for character in rest:
        if character == closing:
            return True
        if character.isspace():
            return False
    return False if whole else None


def _in_span(line: str, rest: str, whole: bool, *, thought: bool) -> bool | None:
    """A code span encloses the mark (CommonMark 6.1, within one line).

    In a thought, spans after a forgotten backtick could pair with it. Then an even number of runs remains.
    """
    runs = [len(run) for run in re.findall(r"`+", re.sub(r"\\`", "", line))]
    while runs:
        length, *runs = runs
        if length in runs:
            runs = runs[runs.index(length) + 1 :]
            continue
        later = [found for found in re.finditer(r"`+", rest) if len(found[0]) == length]
        sure = [found for found in later if whole or found.end() < len(rest)]
        if thought and whole and len(sure) % 2 == 1:
            return True
        if not thought and sure:
            return True
        if not whole:
            return None
    return False


def _fence_closes(fence: str, below: str, ended: bool) -> bool | None:
    """Whether the code block is closed in the lines below, before another one opens."""
    lines = below.split("\n")
    for line in lines if ended else lines[:-1]:
        if closes_fence(line, fence):
            return True
        if fence_of(line).startswith(fence):
            return False
    return False if ended else None


def fence_of(line: str) -> str:
    """The run of three or more backticks or tildes that a line begins with, or nothing (CommonMark 4.5)."""
    text = line.lstrip(" ")
    if not text.startswith(("```", "~~~")):
        return ""
    run = text[: len(text) - len(text.lstrip(text[0]))]
    return "" if text[0] == "`" and "`" in text[len(run) :] else run


def closes_fence(line: str, fence: str) -> bool:
    """Whether a line closes the block that `fence` opened."""
    run = fence_of(line)
    return run.startswith(fence) and line.strip() == run
