"""Every operation that a chat template may call, each with its price: what has no row here cannot be called.

`price` gets the meter and the operands, and is asked before `run`; `run` gets the template's context and the operands.
Where CPython's or jinja's own way costs a product of two sizes, `run` is another way that is linear.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any

import markupsafe
from jinja2 import TemplateError, filters, tests
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import safe_range
from jinja2.utils import Cycler, Joiner, Namespace

from runtime.engine.sandbox import meter as prices
from runtime.engine.sandbox import texts
from runtime.engine.sandbox.meter import ITEM, MAX_ATTRIBUTE, STEP, LimitExceeded, Meter, Steps, meter_of


class Refused(TemplateError):
    """The template itself said no, through `raise_exception`."""


class Makes(Enum):
    """What of an operation's result is new, and so takes memory."""

    ALL = auto()
    CONTAINER = auto()
    NOTHING = auto()


@dataclass(frozen=True, slots=True)
class Operation:
    """`first`: what the first operand is turned into: a text, or a list of its items."""

    price: Callable[..., int]
    run: Callable[..., Any]
    makes: Makes = Makes.ALL
    first: Callable[[Meter, Any], Any] | None = None

    def perform(self, context: Context, /, *operands: Any, **named: Any) -> Any:
        meter = meter_of(context)
        if self.first is not None and operands:
            operands = (self.first(meter, operands[0]), *operands[1:])
        meter.spend(STEP + self.price(meter, *operands, **named))
        result = self.run(context, *operands, **named)
        return result if self.makes is Makes.NOTHING else meter.made(result, all_new=self.makes is Makes.ALL)


def _plain(price: Callable[..., int], function: Callable[..., Any], makes: Makes = Makes.ALL) -> Operation:
    return Operation(price, lambda context, /, *operands, **named: function(*operands, **named), makes)


def _of_text(price: Callable[..., int], function: Callable[..., Any]) -> Operation:
    return Operation(price, lambda context, /, *operands, **named: function(*operands, **named), first=Meter.text)


def _of_items(price: Callable[..., int], function: Callable[..., Any], makes: Makes = Makes.CONTAINER) -> Operation:
    """`function` is a filter of jinja that wants the environment; its items come one by one, so each is counted."""

    def run(context: Context, items: Any, *operands: Any, **named: Any) -> Any:
        _check_attributes(*operands, *named.values())
        result = function(context.environment, Steps(meter_of(context), items), *operands, **named)
        return list(result) if isinstance(result, Iterator) else result

    return Operation(price, run, makes, Meter.items)


def _by_filter(function: Callable[..., Any]) -> Operation:
    """`map`, `select` and their like, which look up another filter or test; that one is paid for by itself.

    They take None for an empty list.
    """

    def run(context: Context, items: Any, *operands: Any, **named: Any) -> Any:
        _check_attributes(*operands[:1], named.get("attribute"))
        return list(function(context, Steps(meter_of(context), items), *operands, **named))

    return Operation(prices.flat, run, Makes.CONTAINER, lambda meter, value: meter.items(value) if value else ())


def _check_attributes(*names: Any) -> None:
    """jinja makes a list of each name between two dots or commas."""
    if any(isinstance(name, str) and len(name) > MAX_ATTRIBUTE for name in names):
        raise LimitExceeded(f"it names an attribute with more than {MAX_ATTRIBUTE} characters")


# Filters of jinja that are not good enough as they are.


def _number(value: Any) -> Any:
    if not isinstance(value, (int, float, Undefined)):
        raise TypeError(f"a number is needed here, not a {type(value).__name__}")
    return value


def _number_test(test: Callable[..., Any]) -> Callable[..., Any]:
    """`%` of a text would format it."""
    return lambda value, *by, **named: test(_number(value), *by, **named)


def _short(meter: Meter, value: Any, *_: Any, **__: Any) -> int:
    """Reading a number takes the square of its digits."""
    if isinstance(value, str) and len(value) > 1000:
        raise LimitExceeded("it reads a number of more than 1000 characters")
    return 1000


def _rounded(meter: Meter, value: Any, precision: int = 0, method: str = "common") -> int:
    if abs(precision) > 20:
        raise LimitExceeded("it rounds to more than 20 digits")
    return 0


def _summed(meter: Meter, items: Any, attribute: Any = None, start: Any = 0) -> int:
    """Lists are added one after the other, and each sum is a new list."""
    size = meter.size(items)
    return ITEM * size.items if isinstance(start, (int, float)) else ITEM * size.items * (1 + len(items))


def _batched(meter: Meter, items: Any, linecount: int, fill_with: Any = None) -> int:
    meter.room_for(0, len(items) + abs(linecount))
    return ITEM * (len(items) + abs(linecount))


def _sliced(meter: Meter, items: Any, slices: int, fill_with: Any = None) -> int:
    return _batched(meter, items, slices)


def _reverse(context: Context, value: Any) -> Any:
    return value[::-1] if isinstance(value, str) else list(meter_of(context).items(value))[::-1]


def _titled(meter: Meter, text: str) -> int:
    return prices.per_piece(meter, text) + prices.cased(meter, text)


