r"""LaTeX as text that a person reads: '\frac{1}{2}' as 1/2, 'x^2' as x², '\boxed{42}' as [ 42 ].

What is not known stays as it is. The time is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dsr.ui.markdown.symbols import (
    DOUBLE_STRUCK,
    DROPPED,
    FUNCTIONS,
    LETTERS,
    LOWERED,
    MARKS,
    OPERATORS,
    PLAIN,
    RAISED,
    SPACES,
)

_TOKEN = re.compile(r"\\[a-zA-Z]+\*?|\\.|\s+|.", re.DOTALL)
_DEEPEST = 20  # nested groups; a deeper formula stays as it is
_LONGEST_SCRIPT = 8  # a longer exponent is easier to read as ^(...)
_NUMBER_OR_LETTER = re.compile(r"[\d.,]+|[^\W\d_]['′²³⁰-₟]*|…|∞")
_SIMPLE = re.compile(r"[\w.,'′²³⁰-₟√°%!]+|\([^()]*\)")
_LINES = (
    "aligned",
    "align",
    "align*",
    "gather",
    "gather*",
    "gathered",
    "split",
    "equation",
    "equation*",
    "cases",
    "array",
)


class _TooDeep(Exception):
    pass


def formula_text(latex: str) -> str:
    """The formula in characters; lines of an aligned one are lines. Unknown commands stay."""
    try:
        text = _Reader(_TOKEN.findall(latex)).group("")
    except _TooDeep:
        return latex.strip()
    lines = (re.sub(r"[ \t]+", " ", line).strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


class _Reader:
    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def _next(self) -> str:
        if self._at >= len(self._tokens):
            return ""
        self._at += 1
        return self._tokens[self._at - 1]

    @property
    def _ahead(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _skip_spaces(self) -> None:
        while self._ahead.isspace():
            self._at += 1

    def group(self, close: str) -> str:
        """Everything to the token `close`, or to the end."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _TooDeep
        parts: list[str] = []
        fraction = False  # the last part is one
        while (token := self._next()) and token != close:
            said = self._read(token, parts)
            if fraction and said and (said[0].isalnum() or said[0] in "(√\\"):
                parts[-1] = f"({parts[-1]})"
            is_fraction = token in ("\\frac", "\\dfrac", "\\tfrac", "\\cfrac")
            if is_fraction and parts and parts[-1][-1:].isdigit():
                said = f" {said}" if said[:1].isdigit() else f"({said})"
            if said:
                parts.append(said)
                fraction = is_fraction
        self._depth -= 1
        return "".join(parts)

    def _argument(self) -> str:
        """A group in braces, or one token."""
        self._skip_spaces()
        token = self._next()
        if token in ("", "}"):  # the formula is cut here
            return ""
        return self.group("}") if token == "{" else self._read(token, [])

    def _optional(self) -> str:
        """What stands in square brackets; "" without them."""
        self._skip_spaces()
        if self._ahead != "[":
            return ""
        self._next()
        return self.group("]")

    def _raw_argument(self) -> str:
        """The name in braces, as of an environment."""
        self._skip_spaces()
        if self._ahead != "{":
            return ""
        name = ""
        self._next()
        while (token := self._next()) and token != "}":
            name += token
        return name

    def _read(self, token: str, before: list[str]) -> str:
        if token == "{":
            return self.group("}")
        if token in ("^", "_"):
            return self._script(token, before)
        if token == "~":
            return " "
        if token == "&":
            return " "
        if token.isspace():
            return " "
        return self._command(token[1:], before) if token[0] == "\\" and len(token) > 1 else token

    def _script(self, token: str, before: list[str]) -> str:
        said = self._argument().strip()
        table = RAISED if token == "^" else LOWERED
        close = said.replace(" ", "")
        if close and len(close) <= _LONGEST_SCRIPT and all(each in table for each in close):
            return "".join(table[each] for each in close)
        if close == "°":
            return close
        return f"{token}{said}" if len(close) <= 1 or (token == "_" and close.isalnum()) else f"{token}({said})"

    def _command(self, name: str, before: list[str]) -> str:
        if name in ("frac", "dfrac", "tfrac", "cfrac"):
            return _fraction(self._argument(), self._argument())
        if name in ("boxed", "fbox"):
            return f"[ {self._argument().strip()} ]"
        if name == "sqrt":
            return _root(self._optional(), self._argument())
        if name in ("binom", "dbinom", "tbinom"):
            return f"C({self._argument().strip()}, {self._argument().strip()})"
        if name == "pmod":
            return f" (mod {self._argument().strip()})"
        if name == "begin":
            return self._environment(self._raw_argument())
        if name in ("mathbb", "Bbb"):
            return "".join(DOUBLE_STRUCK.get(each, each) for each in self._argument())
        if name in MARKS:
            said = self._argument().strip()
            return said + MARKS[name] if len(said) == 1 else said
        if name in DROPPED:
            if self._ahead == ".":  # \left. is no bracket
                self._next()
            return ""
        if name.rstrip("*") in PLAIN:
            return self._argument()
        if name in FUNCTIONS:
            space = " " if before and before[-1][-1:].isalnum() else ""
            self._skip_spaces()
            after = " " if self._ahead and (self._ahead[0].isalnum() or self._ahead[0] == "\\") else ""
            return f"{space}{name}{after}"
        if name in LETTERS:
            self._skip_spaces()
            return LETTERS[name]
        if name in OPERATORS:
            return f" {OPERATORS[name]} "
        if name in ("\\", "newline", "cr"):
            self._optional()
            return "\n"
        if name in SPACES:
            return SPACES[name]
        if len(name) == 1 and not name.isalnum():
            return name
        arguments = ""
        while self._ahead == "{":
            arguments += f"{{{self._argument()}}}"
        return f"\\{name}{arguments}"

    def _environment(self, name: str) -> str:
        if name == "array":
            self._raw_argument()
        start = self._at
        depth = 1
        while self._at < len(self._tokens) and depth:
            token = self._next()
            depth += (token == "\\begin") - (token == "\\end")
        inner = _Reader(self._tokens[start : self._at - 1 if not depth else self._at])
        inner._depth = self._depth
        if not depth:
            self._raw_argument()
        if not name.endswith("matrix"):
            return f"\n{inner.group('')}\n"
        rows = (" ".join(row.split()) for row in inner.group("").split("\n"))
        return f"[{'; '.join(row for row in rows if row)}]"


