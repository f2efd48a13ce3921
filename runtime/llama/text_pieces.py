"""Where a text may be cut before the engine turns it into tokens. Pure functions; `runtime.llama.tokenizer` uses them.

Facts from llama.cpp (src/unicode.cpp and src/llama-vocab.cpp as vendored in llama-cpp-python 0.3.36): many byte-level
BPE vocabularies find words with std::regex, which calls itself for each character of a word. It took 320 bytes of stack
for each character in a build with gcc (docs/log.md), so 3276 equal characters end a process with a stack of 1 MiB.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

# The most characters that one match of any pre-tokenizer can have. Two such stretches take a third of a stack of 1 MiB.
# A multiple of three, because many pre-tokenizers read digits in threes.
LONGEST = 510
# The most characters of one call: it bounds the engine's memory, and how long Ctrl-C waits.
_CALL = 1 << 18

_HAN = "\u4e00-\u9fa5"
# No expression of the engine matches across these places: a sign before a space, a letter or digit before the end of a
# line, the beginning of a line with a letter. Nearly all pre-tokenizers cut there.
_BREAK = re.compile(rf"(?<=[!-/:-@\[-`{{-~])(?= )|(?<=[A-Za-z0-9{_HAN}])(?=[\r\n])|(?<=\S\n)(?=[A-Za-z{_HAN}])")
# Most expressions do not match across these: a word before a space and a word, before a sign other than an apostrophe
# (which may begin a contraction); letters and digits.
_WORD_ENDS = re.compile(
    rf"(?<=[A-Za-z0-9{_HAN}])(?= [A-Za-z0-9{_HAN}]|[!-&(-/:-@\[-`{{-~\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f])"
    r"|(?<=[0-9])(?=[A-Za-z])|(?<=[A-Za-z])(?=[0-9])"
)
_SPACE = " \t\n\v\f\r"  # isspace of C


@dataclass(frozen=True, slots=True)
class SpecialToken:
    """A token that the engine finds by its spelling. `lstrip` and `rstrip`: it takes the white space next to it."""

    token: int
    text: str
    lstrip: bool = False
    rstrip: bool = False


def has_long_stretch(text: str) -> bool:
    """Whether one match of a pre-tokenizer may have more than LONGEST characters."""
    return len(text) > LONGEST and any(end - begin > LONGEST for begin, end in pairwise(chain((0,), _breaks(text))))


def pieces(text: str) -> Iterator[str]:
    """Yields the text in pieces that are safe to tokenize one by one.

    Long stretches are cut at the end of a word if there is one, else after LONGEST characters. A text of any length is
    cut about every quarter of a million characters, where nearly all pre-tokenizers cut.
    """
    begin = last = 0
    for at in _breaks(text):
        if at - last > LONGEST:
            if last > begin:
                yield text[begin:last]
            yield from _cut(text, last, at)
            begin = at
        elif at - begin > _CALL:
            yield text[begin:last]
            begin = last
        last = at
    if begin < len(text):
        yield text[begin:]


def _breaks(text: str) -> Iterator[int]:
    return chain((found.start() for found in _BREAK.finditer(text)), (len(text),))


def _cut(text: str, begin: int, end: int) -> Iterator[str]:
    while end - begin > LONGEST:
        at = begin + LONGEST
        for found in _WORD_ENDS.finditer(text, begin + 1, at + 1):
            at = found.start()
        yield text[begin:at]
        begin = at
    yield text[begin:end]


def split_at_specials(
    text: str, specials: Sequence[SpecialToken], literal: Collection[int] = ()
) -> list[int | tuple[int, int]]:
    """Splits a text as the engine does: the ids of special tokens, and the text between them as (begin, end).

    `specials` must be sorted by the bytes of their spelling, longest first: the engine looks for one after the other.
    No special token begins at the offsets `literal`. Takes time in proportion to text and tokens; the engine's own way
    is quadratic in the number of tokens.
    """
    parts: list[int | tuple[int, int]] = [(0, len(text))] if text else []
    for special in specials:
        if special.text in text:
            parts = [each for part in parts for each in _split(text, part, special, literal)]
    return parts


def _split(
    text: str, part: int | tuple[int, int], special: SpecialToken, literal: Collection[int]
) -> Iterator[int | tuple[int, int]]:
    if isinstance(part, int):
        yield part
        return
    begin, end = part
    at = text.find(special.text, begin, end)
    while at >= 0:
        if at in literal:
            at = text.find(special.text, at + 1, end)
            continue
        stop = at
        while special.lstrip and stop > begin and text[stop - 1] in _SPACE:
            stop -= 1
        if stop > begin:
            yield begin, stop
        yield special.token
        begin = at + len(special.text)
        while special.rstrip and begin < end and text[begin] in _SPACE:
            begin += 1
        at = text.find(special.text, begin, end)
    if begin < end:
        yield begin, end
