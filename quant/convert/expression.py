"""Regular expressions of tokenizers, matched within a budget of steps.

A tokenizer.json is content of a stranger, and Python's own engine has neither \\p{L} nor a limit: an expression could
run for years. This one knows what pre-tokenizers use of Oniguruma's syntax (the `onig` crate of
huggingface/tokenizers): classes with categories, scripts, ranges, `&&` and nesting, groups, look-around, repetitions.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator

Continue = Callable[[int], int]
# A part of an expression: from a position, with what follows, to the end of the whole match, or -1.
Matcher = Callable[[int, Continue], int]
Class = Callable[[str], bool]

_LONGEST = 8192  # characters of an expression; that of DeepSeek's first models has 500
_STEPS = 400_000  # of all matches together; the expressions of published models need up to 60,000 on the test text
_DEEPEST = 40
_MOST = 1 << 16  # the largest count of a repetition


class NotUnderstood(Exception):
    """The expression is too costly, or has a syntax that is not known here."""


class Expression:
    """A compiled expression. `spans` finds its matches one after the other, as an iterator of a regex library does."""

    def __init__(self, source: str) -> None:
        """Raises NotUnderstood."""
        if len(source) > _LONGEST:
            raise NotUnderstood
        self._source, self._at = source, 0
        self._text, self._steps = "", 0
        self._match = self._alternatives(0, False)
        if self._at != len(source):
            raise NotUnderstood

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where matches begin and end, without empty ones. Raises NotUnderstood if that is too costly."""
        self._text, self._steps = text, 0
        at = 0
        while at < len(text):
            try:
                end = self._match(at, lambda end: end)
            except RecursionError:
                raise NotUnderstood from None
            if end > at:
                yield at, end
            at = end if end > at else at + 1

    def _step(self, count: int = 1) -> None:
        self._steps += count
        if self._steps > _STEPS:
            raise NotUnderstood

    # Reading the expression

    def _peek(self, text: str) -> bool:
        return self._source.startswith(text, self._at)

    def _take(self, text: str) -> bool:
        found = self._peek(text)
        self._at += len(text) if found else 0
        return found

    def _next(self) -> str:
        if self._at >= len(self._source):
            raise NotUnderstood
        self._at += 1
        return self._source[self._at - 1]

    def _alternatives(self, depth: int, folded: bool) -> Matcher:
        if depth > _DEEPEST:
            raise NotUnderstood
        ways = [self._sequence(depth, folded)]
        while self._take("|"):
            ways.append(self._sequence(depth, folded))
        if len(ways) == 1:
            return ways[0]

        def match(at: int, then: Continue) -> int:
            for way in ways:
                self._step()
                end = way(at, then)
                if end >= 0:
                    return end
            return -1

        return match

    def _sequence(self, depth: int, folded: bool) -> Matcher:
        parts: list[Matcher] = []
        while self._at < len(self._source) and not self._peek("|") and not self._peek(")"):
            parts.append(self._repeated(depth, folded))

        def match(at: int, then: Continue, number: int = 0) -> int:
            self._step()
            if number == len(parts):
                return then(at)
            return parts[number](at, lambda end: match(end, then, number + 1))

        return match

    def _repeated(self, depth: int, folded: bool) -> Matcher:
        single, matcher = self._atom(depth, folded)
        counts = self._counts()
        if counts is None:
            return matcher
        least, most = counts
        lazy, possessive = self._take("?"), self._take("+")
        if single is not None:
            return self._run(single, least, most, lazy, possessive)
        if possessive or lazy:
            raise NotUnderstood
        return self._loop(matcher, least, most)

    def _counts(self) -> tuple[int, int] | None:
        for sign, counts in (("*", (0, _MOST)), ("+", (1, _MOST)), ("?", (0, 1))):
            if self._take(sign):
                return counts
        if not self._peek("{"):
            return None
        end = self._source.find("}", self._at)
        low, comma, high = self._source[self._at + 1 : max(end, 0)].partition(",")
        if (
            end < 0
            or not all(not part or (part.isdecimal() and len(part) < 6) for part in (low, high))
            or not low + high
        ):
            raise NotUnderstood
        self._at = end + 1
        least = int(low or 0)
        return least, min(int(high), _MOST) if high else _MOST if comma else least

    def _run(self, single: Class, least: int, most: int, lazy: bool, possessive: bool) -> Matcher:
        """One character again and again: no recursion, as texts have long runs."""

        def match(at: int, then: Continue) -> int:
            text, end = self._text, at
            limit = min(len(text), at + most)
            while end < limit and single(text[end]):
                end += 1
            self._step(end - at + 1)
            if end - at < least:
                return -1
            if possessive:
                return then(end)
            ends = range(at + least, end + 1)
            for each in ends if lazy else reversed(ends):
                self._step()
                found = then(each)
                if found >= 0:
                    return found
            return -1

        return match

    def _loop(self, part: Matcher, least: int, most: int) -> Matcher:
        def match(at: int, then: Continue, count: int = 0) -> int:
            self._step()
            if count < most:

                def again(end: int) -> int:
                    return match(end, then, count + 1) if end > at or count < least else -1

                found = part(at, again)
                if found >= 0:
                    return found
            return then(at) if count >= least else -1

        return match

    def _atom(self, depth: int, folded: bool) -> tuple[Class | None, Matcher]:
        """A character or a class of them, with its matcher; or any other part."""
        sign = self._next()
        if sign == "(":
            return None, self._group(depth, folded)
        if sign in "*+?{":
            raise NotUnderstood
        if sign == "^":
            return None, lambda at, then: then(at) if at == 0 or self._text[at - 1] == "\n" else -1
        if sign == "$":
            return None, lambda at, then: then(at) if at == len(self._text) or self._text[at] == "\n" else -1
        if sign == "\\" and self._peek("b"):
            self._at += 1
            return None, lambda at, then: then(at) if self._at_edge(at) else -1
        single = self._class(depth) if sign == "[" else self._escape() if sign == "\\" else _is(sign)
        if sign == ".":
            single = _not(_is("\n"))
        single = _folded(single) if folded else single

        def match(at: int, then: Continue) -> int:
            self._step()
            return then(at + 1) if at < len(self._text) and single(self._text[at]) else -1

        return single, match

    def _at_edge(self, at: int) -> bool:
        before = at > 0 and _is_word(self._text[at - 1])
        return before != (at < len(self._text) and _is_word(self._text[at]))

    def _group(self, depth: int, folded: bool) -> Matcher:
        kinds = ("?:", "?i:", "?=", "?!", "?<=", "?<!", "?>")
        kind = next((each for each in kinds if self._take(each)), "")
        if not kind and self._peek("?"):
            raise NotUnderstood
        inner = self._alternatives(depth + 1, folded or kind == "?i:")
        if not self._take(")"):
            raise NotUnderstood
        if kind in ("", "?:", "?i:"):
            return inner
        if kind == "?>":
            return lambda at, then: then(end) if (end := inner(at, lambda end: end)) >= 0 else -1
        if kind in ("?=", "?!"):
            return lambda at, then: then(at) if (inner(at, lambda end: end) >= 0) == (kind == "?=") else -1

        def behind(at: int, then: Continue) -> int:
            found = any(inner(begin, lambda end: end if end == at else -1) == at for begin in range(at, -1, -1))
            return then(at) if found == (kind == "?<=") else -1

        return behind

    def _class(self, depth: int) -> Class:
        """What follows "[", to the "]" that ends it."""
        if depth > _DEEPEST:
            raise NotUnderstood
        negated, sets, items = self._take("^"), [], list[Class]()
        first = True
        while first or not self._take("]"):
            if self._take("&&"):
                sets.append(_any(items))
                items = []
                continue
            sign = self._next()
            low = "" if sign in "[\\" else sign
            if sign == "[":
                items.append(self._class(depth + 1))
            elif sign == "\\":
                low = self._literal_escape()
                items.append(_is(low) if low else self._escape())
            else:
                items.append(_is(sign))
            if low and self._peek("-") and self._source[self._at + 1 : self._at + 2] not in ("]", "["):
                self._at += 1
                high = self._next()
                high = self._literal_escape() if high == "\\" else high
                if not high or high < low:
                    raise NotUnderstood
                items[-1] = _between(low, high)
            first = False
        sets.append(_any(items))
        found = sets[0] if len(sets) == 1 else _all(sets)
        return _not(found) if negated else found

    def _literal_escape(self) -> str:
        """The character of an escape such as \\n or \\-; "" for a class such as \\p{L}, of which nothing is taken."""
        sign = self._source[self._at : self._at + 1]
        if sign in ("x", "u"):
            digits = self._source[self._at + 1 : self._at + (5 if sign == "u" else 3)]
            if self._source[self._at + 1 : self._at + 2] == "{":
                end = self._source.find("}", self._at)
                digits = self._source[self._at + 2 : max(end, 0)]
                self._at = end + 1
            else:
                self._at += 1 + len(digits)
            try:
                return chr(int(digits, 16))
            except (ValueError, OverflowError):
                raise NotUnderstood from None
        if not sign or (sign.isalnum() and sign not in "rntfv0"):
            return ""
        self._at += 1
        return {"r": "\r", "n": "\n", "t": "\t", "f": "\f", "v": "\v", "0": "\0"}.get(sign, sign)

    def _escape(self) -> Class:
        """What follows a backslash."""
        literal = self._literal_escape()
        if literal:
            return _is(literal)
        sign = self._next()
        if sign in "sSdDwW":
            found = {"s": str.isspace, "d": _category("Nd"), "w": _is_word}[sign.lower()]
            return _not(found) if sign.isupper() else found
        if sign not in "pP":
            raise NotUnderstood
        name = self._next()
        if name == "{":
            end = self._source.find("}", self._at)
            if end < 0:
                raise NotUnderstood
            name = self._source[self._at : end]
            self._at = end + 1
        negated = (sign == "P") != name.startswith("^")
        found = _property(name.removeprefix("^"))
        return _not(found) if negated else found


