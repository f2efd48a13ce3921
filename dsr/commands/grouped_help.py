"""The text of --help: options in groups, and lines that break between words at any width."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

_WIDEST = 80  # longer lines are hard to read
_NARROW = 60  # below, the explanation stands under the option and not beside it
_NARROWEST = 20
_FEWEST_GROUPS = 3  # fewer groups are one list
_OTHERS = "Options"
# The parser's formatter, which typer brings along under a private name.
_Formatter: Any = TyperCommand.context_class.formatter_class


class _WordFormatter(_Formatter):  # type: ignore[misc]
    """Breaks lines between words only, also where the words are options and paths."""

    def __init__(self, width: int | None) -> None:
        columns = width or min(shutil.get_terminal_size().columns, _WIDEST) - 2
        super().__init__(width=max(columns, _NARROWEST))

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        self.write(_filled(f"{prefix or 'Usage: '}{prog} {args}", self.width, "", " " * 4) + "\n")

    def write_text(self, text: str) -> None:
        indent = " " * self.current_indent
        parts = re.split(r"\n\s*\n", text)
        self.write("\n\n".join(_filled(part, self.width, indent, indent) for part in parts) + "\n")

    def write_dl(self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        indent = " " * self.current_indent
        if self.width < _NARROW:
            beside, column = 0, self.current_indent + 4
        else:
            beside = min(max((len(first) for first, _ in rows), default=0), col_max)
            column = self.current_indent + beside + col_spacing
        for first, second in rows:
            start = f"{indent}{first}"
            text = _filled(second, self.width, " " * column, " " * column) if second else ""
            if len(first) <= beside and text:
                text = start.ljust(column) + text[column:]
            else:
                text = _filled(first, self.width, indent, indent + "    ") + (f"\n{text}" if text else "")
            self.write(f"{text}\n")


def _filled(text: str, width: int, first: str, further: str) -> str:
    return textwrap.fill(
        " ".join(text.split()),
        width,
        initial_indent=first,
        subsequent_indent=further,
        break_long_words=False,
        break_on_hyphens=False,
    )


class _Grouped:
    """Help and usage with lines that break between words, and options by `rich_help_panel`, in the order of the first
    option of each group."""

    def get_help(self, ctx: Any) -> str:
        return _text_of(ctx, self.format_help)  # type: ignore[attr-defined]

    def get_usage(self, ctx: Any) -> str:
        return _text_of(ctx, self.format_usage)  # type: ignore[attr-defined]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_options(self, ctx, formatter)


class GroupedCommand(_Grouped, TyperCommand):
    """A command with this help."""


class GroupedGroup(_Grouped, TyperGroup):
    """A group of commands; each has its first sentence in the list."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [
            (name, _first_sentence(each.help or "")) for name, each in found if each is not None and not each.hidden
        ]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def _text_of(ctx: Any, write: Callable[[Any, Any], None]) -> str:
    formatter = _WordFormatter(ctx.terminal_width)
    write(ctx, formatter)
    return str(formatter.getvalue()).rstrip("\n")


def _write_options(command: Any, ctx: Any, formatter: Any) -> None:
    arguments: list[tuple[str, str]] = []
    groups: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        row = parameter.get_help_record(ctx)
        if row is None:
            continue
        if parameter.param_type_name == "argument":
            arguments.append(row)
        else:
            groups.setdefault(getattr(parameter, "rich_help_panel", None) or _OTHERS, []).append(row)
    if arguments:
        with formatter.section("Arguments"):
            formatter.write_dl(arguments)
    for name, rows in _few_as_one(groups).items():
        with formatter.section(name):
            formatter.write_dl(rows)


def _few_as_one(groups: dict[str, list[tuple[str, str]]]) -> dict[str, list[tuple[str, str]]]:
    """Few groups as one list. An option without a group, such as --help, joins the last one if it is alone."""
    if len(groups) <= _FEWEST_GROUPS:
        return {_OTHERS: [row for rows in groups.values() for row in rows]} if groups else {}
    if len(groups.get(_OTHERS, ())) == 1:
        alone = groups.pop(_OTHERS)
        groups[[*groups][-1]] += alone
    return groups


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s", " ".join(text.split("\n\n")[0].split()))[0]


def with_grouped_help(app: typer.Typer) -> None:
    """Gives every command below `app` this help, unless it has a class of its own."""
    _give(app.registered_commands, GroupedCommand)
    _give(app.registered_groups, GroupedGroup)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            with_grouped_help(group.typer_instance)


def _give(infos: Iterable[Any], kind: type) -> None:
    for info in infos:
        if not (isinstance(info.cls, type) and issubclass(info.cls, GroupedCommand | GroupedGroup)):
            info.cls = kind
