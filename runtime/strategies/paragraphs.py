"""Documents in paragraphs of about equal length, each with its place. Pure."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

_WORD = re.compile(r"\w+")
# A word of a question that ends otherwise in the text is the same word: "nodes" and "node", "loading" and "loads".
_STEM = 5
# Characters of a line that no line end divides are cut so long that one piece surely fits: a token has at least one.
_LONGEST_RUN = 2000


@dataclass(frozen=True, slots=True)
class Document:
    """A text to look for evidence in, and the name that a person knows it by."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A part of a document: its lines from `first` to `last`, counted from 1, and its number of tokens."""

    document: str
    first: int
    last: int
    text: str
    tokens: int

    @property
    def place(self) -> str:
        """'notes.txt, lines 12-20'."""
        lines = f"line {self.first}" if self.first == self.last else f"lines {self.first}-{self.last}"
        return f"{self.document}, {lines}"


def paragraphs(documents: Sequence[Document], count: Callable[[str], int], most: int) -> tuple[Paragraph, ...]:
    """All paragraphs in the order of the documents, each of about half of `most` tokens up to `most`.

    Blank lines divide paragraphs. Short ones are joined with what follows, such as a title with its text; long ones are
    divided between lines, and a long line within. `count` returns the number of tokens of a text.
    """
    return tuple(each for document in documents for each in _joined(document, count, most))


def _joined(document: Document, count: Callable[[str], int], most: int) -> Iterator[Paragraph]:
    first, last, texts, tokens = 0, 0, list[str](), 0
    for begin, end, text, length in _parts(document.text, count, most):
        # The sum is that of the parts: joined, they rarely have more tokens.
        if texts and (tokens + length > most or tokens >= most // 2):
            yield Paragraph(document.name, first, last, "".join(texts).strip("\n"), tokens)
            texts, tokens = [], 0
        if not texts:
            first = begin
        texts.append(text)
        last, tokens = end, tokens + length
    if texts:
        yield Paragraph(document.name, first, last, "".join(texts).strip("\n"), tokens)


def _parts(text: str, count: Callable[[str], int], most: int) -> Iterator[tuple[int, int, str, int]]:
    """First line, last line, text and tokens of parts of at most `most` tokens: blocks, else lines, else pieces."""
    lines = text.splitlines(keepends=True)
    start = 0
    while start < len(lines):
        if not lines[start].strip():
            start += 1
            continue
        end = next((at for at in range(start, len(lines)) if not lines[at].strip()), len(lines))
        block = "".join(lines[start:end])
        length = count(block) if len(block) <= most * _LONGEST_RUN else most + 1
        if length <= most:
            yield start + 1, end, block + "\n", length
        else:
            for number in range(start, end):
                for piece in _pieces(lines[number], count, most):
                    yield number + 1, number + 1, piece, count(piece)
        start = end


def _pieces(line: str, count: Callable[[str], int], most: int) -> Iterator[str]:
    """A line, in halves as often as needed: between sentences, else between words, else anywhere."""
    if len(line) <= most or (len(line) <= _LONGEST_RUN and count(line) <= most):
        yield line
        return
    middle = len(line) // 2
    for mark in (". ", " "):
        at = line.rfind(mark, len(line) // 4, middle + len(line) // 4)
        if at >= 0:
            middle = at + len(mark)
            break
    yield from _pieces(line[:middle], count, most)
    yield from _pieces(line[middle:], count, most)


def by_words(found: Sequence[Paragraph], question: str) -> list[int]:
    """The numbers of the paragraphs, those first that share rare words with the question; of equals the earlier.

    Of paragraphs with the same text only the first is there.

    A word counts as log(number of paragraphs / those that have it), as in Sparck Jones' inverse document frequency.
    It costs no model, and only decides what is read first.
    """
    words = [{word[:_STEM].lower() for word in _WORD.findall(each.text)} for each in found]
    known = Counter(word for each in words for word in each)
    asked = {word[:_STEM].lower() for word in _WORD.findall(question)}
    weights = {word: math.log(len(found) / known[word]) for word in sorted(asked) if word in known}
    shared = [math.fsum(weight for word, weight in weights.items() if word in each) for each in words]
    first = {each.text: number for number, each in reversed([*enumerate(found)])}
    return sorted(first.values(), key=lambda number: (-shared[number], number))
