"""Grammars of one vocabulary, by llguidance: which tokens may come next in an answer.

llguidance reads a grammar with derivatives of regular expressions and an Earley parser, so that a mask of the whole
vocabulary takes about 50 microseconds (github.com/guidance-ai/llguidance, docs/optimizations.md). It never raises for
what a grammar or a token does: its matchers get into a state of error instead.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from runtime.base.errors import EngineFailed, OutOfGrammar, UsageError
from runtime.base.quoted import quoted
from runtime.engine.grammar import JSON_OPTIONS, Grammar
from runtime.engine.schema_place import place_of

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

T = TypeVar("T")

_MOST_KEPT = 16  # compiled grammars: those of the clients of a household
# Every token that spells the next bytes may come, as in an answer without a grammar. Otherwise llguidance asks the
# tokenizer how to spell what is certain, and allows that one token only.
_HEAD = '%llguidance {"no_forcing": true}\n'
# Items of the Earley parser at one place of the text: four for each optional property of an object. 5,000 take about
# 20 ms.
_MOST_ITEMS = 5000
_STACK = 256 << 20  # bytes of address space; only what is used takes memory
# What llguidance shows of the grammar: "   2 | start: ...", "^^^", and a pattern that it repeats.
_SHOWN = re.compile(r"\d+ \||\^+$")
_PLACE = re.compile(r"(?:at )?(\d+)\((\d+)\): ")  # line and column of the Lark text
# Comments, texts and patterns of Lark, and the names of its terminals.
_NAMES = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"|/(?:\\.|[^/\\])+/|\b([A-Z][A-Z0-9_]*)\b')
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)", re.DOTALL)


class Constraints:
    """Makes the constraints of one open model. Its table of tokens is built at the first one, once."""

    def __init__(self, size: int, spell: Callable[[int], bytes], ends: Callable[[int], bool]) -> None:
        """`spell` returns the bytes of a token; those of special tokens begin with 0xff. `ends`: it ends a reply."""
        self._size, self._spell, self._ends = size, spell, ends
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        from llguidance import LLTokenizer, TokenizerWrapper

        ends = [token for token in range(self._size) if self._ends(token)]
        return LLTokenizer(TokenizerWrapper(_Vocabulary([*map(self._spell, range(self._size))], ends)), eos_token=ends)

    def constraint(self, grammar: Grammar, begun: str = "") -> LlamaConstraint:
        """As `Backend.constraint`."""
        if grammar in self._compiled:
            self._compiled.move_to_end(grammar)
        else:
            self._compiled[grammar] = self._compile(grammar)
            if len(self._compiled) > _MOST_KEPT:
                self._compiled.popitem(last=False)
        constraint = LlamaConstraint(self._compiled[grammar].deep_copy(), self._size)
        for token in self._tokenizer.greedy_tokenize(begun):
            if not constraint.permits(token):
                raise UsageError("the answer that is to go on is not in the grammar", hint="leave out one of the two")
            constraint.accept(token)
        return constraint

    def _compile(self, grammar: Grammar) -> LLMatcher:
        """Raises UsageError for a grammar that is not valid, takes too much work, or allows no token at all."""
        matcher, said = self._matcher(_lark(grammar))
        if said:
            why = _reason(said, told_by_line=grammar.kind == "lark")
            raise UsageError(f"the grammar cannot be used{self._place(grammar)}: {quoted(why)}")
        return matcher

    def _place(self, grammar: Grammar) -> str:
        if grammar.kind != "json_schema":
            return ""
        place = place_of(grammar.schema(), lambda schema: _reason(self._matcher(_json_lark(schema))[1]))
        return f" at {quoted(place)}" if place else ""

    def _matcher(self, text: str) -> tuple[LLMatcher, str]:
        """A matcher at the beginning of a grammar, and why it is of no use; "" if it is."""
        from llguidance import LLMatcher

        tokenizer = self._tokenizer
        matcher = with_deep_stack(lambda: LLMatcher(tokenizer, text, log_level=0, limits=_limits()))
        said = matcher.get_error()
        if not said:
            matcher.compute_bitmask()
            said = "nothing matches it, or no token of this model does" if matcher.is_error() else ""
        return matcher, said


def check_grammar(grammar: Grammar) -> None:
    """Raise UsageError for a grammar that no model can use, before one is loaded."""
    Constraints(_BYTES + 1, lambda token: bytes([token]) if token < _BYTES else b"\xff<end>", _BYTES.__eq__).constraint(
        grammar
    )


_BYTES = 256


class _Vocabulary:
    """What llguidance wants to know about a tokenizer (its `TokenizerWrapper`)."""

    def __init__(self, tokens: list[bytes], ends: list[int]) -> None:
        self.eos_token_id = ends[0] if ends else 0
        self.bos_token_id = None
        self.tokens = tokens
        self.special_token_ids: list[int] = []

    def __call__(self, text: bytes) -> list[int]:
        """Only asked for grammars that force tokens, and for a trial."""
        return []


class LlamaConstraint:
    """A matcher of llguidance for one answer."""

    __slots__ = ("_matcher", "_size")

    def __init__(self, matcher: LLMatcher, size: int) -> None:
        self._matcher, self._size = matcher, size

    @property
    def complete(self) -> bool:
        """As `Constraint.complete`."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def permits(self, token: int) -> bool:
        """As `Constraint.permits`."""
        bits = self._matcher.compute_bitmask()  # `validate_tokens` knows no end where the grammar is complete
        return not self._matcher.is_error() and bool(bits[token >> 3] >> (token & 7) & 1)

    def accept(self, token: int) -> None:
        """As `Constraint.accept`."""
        self._matcher.consume_token(token)

    def mask(self, also: Sequence[int] = ()) -> NDArray[np.bool_]:
        """For each token of the vocabulary whether it may come next: the grammar allows it, or it is in `also`.

        Raises OutOfGrammar.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise OutOfGrammar("the answer cannot go on in its grammar")
        mask = np.unpackbits(bits, count=self._size, bitorder="little").view(np.bool_)
        mask[[*also]] = True
        return mask


def _limits() -> Any:
    from llguidance import LLParserLimits

    return LLParserLimits(verbose_errors=False, max_items_in_row=_MOST_ITEMS)


def _lark(grammar: Grammar) -> str:
    """The grammar in llguidance's Lark. Raises UsageError."""
    if grammar.kind in ("json", "json_schema"):
        return _json_lark(grammar.schema())
    if grammar.kind == "regex":
        from llguidance import regex_to_lark

        return f"{_HEAD}start: /{regex_to_lark(grammar.text)}/"
    return _HEAD + (_of_gbnf(grammar.text) if grammar.kind == "gbnf" else grammar.text)


