"""A block of Markdown as lines for a terminal, by rich's renderer."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, HorizontalRule, ListItem, Markdown, MarkdownElement, TableElement
from rich.rule import Rule
from rich.segment import Segment
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.text import Text
from rich.theme import Theme

from dsr.ui.markdown.blocks import Block
from dsr.ui.markdown.formulas import formula_text, with_formulas
from dsr.ui.text import display_width, wrap_words

_NARROWEST = 10
# More columns than a person reads in a terminal; such a table stays as it is written.
_MOST_COLUMNS = 24
_LONGEST_WORD = 24  # of a table; a longer one may break inside
_BETWEEN = "  "  # two columns of a table
_INDENT = "  "  # of a formula on lines of its own

# The terminal's own colours, which its owner can read on its background.
_THEME = Theme(
    {
        "markdown.code": "cyan",
        "markdown.code_block": "none",
        "markdown.h1": "bold underline",
        "markdown.h2": "bold",
        "markdown.h3": "bold",
        "markdown.h4": "bold",
        "markdown.h5": "italic",
        "markdown.h6": "italic",
        "markdown.hr": "dim",
        "markdown.block_quote": "none",
        "markdown.item.bullet": "none",
        "markdown.item.number": "none",
        "markdown.link": "none",
        "markdown.link_url": "underline",
        "markdown.table.border": "dim",
        "markdown.table.header": "bold",
    }
)


def _code_theme() -> ANSISyntaxTheme:
    from pygments.token import Comment, Keyword, Name, Number, String

    styles: dict[Any, Style] = {
        Comment: Style(dim=True),
        Keyword: Style(color="magenta"),
        Name.Function: Style(color="blue"),
        Name.Class: Style(color="blue"),
        Name.Tag: Style(color="blue"),
        Number: Style(color="cyan"),
        String: Style(color="green"),
    }
    return ANSISyntaxTheme(styles)


# A parser leaves out what is nested deeper than its limit: such a block stays as it is written. A list nests twice.
_DEEPEST = 50
_TOO_DEEP = re.compile(rf"[\s>*+\-\d.)]{{{_DEEPEST}}}.")
_PARSER = (
    MarkdownIt("commonmark", {"html": False, "maxNesting": 2 * _DEEPEST})
    .enable("strikethrough")
    .enable("table")
    .disable("image")
)
_PARSER.disable(["html_block", "html_inline", "reference"])
_CODE_THEME = _code_theme()


class _Heading(Heading):
    LEVEL_ALIGN: ClassVar = {}


class _Code(CodeBlock):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _highlighted(str(self.text).rstrip(), self.lexer_name)


class _Rule(HorizontalRule):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Rule(style="markdown.hr", characters="─")


class _Item(ListItem):
    """An item with its number as it is written, and a hanging indent."""

    def render_number(self, console: Console, options: ConsoleOptions, number: int, last_number: int) -> RenderResult:
        mark = f"{number}. "
        lines = console.render_lines(self.elements, options.update(width=options.max_width - len(mark)), pad=False)
        for place, line in enumerate(lines):
            yield Segment(" " * len(mark) if place else mark)
            yield from line
            yield Segment("\n")

    def render_bullet(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self.elements, options.update(width=options.max_width - 2), pad=False)
        for place, line in enumerate(lines):
            yield Segment("  " if place else "• ")
            yield from line
            yield Segment("\n")


class _Table(TableElement):
    """A table whose words stay whole; where it is too narrow for that, each row becomes lines of 'column: cell'."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        head = [cell.content.copy() for cell in self.header.row.cells] if self.header and self.header.row else []
        rows = [[cell.content for cell in row.cells] for row in self.body.rows] if self.body else []
        for title in head:
            title.stylize("markdown.table.header")
        columns = [[each, *(row[number] for row in rows)] for number, each in enumerate(head)]
        least = [max(map(_longest_word, column)) for column in columns]
        widths = _fitting(least, [max(map(_width, column)) for column in columns], options.max_width)
        if widths is None:
            yield from _records(head, rows)
            return
        right = [title.justify == "right" for title in head]
        yield from _row(head, widths, right, console)
        yield Text(_BETWEEN.join("─" * width for width in widths), style="markdown.table.border")
        for row in rows:
            yield from _row(row, widths, right, console)


def _fitting(least: Sequence[int], widest: Sequence[int], room: int) -> list[int] | None:
    """The widths of the columns in `room`: as wide as their cells, else narrower; None if words would not fit."""
    room -= len(_BETWEEN) * (len(least) - 1)
    if sum(widest) <= room:
        return [*widest]
    widths = [min(_LONGEST_WORD, each) for each in least]
    left = room - sum(widths)
    if left < 0:
        return None
    for _ in range(left):  # the next column goes where the most text waits for it
        needy = max(range(len(widths)), key=lambda number: widest[number] / max(widths[number], 1))
        widths[needy] += 1
    return widths


