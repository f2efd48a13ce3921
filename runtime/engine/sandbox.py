"""Where chat templates run: jinja's immutable sandbox, in which every operation has a price.

jinja's own sandbox keeps a template away from Python's internals, but not from `'a' * 10**10`. Here whatever
can take long or grow large (operators, calls, filters, displays, slices, loop steps, buffers) goes through
one `Meter`, and what is not on the short lists below does not exist. A killed thread or a signal would not
help: one native operation can already fill the memory, so sizes are checked before the operation.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import wraps
from typing import Any

from jinja2 import TemplateError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace
from jinja2.visitor import NodeTransformer

MAX_SOURCE = 256 << 10  # characters; the longest template in common use has about 30 thousand
MAX_SIZE = 8 << 20  # characters of one value or of the whole prompt: above any model's context
MAX_ITEMS = 1 << 20  # of one value, nested ones included: walking over them takes a fraction of a second
MAX_WORK = 64 << 20  # characters written plus steps made by one rendering
MAX_SECONDS = 5.0


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_METHODS: Mapping[type, frozenset[str]] = {
    str: _names(
        "capitalize count endswith find index isalnum isalpha isdigit islower isnumeric isspace isupper join"
        " lower lstrip partition removeprefix removesuffix replace rfind rpartition rsplit rstrip split splitlines"
        " startswith strip title upper"
    ),
    dict: _names("get items keys values"),
    list: _names("count index"),
    tuple: _names("count index"),
}
_OWN_KINDS = (
    LoopContext,
    Macro,
    Namespace,
    Cycler,
    Joiner,
    Undefined,
)  # objects of jinja's own: its rule is enough

# jinja's filters that neither multiply sizes nor reach for attributes; the ones that do are replaced
# below.
_PLAIN_FILTERS = _names(
    "abs capitalize count d default dictsort e escape first float int items last length list lower map max"
    " min reject rejectattr reverse safe select selectattr sort string title trim unique upper"
)


class LimitExceeded(SecurityError):
    """A template needs more time or space than an ordinary one does."""


class Refused(TemplateError):
    """The template itself said no, through `raise_exception`."""


class Meter:
    """The work that one rendering may still do."""

    def __init__(self) -> None:
        self._work = MAX_WORK
        self._deadline = time.monotonic() + MAX_SECONDS

    def spend(self, work: int = 1) -> None:
        self._work -= work
        if self._work < 0:
            raise LimitExceeded("it does too much work")
        if time.monotonic() > self._deadline:
            raise LimitExceeded(f"it takes longer than {MAX_SECONDS:g} seconds")

    def room_for(self, size: int) -> None:
        """Called before `size` characters or items come into being."""
        if size > MAX_SIZE:
            raise LimitExceeded(f"it makes a value of more than {MAX_SIZE} characters")

    def made(self, value: Any) -> Any:
        """`value` has come into being; its characters are paid for."""
        _, size = self.measure(value)
        self.spend(size)
        return value

    def grouped(self, value: Any) -> Any:
        """A container of things that exist already: its items are paid for, its size is only bounded."""
        steps, _ = self.measure(value)
        self.spend(steps)
        return value

    def measure(self, value: Any) -> tuple[int, int]:
        """Items and characters, shared parts counted as often as they would be printed."""
        if isinstance(value, str):
            self.room_for(len(value))
            return 1, len(value) + 1
        steps, characters, pending = 0, 0, [value]
        while pending:
            item = pending.pop()
            steps += 1
            if isinstance(item, str):
                characters += len(item)
            elif isinstance(item, dict):
                pending.extend(item.keys())
                pending.extend(item.values())
            elif isinstance(item, (list, tuple)):
                pending.extend(item)
            elif isinstance(item, int) and item.bit_length() > 64:
                raise LimitExceeded("it computes with huge numbers")
            elif isinstance(item, Namespace):
                raise SecurityError("it uses a namespace as a value")
            self.room_for(characters)
            if steps + len(pending) > MAX_ITEMS:
                raise LimitExceeded(f"it makes a value of more than {MAX_ITEMS} items")
        return steps, steps + characters


class Steps:
    """The items of a `for` loop; each step is counted."""

    def __init__(self, meter: Meter, items: Any) -> None:
        self._meter = meter
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self._meter.spend()
            yield item


class _Rewriter(NodeTransformer):
    """Sends through the environment what jinja compiles to bare Python: `~`, displays, slices, loops."""

    def _through(self, name: str, node: nodes.Node, *arguments: nodes.Node) -> nodes.Node:
        function = nodes.EnvironmentAttribute(name)
        return nodes.Call(function, list(arguments), [], None, None).set_lineno(node.lineno)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._through("join_texts", node, *node.nodes)

    def _visit_display(self, node: nodes.Tuple | nodes.List | nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return node if isinstance(node, nodes.Tuple) and node.ctx != "load" else self._through("group", node, node)

    visit_List = visit_Dict = visit_Tuple = _visit_display

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return self._through("group", node, node) if isinstance(node.arg, nodes.Slice) else node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = self._through("steps", node, node.iter)
        return node


class _GenerationBlock(Extension):
    """`{% generation %}...{% endgeneration %}` marks what a trainer learns from; here its body alone counts."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of one template. Call `start` before each rendering; not for two threads at once.

    White space and loop controls are as `transformers` sets them for chat templates.
    """

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[LoopControlExtension, _GenerationBlock],
            optimized=False,  # nothing is computed while the template compiles
            finalize=_shown,
            cache_size=0,
        )
        self.meter = Meter()
        own = {"join": self._join, "replace": self._replace, "indent": self._indent, "tojson": self._to_json}
        plain = {name: self.filters[name] for name in _PLAIN_FILTERS}
        self.filters = {name: self._metered(function) for name, function in (plain | own).items()}
        kept = ("range", "dict", "namespace", "cycler", "joiner")
        self.globals = {name: self.globals[name] for name in kept}
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}

    def start(self) -> None:
        self.meter = Meter()

    def _metered(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)  # keeps jinja's mark of functions that want the context
        def metered(*args: Any, **kwargs: Any) -> Any:
            self.meter.spend()
            return self.meter.made(function(*args, **kwargs))

        return metered

    # Called by the rewritten template.

    def join_texts(self, *values: Any) -> str:
        return self.concat(map(self._text, values))

    def group(self, value: Any) -> Any:
        return self.meter.made(value) if isinstance(value, str) else self.meter.grouped(value)

    def steps(self, items: Any) -> Steps:
        return Steps(self.meter, items)

    def concat(self, pieces: Iterable[str]) -> str:
        """jinja joins every buffer with this: the whole output, a macro's, a block's."""
        parts, size = [], 0
        for piece in pieces:
            size += len(piece)
            self.meter.room_for(size)
            parts.append(piece)
        self.meter.spend(size)
        return "".join(parts)

    def _text(self, value: Any) -> str:
        return value if isinstance(value, str) else str(self.meter.grouped(value))

    # Called by jinja's compiled code.

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _Rewriter().visit(tree)
        return tree

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, names in _METHODS.items():
            if isinstance(obj, kind):
                return attr in names
        return isinstance(obj, _OWN_KINDS) and super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        raise SecurityError(f"it asks for {attribute!r} of a {type(obj).__name__}")

    def wrap_str_format(self, value: Any) -> None:
        """`str.format` is no exception to `is_safe_attribute`: a width in it makes any size."""

    def getitem(self, obj: Any, argument: Any) -> Any:
        self.meter.spend()
        return super().getitem(obj, argument)

    def getattr(self, obj: Any, attribute: str) -> Any:
        self.meter.spend()
        return super().getattr(obj, attribute)

    def call_test(self, *args: Any, **kwargs: Any) -> Any:
        self.meter.spend()
        return super().call_test(*args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and not (isinstance(right, (int, float)) and abs(right) <= 64):
            raise LimitExceeded("it computes with huge numbers")
        if operator == "%" and isinstance(left, str):
            raise SecurityError("it formats with %")
        if operator == "*":
            for sized, times in ((left, right), (right, left)):
                if isinstance(sized, (str, list, tuple)) and isinstance(times, int):
                    self.meter.room_for(len(sized) * times)
        return self.group(super().call_binop(context, operator, left, right))

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.meter.spend()
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if owner is self:  # join_texts, group, steps: they pay themselves; jinja adds keywords for its own use
            return function(*args)
        if isinstance(owner, str) and name == "join":
            return self._join(args[0], owner)
        if isinstance(owner, str) and name == "replace":
            return self._replace(owner, *args)
        result = super().call(context, function, *args, **kwargs)
        return result if isinstance(result, Namespace) else self.meter.made(result)

    # Filters and methods whose result can be far larger than what goes in.

    def _join(self, items: Any, d: Any = "", attribute: str | None = None) -> str:
        values: Any = Steps(self.meter, items)
        if attribute is not None:
            values = (self.getitem(item, attribute) for item in values)
        glue, parts, size = self._text(d), [], 0
        for value in values:
            parts.append(self._text(value))
            size += len(parts[-1]) + len(glue)
            self.meter.room_for(size)
        return glue.join(parts)

    def _replace(self, text: Any, old: Any, new: Any, count: int | None = None) -> str:
        text, old, new = self._text(text), self._text(old), self._text(new)
        found = text.count(old)
        self.meter.room_for(len(text) + found * len(new))
        return str(text.replace(old, new, -1 if count is None else count))

    def _indent(self, text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        margin = width if isinstance(width, str) else " " * min(int(width), 256)
        lines = self._text(text).splitlines(keepends=True)
        self.meter.room_for(sum(map(len, lines)) + len(lines) * len(margin))
        return "".join(
            margin + line if (first or number) and (blank or line.strip()) else line
            for number, line in enumerate(lines)
        )

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """JSON as chat templates expect it: not escaped for HTML, unlike jinja's own filter."""
        steps, _ = self.meter.measure(value)
        self.meter.room_for(steps * (len(str(separators)) + min(int(indent or 0), 16) * 8))
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=None if indent is None else min(int(indent), 16),
            separators=separators,
            sort_keys=sort_keys,
        )


@pass_context
def _shown(context: Context, value: Any) -> Any:
    """Every `{{ value }}`. Wanting the context keeps jinja from computing it while the template compiles."""
    environment = context.environment
    assert isinstance(environment, Sandbox)
    return environment._text(value)


def _raise_exception(message: str) -> None:
    raise Refused(message)


def _strftime_now(form: str) -> str:
    if len(form) > 200 or re.search(r"%[^%A-Za-z]?\d", form):
        raise SecurityError("it asks for a date of unreasonable width")
    return datetime.now().strftime(form)