def _escaped(meter: Meter, text: str) -> int:
    meter.room_for(len(text) + 4 * sum(text.count(mark) for mark in "&<>\"'"))
    return 40 * len(text)


def _escape(text: str) -> str:
    """Plain text, not jinja's Markup, which would escape all that is added to it."""
    return str(markupsafe.escape(str(text)))


def _dict(context: Context, pairs: Any = (), /, **named: Any) -> dict[Any, Any]:
    if isinstance(pairs, dict):
        return {**pairs, **named}
    return dict(Steps(meter_of(context), pairs)) | named


def _raise_exception(message: Any) -> None:
    raise Refused(str(message)[:1000])


def _strftime_now(form: str) -> str:
    if len(form) > 200 or re.search(r"%[^%A-Za-z]?\d", form):
        raise SecurityError("it asks for a date of unreasonable width")
    return datetime.now().strftime(form)


def _list_of(method: Callable[..., Any]) -> Operation:
    """A view of a dictionary, as a list."""
    return Operation(lambda meter, value: 2 * ITEM * len(value), lambda context, value: list(method(value)))


_JINJA_TESTS: Mapping[str, Any] = tests.TESTS
_printed = Operation(prices.flat, lambda context, text: str(text), Makes.NOTHING, Meter.text)
_ITEM_SEARCH: Mapping[str, Operation] = {
    "count": _plain(prices.walked, lambda items, item: items.count(item)),
    "index": _plain(prices.walked, lambda items, item, *within: items.index(item, *within)),
}


def _append(context: Context, items: list[Any], value: Any) -> None:
    """As Kimi K2's template collects ids."""
    meter_of(context).changes(items, value)
    items.append(value)


def _pop(context: Context, items: list[Any], at: int = -1) -> Any:
    meter_of(context).changes(items)
    return items.pop(at)


METHODS: Mapping[type, Mapping[str, Operation]] = {
    str: {
        **{name: _plain(prices.cased, getattr(str, name)) for name in ("capitalize", "lower", "title", "upper")},
        **{
            name: _plain(prices.per_character, getattr(str, name))
            for name in ("isalnum", "isalpha", "isdigit", "islower", "isnumeric", "isspace", "isupper")
        },
        **{
            name: _plain(prices.affix, getattr(str, name))
            for name in ("endswith", "removeprefix", "removesuffix", "startswith")
        },
        **{name: _plain(prices.searched, getattr(str, name)) for name in ("count", "find", "index", "partition")},
        **{name: _plain(prices.stripped, getattr(str, name)) for name in ("lstrip", "rstrip", "strip")},
        "rfind": _plain(prices.searched, texts.rfind),
        "rpartition": _plain(prices.searched, texts.rpartition),
        "rsplit": _plain(prices.split_up, texts.rsplit),
        "split": _plain(prices.split_up, str.split),
        "splitlines": _plain(prices.lines_of, str.splitlines),
        "replace": _plain(prices.replaced, texts.replace),
        "join": Operation(prices.flat, lambda context, glue, items: texts.join(meter_of(context), items, glue)),
        "format": Operation(prices.per_character, texts.format_fields),
    },
    dict: {
        "get": _plain(prices.key_of, dict.get, Makes.NOTHING),
        "items": _list_of(dict.items),
        "keys": _list_of(dict.keys),
        "values": _list_of(dict.values),
    },
    list: {
        **_ITEM_SEARCH,
        "append": Operation(prices.flat, _append, Makes.NOTHING),
        "pop": Operation(prices.flat, _pop, Makes.NOTHING),
    },
    tuple: _ITEM_SEARCH,
}