def _json_lark(schema: Mapping[str, Any]) -> str:
    return f"{_HEAD}start: %json {json.dumps({**schema, 'x-guidance': JSON_OPTIONS})}"


def _of_gbnf(text: str) -> str:
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        return _NAMES.sub(_as_rule, gbnf_to_lark(_ESCAPE.sub(_unescaped, text)))
    except RecursionError:
        raise UsageError("the GBNF grammar is nested too deeply") from None
    except Exception as error:  # it raises plain ones, with the place in the text
        raise UsageError(f"the GBNF grammar cannot be read: {quoted(str(error))}") from None


def _as_rule(found: re.Match[str]) -> str:
    """The converter makes terminals of rules without recursion. A terminal takes all that it can, which GBNF does not:
    [a-z]+ "x" must match "abx". A name in small letters is a rule."""
    return f"terminal_{found[1].lower()}" if found[1] else found[0]


def _unescaped(found: re.Match[str]) -> str:
    """The converter loses leading zeros of a code point, so it gets the character, or \\xNN for one of ASCII."""
    digits = found[1] or found[2]
    if not digits:
        return found[0]
    code = int(digits, 16)
    if code < 0x80:
        return f"\\x{code:02x}"
    return chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else found[0]


def _reason(said: str, *, told_by_line: bool = False) -> str:
    """Why, in one line: without the dump of the parser's state, and without the text of the grammar.

    `told_by_line`: with the place in the user's text, of which `_HEAD` is no part.
    """
    lines = [line.strip() for line in said.partition("<state>")[0].partition("<non-verbose/>")[0].splitlines()]
    kept = [line for line in lines if line and not _SHOWN.match(line)]
    if not kept:
        return said and "it is not valid"
    errors = [line.removeprefix("error: ") for line in kept if line.startswith("error: ")]
    first = kept[0].removesuffix(":") + "".join(f": {each}" for each in errors)
    place = _PLACE.match(first)
    if place is None:
        return first
    first = re.sub(r'invalid regex ".*" \(in regex\): ', "", first)
    why = first[place.end() :].removeprefix("failed to compile JSON schema: ")
    return f"line {int(place[1]) - 1}, column {place[2]}: {why}" if told_by_line else why


def with_deep_stack(work: Callable[[], T]) -> T:
    """The result of `work`, done in a thread with room for deep recursion. Raises EngineFailed if it raises anything.

    llguidance compiles rules and references by recursion, about 10 KiB for each of a chain, and a stack of 8 MiB ends
    the process at a thousand of them.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # such as a panic of Rust
            failed.append(error)

    before = threading.stack_size(_STACK)
    try:
        thread = threading.Thread(target=run)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    if failed:
        raise EngineFailed(f"the compiler of grammars failed: {quoted(str(failed[0]))}")
    return done[0]
