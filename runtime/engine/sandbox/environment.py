"""Where chat templates run: jinja's immutable sandbox, in which every operation has a price.

jinja's own sandbox keeps a template away from Python's internals, but not from `'a' * 10**10`. A killed thread or a
signal would not help: one native operation can already fill the memory, or run for an hour. So each operation is paid
for before it runs (`operations.py`), and what has no price does not exist. Reading a template is bounded
in the same way: by its tokens, its kinds of nodes, how deep they are nested, and the code that jinja writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.compiler import CodeGenerator
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.lexer import Token, TokenStream
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace
from jinja2.visitor import NodeTransformer

from runtime.base.run import Stop
from runtime.engine.sandbox.meter import MAX_CODE, MAX_SOURCE, MAX_TOKENS, STEP, LimitExceeded, Meter, Steps
from runtime.engine.sandbox.operations import FILTERS, GLOBALS, METHODS, OPERATORS, TESTS, Operation, Refused

__all__ = ["MAX_SOURCE", "Refused", "Sandbox"]

# Objects of jinja's own: its rule for their attributes is enough.
_OWN_KINDS = (LoopContext, Macro, Namespace, Cycler, Joiner, Undefined)
_MAX_SCOPES = 20  # loops and macros within each other: CPython nests no more loops
_SCOPES = (nodes.For, nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.With, nodes.AssignBlock)
# What a template may consist of. Blocks, imports and includes have no use without other templates.
_KINDS = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Break, nodes.Continue),
    *(nodes.If, nodes.Assign, nodes.Operand, nodes.Pair, nodes.Keyword, *_SCOPES),
    *(nodes.Name, nodes.NSRef, nodes.Const, nodes.Tuple, nodes.List, nodes.Dict, nodes.Slice),
    *(nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Call, nodes.Getitem, nodes.Getattr),
    *(nodes.Concat, nodes.Compare, nodes.BinExpr, nodes.UnaryExpr),
)


class _Rewriter(NodeTransformer):
    """Sends through the environment what jinja compiles to bare Python: `~`, displays, slices, comparisons, loops,
    operands from a list.

    Raises SecurityError for a node that no chat template needs.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._scopes = 0

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        self._meter.spend()
        if not isinstance(node, _KINDS):
            raise SecurityError(f"it uses {type(node).__name__.lower()}, which chat templates do not need")
        self._scopes += isinstance(node, _SCOPES)
        if self._scopes > _MAX_SCOPES:
            raise LimitExceeded(f"it nests more than {_MAX_SCOPES} loops and macros")
        try:
            return super().visit(node, *args, **kwargs)
        finally:
            self._scopes -= isinstance(node, _SCOPES)

    def _through(self, name: str, node: nodes.Node, *arguments: Any) -> nodes.Call:
        function = nodes.EnvironmentAttribute(name)
        call = nodes.Call(function, list(arguments), [], None, None)
        call.set_lineno(node.lineno)
        return call

    def visit_Concat(self, node: nodes.Concat) -> nodes.Call:
        self.generic_visit(node)
        return self._through("join_texts", node, *node.nodes)

    def _visit_display(self, node: nodes.Tuple | nodes.List | nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return node if isinstance(node, nodes.Tuple) and node.ctx != "load" else self._through("group", node, node)

    visit_List = visit_Dict = visit_Tuple = _visit_display

    def _visit_call(self, node: nodes.Call | nodes.Filter | nodes.Test) -> nodes.Node:
        self.generic_visit(node)
        if node.dyn_args is not None:
            node.dyn_args = self._through("spread", node, node.dyn_args)
        return node

    visit_Call = visit_Filter = visit_Test = _visit_call

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        bounds = (node.arg.start, node.arg.stop, node.arg.step)
        return self._through("cut", node, node.node, *(bound or nodes.Const(None) for bound in bounds))

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        chain = (p for operand in node.ops for p in (nodes.Const(operand.op), operand.expr))
        return self._through("compare", node, node.expr, *chain)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = self._through("steps", node, node.iter)
        return node


class _Code(CodeGenerator):
    """Writes a template as Python; CPython's compiler then takes time and memory for each character."""

    _written = 0

    def write(self, x: str) -> None:
        self._written += len(x)
        if self._written > MAX_CODE:
            raise LimitExceeded(f"it makes more than {MAX_CODE} characters of code")
        super().write(x)

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        assert isinstance(self.environment, Sandbox)
        self.environment.meter.spend()
        return super().visit(node, *args, **kwargs)


class _Tokens(Extension):
    """Counts the tokens of the source while they are read."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        assert isinstance(self.environment, Sandbox)
        for number, token in enumerate(stream):
            if number >= MAX_TOKENS:
                raise LimitExceeded(f"it has more than {MAX_TOKENS} tokens")
            self.environment.meter.spend()
            yield token


class _GenerationBlock(Extension):
    """`{% generation %}...{% endgeneration %}` marks what a trainer learns from; here its body alone counts."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Function:
    """A function that templates call by its name. Only `Sandbox.call` runs it."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation

    def __call__(self) -> None:
        """Only to be callable, as templates ask."""
        raise SecurityError("it calls a function outside of the sandbox")


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of one template. Call `start` before each rendering; not for two threads at once.

    White space and loop controls are as `transformers` sets them for chat templates.
    """

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "**", "%"))
    intercepted_unops = frozenset(("+", "-"))
    code_generator_class = _Code

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[LoopControlExtension, _GenerationBlock, _Tokens],
            optimized=False,  # nothing is computed while the template compiles
            finalize=_shown,
            cache_size=0,
        )
        self.meter = Meter()
        self.filters = {name: _performed(operation) for name, operation in FILTERS.items()}
        self.tests = {name: _performed(operation) for name, operation in TESTS.items()}
        self.globals = {name: _Function(operation) for name, operation in GLOBALS.items()}

    def start(self, stop: Stop | None = None) -> None:
        self.meter = Meter(stop)

    # Called by the rewritten template.

    def join_texts(self, context: Context, *values: Any) -> str:
        return self.concat(map(self.meter.text, values))

    def group(self, context: Context, value: Any) -> Any:
        return self.meter.owns(self.meter.made(value, all_new=False))

    def spread(self, context: Context, values: Any) -> Any:
        """The operands of `f(*values)`."""
        items = self.meter.items(values)
        self.meter.spend(STEP * len(items))
        return items

    def cut(self, context: Context, value: Any, *bounds: Any) -> Any:
        part = slice(*bounds)
        if isinstance(value, (str, list, tuple, range)):
            self.meter.spend(STEP + len(range(len(value))[part]) * (1 if isinstance(value, str) else 16))
        elif not isinstance(value, Undefined):
            raise SecurityError(f"it takes a part of a {type(value).__name__}")
        return self.meter.made(value[part], all_new=False)

    def compare(self, context: Context, left: Any, *chain: Any) -> Any:
        """`chain`: operators and operands in turn."""
        result: Any = True
        for name, right in zip(chain[::2], chain[1::2], strict=True):
            result = OPERATORS[name].perform(context, left, right)
            if not result:
                return result
            left = right
        return result

    def steps(self, context: Context, items: Any) -> Steps:
        return Steps(self.meter, items)

    def concat(self, pieces: Iterable[str]) -> str:
        """jinja joins every buffer with this: the whole output, a macro's, a block's."""
        parts, size = [], 0
        for piece in pieces:
            size += len(piece)
            self.meter.spend(STEP + len(piece))
            self.meter.room_for(size)
            parts.append(piece)
        return str(self.meter.made("".join(parts)))

    # Called by jinja's compiled code.

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _Rewriter(self.meter).visit(tree)
        return tree

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, names in METHODS.items():
            if isinstance(obj, kind):
                return attr in names or attr in getattr(kind is tuple and type(obj), "_fields", ())
        return isinstance(obj, _OWN_KINDS) and super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        raise SecurityError(f"it asks for {attribute[:100]!r} of a {type(obj).__name__}")

    def wrap_str_format(self, value: Any) -> None:
        """`call` runs `str.format`, like any other method."""

    def getitem(self, obj: Any, argument: Any) -> Any:
        self.meter.spend(STEP + self.meter.size(argument).walk)
        return super().getitem(obj, argument)

    def getattr(self, obj: Any, attribute: str) -> Any:
        self.meter.spend(STEP + len(attribute))
        return super().getattr(obj, attribute)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        return OPERATORS[operator].perform(context, left, right)

    def call_unop(self, context: Context, operator: str, arg: Any) -> Any:
        return OPERATORS["neg" if operator == "-" else "pos"].perform(context, arg)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.meter.spend(STEP * (1 + len(args) + len(kwargs)))
        owner = getattr(function, "__self__", None)
        if owner is self:  # join_texts, group and the like pay themselves; jinja adds keywords for its own use
            return function(context, *args)
        if isinstance(function, _Function):
            return function.operation.perform(context, *args, **_given(kwargs))
        method = _method(owner, getattr(function, "__name__", ""))
        if method is not None:
            return method.perform(context, owner, *args, **_given(kwargs))
        if isinstance(function, LoopContext) and args:
            args = (Steps(self.meter, args[0]), *args[1:])
        elif isinstance(owner, LoopContext):  # `loop.changed` compares all of its arguments
            self.meter.spend(sum(self.meter.size(value).walk for value in args))
        elif not isinstance(function, (Macro, Joiner, Undefined)) and not isinstance(owner, Cycler):
            raise SecurityError(f"it calls a {type(function).__name__}")
        return super().call(context, function, *args, **kwargs)


def _method(owner: Any, name: str) -> Operation | None:
    """The operation of a method of `owner`, if it has one of that name."""
    return next((methods.get(name) for kind, methods in METHODS.items() if isinstance(owner, kind)), None)


def _given(named: dict[str, Any]) -> dict[str, Any]:
    """The keywords of a call. jinja adds some for its own functions, and they are left out."""
    return {name: value for name, value in named.items() if name not in ("_loop_vars", "_block_vars")}


def _performed(operation: Operation) -> Callable[..., Any]:
    """A filter or a test, as jinja calls it."""

    @pass_context
    def performed(context: Context, /, *operands: Any, **named: Any) -> Any:
        return operation.perform(context, *operands, **named)

    return performed


@pass_context
def _shown(context: Context, value: Any) -> Any:
    """Every `{{ value }}`. Wanting the context keeps jinja from computing it while the template compiles."""
    environment = context.environment
    assert isinstance(environment, Sandbox)
    return environment.meter.text(value)