def _fraction(above: str, below: str) -> str:
    above, below = above.strip(), below.strip()
    top = above if _SIMPLE.fullmatch(above) else f"({above})"
    return f"{top}/{below if _NUMBER_OR_LETTER.fullmatch(below) or below.isalpha() else _bracketed(below)}"


def _bracketed(text: str) -> str:
    return text if re.fullmatch(r"\([^()]*\)", text) else f"({text})"


def _root(degree: str, of: str) -> str:
    sign = {"": "√", "2": "√", "3": "∛", "4": "∜"}.get(degree.strip())
    if sign is None:
        raised = "".join(RAISED.get(each, "") for each in degree.strip())
        sign = f"{raised}√" if raised else f"root({degree.strip()})"
    of = of.strip()
    return sign + (of if _NUMBER_OR_LETTER.fullmatch(of) else _bracketed(of))


# What begins something that is no plain text: code, a formula between marks, or a bare command with braces.
_SPECIAL = re.compile(
    r"(?P<code>`+)|(?P<star>(?<=[\w)\]])\*(?=[\w(\[]))|(?P<open>\\\[|\\\(|\$\$?)|\\(?P<bare>boxed|d?frac|sqrt|text|mathbf|mathrm)(?=\s*[{\[])"
    r"|\\(?P<word>times|cdot|div|pm|leq?|geq?|neq?|approx|infty|pi|rightarrow|Rightarrow|implies|sqrt)(?![a-zA-Z])"
)
_TICKS = re.compile(r"`+")
_CLOSES = {"\\[": "\\]", "\\(": "\\)", "$$": "$$", "$": "$"}
_MARKUP = re.compile(r"([\\`*_\[\]<>#|~!&])")
_MATHEMATICAL = re.compile(r"[\\^_={}+]|^[^\s]*$")


def with_formulas(markdown: str) -> str:
    """Markdown in which each formula is text, and nothing of it is markup. Code stays as it is."""
    out: list[str] = []
    at = 0
    unclosed: set[str] = set()  # marks without an end behind them: each is looked for once
    while (found := _SPECIAL.search(markdown, at)) is not None:
        start = found.start()
        out.append(markdown[at:start])
        text, at = _special(markdown, found, unclosed)
        out.append(text)
    return "".join((*out, markdown[at:]))


def _special(markdown: str, found: re.Match[str], unclosed: set[str]) -> tuple[str, int]:
    """The text for what begins at a match, and where it ends."""
    start, end = found.span()
    if found["star"]:  # 2*3*4 is a product, not an emphasis
        return "\\*", end
    if ticks := found["code"]:
        close = -1 if ticks in unclosed else _run_of(ticks, markdown, end)
        if close < 0:
            unclosed.add(ticks)
            return ticks, end
        return markdown[start : close + len(ticks)], close + len(ticks)
    if mark := found["open"]:
        close = -1 if mark in unclosed else markdown.find(_CLOSES[mark], end)
        if close < 0:
            unclosed.add(mark)
            return mark, end
        inner = markdown[end:close]
        if mark == "$" and not _is_formula(inner, markdown[close + 1 : close + 2]):
            return mark, end
        if "\n\n" in inner:
            return mark, end
        return _escaped(formula_text(inner)), close + len(_CLOSES[mark])
    if word := found["word"]:
        return _escaped(OPERATORS.get(word) or LETTERS.get(word) or found[0]), end
    close = _after_braces(markdown, end, 2 if found["bare"].endswith("frac") else 1)
    bold = "**" if found["bare"] == "boxed" else ""
    return f"{bold}{_escaped(formula_text(markdown[start:close]))}{bold}", close


def _run_of(ticks: str, text: str, at: int) -> int:
    """Where the next run of exactly these backticks begins; -1 without one."""
    return next((run.start() for run in _TICKS.finditer(text, at) if run[0] == ticks), -1)


def _is_formula(inner: str, after: str) -> bool:
    """Whether text between two dollar signs is a formula, and not an amount of money (Pandoc's rule, and a sign)."""
    if not inner or "\n" in inner or inner[0].isspace() or inner[-1].isspace() or after.isdigit():
        return False
    return bool(_MATHEMATICAL.search(inner))


def _after_braces(text: str, at: int, groups: int) -> int:
    """Where the arguments of a command end: as many groups in braces, after an optional one in square brackets."""
    if text[at : at + 1] == "[" and (end := text.find("]", at)) >= 0:
        at = end + 1
    for _ in range(groups):
        while text[at : at + 1].isspace():
            at += 1
        if text[at : at + 1] != "{":
            return at
        depth = 0
        for place in range(at, len(text)):
            depth += (text[place] == "{") - (text[place] == "}")
            if not depth:
                at = place + 1
                break
        else:
            return len(text)
    return at


def _escaped(text: str) -> str:
    return _MARKUP.sub(r"\\\1", text).replace("\n", "  \n")
