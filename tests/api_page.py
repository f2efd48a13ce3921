"""The page docs/reference/api.md: every name of `dsr.api` with its arguments and its docstring.

`python tests/reference.py` writes it.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dsr import api

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "api.md"
_HEAD = """# The Python interface

Every name of `dsr.api`, from the code. [The guide](../guides/python.md) has examples.
Errors are explained by their [exit codes](exit-codes.md).
"""


def page() -> str:
    """The whole page."""
    ours = [name for name in api.__all__ if not is_error(name)]
    ordered = sorted(ours, key=lambda name: (name != "load", name != "Model", name))
    errors = ", ".join(f"`{name}`" for name in api.__all__ if is_error(name))
    parts = [_HEAD, *("\n".join(_section(name)) for name in ordered), f"## Errors\n\n{errors}\n"]
    return "\n".join(parts)


def is_error(name: str) -> bool:
    """Whether a name of `dsr.api` is an exception."""
    value = getattr(api, name)
    return inspect.isclass(value) and issubclass(value, Exception)


def _section(name: str) -> Iterator[str]:
    value = getattr(api, name)
    yield f"## {name}\n"
    if not inspect.isclass(value) and not inspect.isfunction(value):
        yield f"`{name} = str | Sequence[Message]`: one question, or a conversation that ends with one.\n"
        return
    tree = ast.parse(inspect.getsource(value)).body[0]
    if isinstance(tree, ast.FunctionDef):
        yield from _function(tree, name)
        return
    assert isinstance(tree, ast.ClassDef)
    yield f"{ast.get_docstring(tree)}\n"
    fields = [node for node in tree.body if isinstance(node, ast.AnnAssign)]
    yield from (f"    {ast.unparse(each)}" for each in fields)
    if fields:
        yield ""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not _is_variant(node):
            yield from _function(node, f"{name}.{node.name}")


def _is_variant(node: ast.FunctionDef) -> bool:
    """Whether it is made by others, or one of several signatures of a function that has its own."""
    return bool({"overload", "classmethod"} & {ast.unparse(each) for each in node.decorator_list})


def _function(node: ast.FunctionDef, name: str) -> Iterator[str]:
    if any(ast.unparse(each) == "property" for each in node.decorator_list):
        yield f"    {name}: {ast.unparse(node.returns) if node.returns else 'Any'}\n"
    else:
        arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("self")
        yield f"    {name}({arguments}) -> {ast.unparse(node.returns) if node.returns else 'None'}\n"
    documented: Any = ast.get_docstring(node)
    yield f"{documented}\n"
