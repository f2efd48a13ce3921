"""Removes the notation around answers: markdown, quotes, math delimiters, LaTeX spacing."""

from __future__ import annotations

import re
from collections.abc import Iterator

_PAIRS = (
    ("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("__", "__"), ("*", "*"), ("`", "`"),
    ('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"), ("«", "»"),
)  # fmt: skip
_WRAPPER = re.compile(r"\\(?:boxed|fbox|text|textbf|textit|textrm|mbox|mathrm|mathbf|mathit|operatorname)\s*\{")
_BRACE_OR_BOX = re.compile(r"(\\(?:boxed|fbox)\s*\{)|\\[\\{}](?!boxed|fbox)|([{}])")
_SPACES = re.compile(r"\\[,;:!> ]|\\(?:quad|qquad|left|right|displaystyle)(?![A-Za-z])|[~\u00a0\u2009\u200a\u202f]")
_SIGNS = str.maketrans({"−": "-", "–": "-", "＋": "+", "，": ",", "：": ":", "％": "%", "＄": "$"})


def boxes(text: str) -> Iterator[tuple[int, int, int]]:
    """Every `\\boxed{}` or `\\fbox{}` whose braces balance: where it begins, and where its content begins and ends."""
    open_at: list[tuple[int, int] | None] = []
    for match in _BRACE_OR_BOX.finditer(text):
        if match[1]:
            open_at.append((match.start(), match.end()))
        elif match[2] == "{":
            open_at.append(None)
        elif match[2] == "}" and open_at and (box := open_at.pop()):
            yield (*box, match.start())


def bare(text: str) -> str:
    """`text` without delimiters, emphasis, quotes, `\\text{}` and a closing period around it."""
    while True:
        before = text
        text = text.strip()
        if not text.endswith(".."):
            text = text.rstrip(".,;").rstrip()
        for left, right in _PAIRS:
            inner = text[len(left) : -len(right)]
            if text.startswith(left) and text.endswith(right) and inner.strip() and left not in inner:
                text = inner
                break
        if (wrapper := _WRAPPER.match(text)) and _closes_at_end(text, wrapper.end()):
            text = text[wrapper.end() : -1]
        if text == before:
            return text


def plain(text: str) -> str:
    """The form in which texts are compared: without notation, case and an article before a single word (as in SQuAD),
    one way to write fractions, spaces and signs."""
    text = re.sub(r"^(?:an?|the) (?=[^\W\d_]{3,}$)", "", simple(bare(text)).casefold())
    if "," in text:  # a list, with or without a word before its last one
        text = re.sub(r",? (?:and|und) (?=[^,]+$)", ",", text)
    return re.sub(r"\s*([^\w\s])\s*", r"\1", text)


def simple(text: str) -> str:
    """LaTeX with plain spaces, signs and fractions; `{,}` of thousands as a comma."""
    text = text.translate(_SIGNS).replace(r"\!", "").replace(r"\$", "$").replace(r"\%", "%")
    text = re.sub(r"\s*\{\s*,\s*\}\s*", ",", _SPACES.sub(" ", text))
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
    return " ".join(text.split())


def _closes_at_end(text: str, start: int) -> bool:
    """Whether the brace opened before `start` is closed by the last character."""
    depth = 1
    for match in re.finditer(r"\\[\\{}]|([{}])", text[start:]):
        depth += {"{": 1, "}": -1}.get(match[1] or "", 0)
        if depth == 0:
            return start + match.end() == len(text)
    return False