FILTERS: Mapping[str, Operation] = {
    "abs": _plain(prices.flat, lambda value: abs(_number(value))),
    "batch": _of_items(_batched, lambda _, *by, **named: filters.do_batch(*by, **named), Makes.ALL),
    "capitalize": _of_text(prices.cased, str.capitalize),
    "count": _plain(prices.flat, len),
    "d": _plain(prices.flat, filters.do_default, Makes.NOTHING),
    "default": _plain(prices.flat, filters.do_default, Makes.NOTHING),
    "dictsort": Operation(
        lambda meter, value, *_, **__: prices.sorted_by(meter, value),
        lambda context, value, *operands, **named: filters.do_dictsort(value, *operands, **named),
    ),
    "e": _of_text(_escaped, _escape),
    "escape": _of_text(_escaped, _escape),
    "first": Operation(
        prices.flat, lambda context, value: filters.sync_do_first(context.environment, value), Makes.NOTHING
    ),
    "float": _plain(_short, filters.do_float),
    "format": Operation(prices.per_character, texts.format_filter, first=Meter.text),
    "groupby": _of_items(prices.sorted_by, filters.sync_do_groupby, Makes.ALL),
    "indent": Operation(prices.lines_of, texts.indent, first=Meter.text),
    "int": _plain(_short, filters.do_int),
    "items": Operation(
        lambda meter, value: 2 * ITEM * len(value), lambda context, value: list(filters.do_items(value))
    ),
    "join": Operation(prices.flat, texts.join_filter),
    "last": Operation(prices.flat, lambda context, value: filters.do_last(context.environment, value), Makes.NOTHING),
    "length": _plain(prices.flat, len),
    "list": _of_items(lambda meter, items: ITEM * len(items), lambda _, items: list(items)),
    "lower": _of_text(prices.cased, str.lower),
    "map": _by_filter(filters.sync_do_map),
    "max": _of_items(prices.sorted_by, filters.do_max, Makes.NOTHING),
    "min": _of_items(prices.sorted_by, filters.do_min, Makes.NOTHING),
    "reject": _by_filter(filters.sync_do_reject),
    "rejectattr": _by_filter(filters.sync_do_rejectattr),
    "replace": Operation(
        lambda meter, text, old, new, count=None: prices.replaced(meter, text, str(old), str(new), count),
        lambda context, text, old, new, count=None: texts.replace(text, str(old), str(new), count),
        first=Meter.text,
    ),
    "reverse": Operation(lambda meter, value: ITEM * len(value), _reverse, Makes.CONTAINER),
    "round": _plain(_rounded, lambda value, *operands, **named: filters.do_round(_number(value), *operands, **named)),
    "safe": _printed,
    "select": _by_filter(filters.sync_do_select),
    "selectattr": _by_filter(filters.sync_do_selectattr),
    "slice": _of_items(_sliced, lambda _, *by, **named: filters.sync_do_slice(*by, **named), Makes.ALL),
    "sort": _of_items(prices.sorted_by_keys, filters.do_sort),
    "string": _printed,
    "sum": _of_items(_summed, filters.sync_do_sum),
    "title": _of_text(_titled, filters.do_title),
    "tojson": Operation(prices.walked, texts.to_json),
    "trim": _of_text(prices.stripped, lambda text, chars=None: text.strip(chars)),
    "unique": _of_items(prices.sorted_by, filters.do_unique),
    "upper": _of_text(prices.cased, str.upper),
    "wordcount": _of_text(lambda meter, text: 64 * len(text), texts.word_count),
}

OPERATORS: Mapping[str, Operation] = {
    "+": Operation(prices.walked, texts.add, Makes.CONTAINER),
    "-": _plain(prices.flat, lambda left, right: _number(left) - _number(right)),
    "*": Operation(prices.flat, texts.times, Makes.CONTAINER),
    "/": _plain(prices.flat, lambda left, right: _number(left) / _number(right)),
    "//": _plain(prices.flat, lambda left, right: _number(left) // _number(right)),
    "%": Operation(prices.flat, texts.percent),
    "**": Operation(prices.flat, texts.power),
    "eq": _plain(prices.compared, operator.eq),
    "ne": _plain(prices.compared, operator.ne),
    "lt": _plain(prices.compared, operator.lt),
    "lteq": _plain(prices.compared, operator.le),
    "gt": _plain(prices.compared, operator.gt),
    "gteq": _plain(prices.compared, operator.ge),
    "in": _plain(prices.contained, lambda item, container: item in container),
    "notin": _plain(prices.contained, lambda item, container: item not in container),
    "neg": _plain(prices.flat, lambda value: -_number(value)),
    "pos": _plain(prices.flat, lambda value: +_number(value)),
}

TESTS: Mapping[str, Operation] = {
    **{
        name: _plain(prices.flat, _JINJA_TESTS[name])
        for name in (
            *("boolean", "callable", "defined", "escaped", "false", "float", "integer", "iterable", "mapping", "none"),
            *("number", "sameas", "sequence", "string", "true", "undefined"),
        )
    },
    **{name: _plain(prices.flat, _number_test(_JINJA_TESTS[name])) for name in ("divisibleby", "even", "odd")},
    **dict.fromkeys(("==", "eq", "equalto"), OPERATORS["eq"]),
    **dict.fromkeys(("!=", "ne"), OPERATORS["ne"]),
    **dict.fromkeys(("<", "lt", "lessthan"), OPERATORS["lt"]),
    **dict.fromkeys(("<=", "le"), OPERATORS["lteq"]),
    **dict.fromkeys((">", "gt", "greaterthan"), OPERATORS["gt"]),
    **dict.fromkeys((">=", "ge"), OPERATORS["gteq"]),
    "in": OPERATORS["in"],
    "filter": Operation(prices.flat, lambda context, name: name in context.environment.filters),
    "test": Operation(prices.flat, lambda context, name: name in context.environment.tests),
    "lower": _of_text(prices.per_character, str.islower),
    "upper": _of_text(prices.per_character, str.isupper),
}

GLOBALS: Mapping[str, Operation] = {
    "range": _plain(prices.flat, safe_range),
    "dict": Operation(prices.walked, _dict),
    "cycler": _plain(prices.walked, Cycler, Makes.NOTHING),
    "joiner": _plain(prices.walked, Joiner, Makes.NOTHING),
    "namespace": _plain(prices.walked, Namespace, Makes.NOTHING),
    "raise_exception": _plain(prices.walked, _raise_exception),
    "strftime_now": _plain(prices.flat, _strftime_now),
}