def _property(name: str) -> Class:
    if name in ("Han", "Script=Han", "sc=Han"):
        return lambda sign: unicodedata.name(sign, "").startswith(("CJK UNIFIED", "CJK COMPATIBILITY I", "KANGXI"))
    if len(name) <= 2 and name[:1] in "LMNPSZC":
        return _category(name)
    if len(name) > 3 and name.isalpha():  # a script, whose letters have its name
        return lambda sign: unicodedata.name(sign, "").startswith(name.upper() + " ")
    raise NotUnderstood


def _category(name: str) -> Class:
    return lambda sign: unicodedata.category(sign).startswith(name)


def _is_word(sign: str) -> bool:
    return sign == "_" or unicodedata.category(sign)[0] in "LMN"


def _is(sign: str) -> Class:
    return lambda other: other == sign


def _between(low: str, high: str) -> Class:
    return lambda sign: low <= sign <= high


def _not(inner: Class) -> Class:
    return lambda sign: not inner(sign)


def _any(items: list[Class]) -> Class:
    return items[0] if len(items) == 1 else lambda sign: any(each(sign) for each in items)


def _all(sets: list[Class]) -> Class:
    return lambda sign: all(each(sign) for each in sets)


def _folded(inner: Class) -> Class:
    return lambda sign: inner(sign) or inner(sign.lower()) or inner(sign.upper())
