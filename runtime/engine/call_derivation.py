"""How a chat template writes calls of tools: read off what it renders.

A turn with a call is rendered, with one argument and with two, and a turn with two calls. Names, arguments and ids are
words that nobody uses, so what surrounds them are the marks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from runtime.base.common_prefix import common_length
from runtime.engine.call_syntax import KEY, NAME, UNIT, CallSyntax, JsonCalls, TagArguments, TaggedCalls
from runtime.engine.other_arguments import GEMMA_QUOTE

FIRST, SECOND = "qzfirsttool", "qzsecondtool"
KEY_A, KEY_B, VALUE_A, VALUE_B = "qzkeya", "qzkeyb", "Qzvaluea", 73491

# The arguments of each call -> the text behind the question, None if the template refuses.
Turn = Callable[[Sequence[tuple[str, Mapping[str, Any]]]], "str | None"]

_JSON = json.JSONDecoder()
_ID = "{id}"  # in place of the ids of calls
_PYTHON = re.compile(rf"\[{FIRST}\({KEY_A}=")


def derived_syntax(
    turn: Turn, plain: tuple[str, str], ids: tuple[str, str], dropped: Sequence[str]
) -> CallSyntax | None:
    """The syntax of calls; None if the template writes none that can be read.

    `plain` is what stands before and behind an answer without calls. `ids` are those of the two calls. `dropped` are
    the marks of thoughts.
    """
    text = turn([(FIRST, {KEY_A: VALUE_A})])
    if text is None or FIRST not in text or VALUE_A not in text:
        return None
    text = _without_thought(text, plain, dropped)
    both = turn([(FIRST, {KEY_A: VALUE_A}), (SECOND, {KEY_A: VALUE_A})])
    if both is not None:
        both = _without_thought(both, plain, dropped) if SECOND in both else None
    whole = _json_with(text, FIRST)
    if whole is not None:
        found = _json_calls(text, both, whole, ids[0])
        mark = UNIT.match(found.close.lstrip()) if found is not None else None
        lead = len(found.close) - len(found.close.lstrip()) if found is not None else 0
        return replace(found, close=found.close[: lead + mark.end()]) if found is not None and mark else found
    if _PYTHON.search(text):
        before, _, rest = text.partition(f"[{FIRST}(")
        return TaggedCalls("", open=before, close=rest[rest.rindex(")]") + 2 :], arguments="python")
    tagged = _tagged(text, both, turn, plain, ids, dropped)
    return tagged if tagged is not None and (tagged.call_open or tagged.open) else None


def _without_thought(text: str, plain: tuple[str, str], dropped: Sequence[str]) -> str:
    """The turn without its beginning and its end, which every answer has, and without an empty thought."""
    at = _outside_tags(text, common_length(text, plain[0]), -1)
    text = text[at:].lstrip()
    while mark := next((mark for mark in dropped if mark and text.startswith(mark)), None):
        text = text[len(mark) :].lstrip()
    end = len(text) - len(_common_suffix(text, plain[1]))
    return text[: _outside_tags(text, end, 1)].rstrip()


def _json_with(text: str, name: str) -> tuple[int, Any, int] | None:
    """The outermost JSON value with the name in it: where it begins, itself, and where it ends."""
    named = text.index(name)
    for at in (found.start() for found in re.finditer(r"[\[{]", text[:named])):
        try:
            value, end = _JSON.raw_decode(text, at)
        except (ValueError, RecursionError):
            continue
        if end > named:
            return at, value, end
    return None


def _json_calls(text: str, both: str | None, whole: tuple[int, Any, int], known_id: str) -> JsonCalls | None:
    start, value, end = whole
    found = _keys(value[0] if isinstance(value, list) and value else value, known_id)
    if found is None:
        return None
    found = replace(found, open=text[:start], close=text[end:], listed=isinstance(value, list))
    two = _json_with(both, SECOND) if both is not None else None
    if both is None or two is None or (isinstance(two[1], list) and len(two[1]) > 1):
        return found
    between = both[end : two[0]] if not isinstance(two[1], list) else ""
    opened = _common_suffix(found.open, between)
    if not opened.strip():
        return replace(found, each=False, separator=between)
    close = _common_prefix(found.close, between)
    return replace(found, separator=between[len(close) : len(between) - len(opened)], close=close)


def _keys(call: Any, known_id: str) -> JsonCalls | None:
    """The keys of a call that is an object."""
    if not isinstance(call, dict):
        return None
    inner = call.get("function")
    if isinstance(inner, dict):
        found = _keys(inner, known_id)
        return None if found is None else replace(found, wrapped=True)
    if call.keys() == {FIRST}:
        return JsonCalls(name_key="", arguments_key="")
    name = next((key for key, value in call.items() if value == FIRST), None)
    arguments = next((key for key, value in call.items() if isinstance(value, dict) and KEY_A in value), None)
    numbered = next((key for key, value in call.items() if value == known_id), "")
    return JsonCalls(name_key=name, arguments_key=arguments, id_key=numbered) if name and arguments else None


def _tagged(
    text: str, both: str | None, turn: Turn, plain: tuple[str, str], ids: tuple[str, str], dropped: Sequence[str]
) -> TaggedCalls | None:
    if FIRST not in ids[0]:
        text = text.replace(ids[0], _ID)
        both = both and both.replace(ids[0], _ID).replace(ids[1], _ID)
    at = text.rfind(FIRST, 0, text.find(KEY_A)) if KEY_A in text else -1
    if at < 0:
        return None
    before, behind = text[:at], text[at + len(FIRST) :]
    start, end = _json_arguments(behind)
    kind: Any = "json"
    gemma = f"{{{KEY_A}:{GEMMA_QUOTE}{VALUE_A}{GEMMA_QUOTE}}}"
    closing = ""  # the end of the last argument, where arguments have marks
    if start < 0 and gemma in behind:
        start = behind.index(gemma)
        end, kind = start + len(gemma), "gemma"
    if start < 0:
        two = turn([(FIRST, {KEY_A: VALUE_A, KEY_B: VALUE_B})])
        tags = None if two is None else _tag_arguments(_without_thought(two, plain, dropped))
        if tags is None:
            return None
        kind, name_close = tags
        start = len(name_close)
        closing = kind.value_close.replace(KEY, KEY_A)
        end = behind.find(VALUE_A) + len(VALUE_A)
        if not behind.startswith(closing, end):
            closing = closing.rstrip()
        end += len(closing)
    found = TaggedCalls(before.replace(FIRST, NAME), behind[:start], behind[end:], kind)
    second = _second(both, closing) if both is not None else None
    if second is not None:
        found = _repeated(found, *second)
    return _with_first_close(_with_id(_with_one_name(found)))


def _with_one_name(found: TaggedCalls) -> TaggedCalls:
    """Without what repeats the name before the marks of a call, such as the header of a message."""
    repeated, name, call_open = found.call_open.rpartition(NAME)
    if not name:
        return found
    mark = UNIT.match(call_open)
    end = mark.end() if mark is not None else 0
    return replace(found, call_open=call_open[end:].lstrip(), between=found.between + repeated + name + call_open[:end])


def _with_first_close(found: TaggedCalls) -> TaggedCalls:
    """Without what follows the first mark that closes the whole: it ends the turn."""
    close = found.close.strip()
    mark = UNIT.match(close)
    return replace(found, close=mark[0] if mark is not None else close)


def _second(both: str, closing: str) -> tuple[str, str] | None:
    """What stands between the arguments of the first call and the name of the second, and what follows that name."""
    at = both.rfind(SECOND, 0, both.rfind(KEY_A))
    first = both[:at]
    value = first.find(VALUE_A)
    if at < 0 or value < 0:
        return None
    head = first.rfind(FIRST, 0, value) + len(FIRST)
    _, end = _json_arguments(first[head:])
    gemma = f"{VALUE_A}{GEMMA_QUOTE}}}"
    if end >= 0:
        between = first[head + end :]
    elif gemma in first:
        between = first[first.index(gemma) + len(gemma) :]
    else:
        between = first[value + len(VALUE_A) :].removeprefix(closing)
    return between.replace(SECOND, NAME), both[at + len(SECOND) :]


def _repeated(found: TaggedCalls, between: str, behind: str) -> TaggedCalls:
    """The marks of every call told apart from those of the whole: only the former stand between two calls."""
    before, after = found.call_open, found.call_close
    call_open = _common_suffix(before, between)
    starts = (len(text) - len(call_open) for text in (before, between))
    cut = max(_outside_tags(text, at, 1) - at for text, at in zip((before, between), starts, strict=True))
    call_open = call_open[cut:].lstrip()
    if not call_open:
        return found
    ended = between[: len(between) - len(call_open)]
    close = _common_prefix(after, ended)
    close = close[: min(_outside_tags(after, len(close), -1), _outside_tags(ended, len(close), -1))]
    name_close, numbers = found.name_close, ""
    if not behind.startswith(name_close):  # a number that counts the calls
        common = re.sub(r"\d+$", "", _common_prefix(name_close, behind))
        number = re.match(r"\d+", name_close[len(common) :])
        if number is not None:
            numbers, name_close = common, name_close[len(common) + number.end() :]
    return replace(
        found,
        open=before[: len(before) - len(call_open)].rstrip(),
        close=after[len(close) :],
        call_open=call_open,
        call_close=close,
        between=ended[len(close) :],
        name_close=name_close,
        id_open=numbers,
        numbered=numbers == ":" and call_open.endswith("functions."),
    )


def _with_id(found: TaggedCalls) -> TaggedCalls:
    """The id before or behind the name told apart from the marks."""
    if _ID in found.name_close:
        opening, _, rest = found.name_close.partition(_ID)
        return replace(found, id_open=opening, name_close=rest)
    if _ID in found.call_open:
        opening, _, rest = found.call_open.rpartition(_ID)
        return replace(found, call_open=opening, id_close=rest)
    return found


def _json_arguments(behind: str) -> tuple[int, int]:
    """Where an object with the argument begins and ends, -1 if there is none."""
    for found in re.finditer(r"\{", behind):
        try:
            value, end = _JSON.raw_decode(behind, found.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and KEY_A in value:
            return found.start(), end
    return -1, -1


def _tag_arguments(text: str) -> tuple[TagArguments, str] | None:
    """The marks of arguments in a turn with two of them, and what closes the name before them."""
    pattern = rf"{FIRST}((?:(?!{FIRST}).)*?){KEY_A}(.*?){VALUE_A}(.*){KEY_B}(.*?){VALUE_B}(.*)"
    found = re.search(pattern, text, re.DOTALL)
    if found is None:
        return None
    first, to_text, between, to_number, _ = found.groups()
    opened = _common_suffix(first, between)
    cut = max(_outside_tags(text, len(text) - len(opened), 1) - len(text) + len(opened) for text in (first, between))
    key_open = opened[cut:].lstrip()
    if not key_open.strip():
        return None
    name_close = first[: len(first) - len(key_open)]
    closing = between[: len(between) - len(key_open)]
    value_close = closing.rstrip()
    gap = closing[len(value_close) :]
    key_close, text_word, other_word, value_open = to_text, "", "", ""
    if to_text != to_number:
        key_close = re.sub(r"\w+$", "", _common_prefix(to_text, to_number))
        words = [re.match(r"\w+", each[len(key_close) :]) for each in (to_text, to_number)]
        if words[0] is None or words[1] is None:
            return None
        text_word, other_word = words[0][0], words[1][0]
        value_open = to_text[len(key_close) + len(text_word) :]
    if not value_close.strip():
        return None
    close = value_close.replace(KEY_A, KEY)
    return TagArguments(key_open, key_close, close, gap, text_word, other_word, value_open), name_close.rstrip()


def _common_prefix(one: str, other: str) -> str:
    return one[: common_length(one, other)]


def _common_suffix(one: str, other: str) -> str:
    return _common_prefix(one[::-1], other[::-1])[::-1]


def _outside_tags(text: str, at: int, direction: int) -> int:
    """The place `at`, moved to the end of the tag that it lies in (direction 1), or to its beginning (-1)."""
    for tag in UNIT.finditer(text):
        if tag.start() < at < tag.end():
            return tag.end() if direction > 0 else tag.start()
    return at