def _row(cells: Sequence[Text], widths: Sequence[int], right: Sequence[bool], console: Console) -> Iterator[Text]:
    wrapped = [cell.wrap(console, width, overflow="fold") for cell, width in zip(cells, widths, strict=True)]
    for number in range(max(map(len, wrapped))):
        parts: list[Text | str] = []
        for lines, width, to_right in zip(wrapped, widths, right, strict=True):
            line = lines[number] if number < len(lines) else Text()
            line.rstrip()
            space = " " * (width - _width(line))
            parts += [space, line, _BETWEEN] if to_right else [line, space, _BETWEEN]
        yield Text.assemble(*parts[:-1])


def _records(head: Sequence[Text], rows: Sequence[Sequence[Text]]) -> Iterator[Text]:
    for number, row in enumerate(rows or [[Text() for _ in head]]):
        if number:
            yield Text()
        for title, cell in zip(head, row, strict=True):
            yield Text.assemble(title, ": " if title.plain else "", cell)


def _width(text: Text) -> int:
    return max(map(display_width, text.plain.split("\n")), default=0)


def _longest_word(text: Text) -> int:
    return max(map(display_width, text.plain.split()), default=1)


class _Markdown(Markdown):
    elements: ClassVar[dict[str, type[MarkdownElement]]] = Markdown.elements | {
        "heading_open": _Heading,
        "fence": _Code,
        "code_block": _Code,
        "hr": _Rule,
        "list_item_open": _Item,
        "table_open": _Table,
    }

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = _PARSER.parse(text)
        for token in self.parsed:
            for child in token.children or ():
                if child.type == "softbreak":  # a model breaks its lines on purpose
                    child.type = "hardbreak"


def _highlighted(code: str, language: str) -> Text:
    """The code in colours; without any for a language that is not known."""
    return Syntax("", language or "text", theme=_CODE_THEME).highlight(code)


class Renderer:
    """Renders blocks for a terminal of a width; `styled` False writes no escape codes at all."""

    def __init__(self, *, styled: bool) -> None:
        self._styled = styled

    def lines(self, block: Block, columns: int) -> list[str]:
        """The block in lines. Only lines of code and words may be wider than `columns`."""
        columns = max(columns, _NARROWEST)
        out = io.StringIO()
        console = Console(
            file=out,
            width=columns,
            height=1000,
            force_terminal=True,
            color_system="standard" if self._styled else None,
            no_color=not self._styled,
            legacy_windows=False,
            highlight=False,
            markup=False,
            emoji=False,
            theme=_THEME,
            _environ={},
        )
        if block.kind == "formula":
            return _formula_lines(block.text, columns)
        if block.kind != "code" and _keeps_its_form(block.text):
            return _as_written(block.text, columns)
        try:
            if block.kind == "code":
                return _code_lines(block, console, out)
            console.print(_Markdown(with_formulas(block.text)))
        except Exception:  # a parser or a lexer that fails must not end an answer: the reader gets the text
            return block.text.split("\n") if block.kind == "code" else _as_written(block.text, columns)
        return [_bare_end(line) for line in out.getvalue().strip("\n").split("\n")]


def _code_lines(block: Block, console: Console, out: io.StringIO) -> list[str]:
    """Whole lines, so that code can be copied: a terminal wraps them itself."""
    for line in _highlighted(block.text, block.language).split("\n", allow_blank=True):
        line.rstrip()
        console.print(line, soft_wrap=True, no_wrap=True, crop=False, overflow="ignore")
    lines = out.getvalue().split("\n")[:-1]
    return lines[:-1] if lines and not lines[-1] and not block.text.endswith("\n") else lines


def _as_written(text: str, columns: int) -> list[str]:
    return [line for each in text.split("\n") for line in wrap_words(each, columns) or [""]]


def _formula_lines(text: str, columns: int) -> list[str]:
    inner = text
    for opening, closing in (("$$", "$$"), ("\\[", "\\]")):
        if text.startswith(opening):
            inner, _, after = text[2:].partition(closing)
            lines = formula_text(inner).split("\n")
            if after.strip():
                lines[-1] += " " + after.strip()
            return [_INDENT + part for line in lines for part in wrap_words(line, columns - len(_INDENT)) or [""]]
    return [inner]


def _keeps_its_form(text: str) -> bool:
    """Whether the text has more columns or deeper nesting than a person reads."""
    lines = text.split("\n")
    return any(line.count("|") > _MOST_COLUMNS or _TOO_DEEP.match(line) for line in lines)


_END = re.compile(r"[ ]+((?:\x1b\[[\d;]*m)*)$")


def _bare_end(line: str) -> str:
    """The line without spaces at its end, which a person would copy with it."""
    return _END.sub(r"\1", line).rstrip(" ")
