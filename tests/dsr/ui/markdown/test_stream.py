"""A streaming answer at a terminal: what the screen shows on the way and at the end."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsr.ui.markdown.stream import MarkdownStream, rendered
from tests.dsr.ui.markdown.emulator import Terminal

ANSWER = r"""# Sums

To **add**, do `x + 1`:

1. First \(x^2\), a text that is longer than one line of the screen
   - inner
2. Second

```python
def f(x):
    return x + 1
```

| Name | Value |
|------|------:|
| one  | 1 |
| two  | 22 |

\[ \boxed{\frac{1}{2}} \]

End: List<int> and \boxed{7}.
"""

SHOWN = """\
Sums

To add, do x + 1:

1. First x², a text that is longer than
   one line of the screen
   • inner
2. Second

def f(x):
    return x + 1

Name  Value
────  ─────
one       1
two      22

  [ 1/2 ]

End: List<int> and [ 7 ].
"""


class Screen:
    """A stream on a terminal, for which every drawing is due."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal, self._time = terminal, 0.0
        self._stream = MarkdownStream(lambda: (terminal.columns, terminal.rows), styled=False, now=lambda: self._time)

    def feed(self, text: str) -> str:
        self._time += 10
        out = self._stream.feed(text)
        self.terminal.write(out)
        return out

    def finish(self) -> None:
        self.terminal.write(self._stream.finish())


def play(text: str, terminal: Terminal, sizes: list[int]) -> None:
    screen, at = Screen(terminal), 0
    for size in itertools.cycle(sizes):
        if at >= len(text):
            break
        screen.feed(text[at : at + size])
        at += size
    screen.finish()


@pytest.mark.parametrize("rows", [5, 8, 24, 100])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_at_the_end_the_whole_answer_stands_there_once(rows: int, size: int) -> None:
    terminal = Terminal(40, rows)
    play(ANSWER, terminal, [size])
    assert "\n".join(terminal.text) == SHOWN


PIECES = (
    "some words ",
    "\n",
    "\n\n",
    "# ",
    "- ",
    "1. ",
    "`x`",
    "**b** ",
    "```\n",
    "| a | b |\n|---|---|\n",
    "| c d | e |\n",
    "$x^2$ ",
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), max_size=40).map("".join),
    st.lists(st.integers(1, 30), min_size=1),
    st.integers(4, 20),
)
def test_pieces_and_rows_do_not_change_what_stands_there_at_the_end(text: str, sizes: list[int], rows: int) -> None:
    terminal = Terminal(80, rows)
    play(text, terminal, sizes)
    shown = "\n".join(terminal.text)
    assert shown.split() == rendered(text, 80, styled=False).split()


def test_the_answer_is_seen_while_it_grows_and_marks_go_when_they_are_closed() -> None:
    terminal = Terminal(40, 10)
    screen = Screen(terminal)
    screen.feed("It is **bo")
    assert terminal.screen == ["It is **bo"]
    screen.feed("ld** now")
    assert terminal.screen == ["It is bold now"]


def test_only_the_last_rows_are_drawn_again() -> None:
    terminal = Terminal(40, 10)
    screen = Screen(terminal)
    screen.feed("one two\n\nthree")
    written = screen.feed(" four")
    assert "one" not in written
    assert "three four" in written


def test_a_block_taller_than_the_screen_scrolls_and_stays_whole() -> None:
    terminal = Terminal(40, 6)
    play("```\n" + "".join(f"line {number}\n" for number in range(30)) + "```\n", terminal, [11])
    assert terminal.text == [*(f"line {number}" for number in range(30)), ""]


def test_a_line_of_code_wider_than_the_screen_is_whole_at_the_end() -> None:
    terminal = Terminal(20, 6)
    play("```\n" + "abcdefghij" * 4 + "\n```\nend", terminal, [3])
    assert terminal.text == ["abcdefghij" * 2, "abcdefghij" * 2, "", "end", ""]


def test_a_drawing_waits_until_it_is_due_and_nothing_is_lost() -> None:
    terminal = Terminal(40, 10)
    screen = MarkdownStream(lambda: (40, 10), styled=False, now=lambda: 0.0)
    terminal.write(screen.feed("one"))
    assert screen.feed(" two") == ""
    terminal.write(screen.finish())
    assert terminal.screen == ["one two", ""]


def test_a_second_answer_begins_anew() -> None:
    terminal = Terminal(40, 10)
    screen = Screen(terminal)
    for text in ("```\none", "two"):
        screen.feed(text)
        screen.finish()
    assert terminal.screen == ["one", "two", ""]


def test_colours_are_codes_of_style_only() -> None:
    out = rendered("**a** `b`\n\n```python\nx = 1  # c\n```", 40, styled=True)
    assert "\x1b[1ma\x1b[0m" in out
    assert "\x1b[36mb\x1b[0m" in out


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (40, ["Ingredient           Amount", "───────────────  ──────────", "wholemeal flour  many grams"]),
        (21, ["Ingredient    Amount", "───────────  ───────", "wholemeal       many", "flour          grams"]),
        (14, ["Ingredient:", "wholemeal", "flour", "Amount: many", "grams"]),
    ],
)
def test_a_table_breaks_between_words_and_becomes_lines_where_it_cannot(columns: int, shown: list[str]) -> None:
    text = "| Ingredient | Amount |\n|---|--:|\n| wholemeal flour | many grams |\n"
    assert rendered(text, columns, styled=False).split("\n") == shown


@pytest.mark.parametrize("text", ["> " * 300 + "deep", "- " * 200 + "deep", "|" + "cell|" * 900 + "\n|" + "-|" * 900])
def test_what_a_parser_would_leave_out_stays_as_it_is_written(text: str) -> None:
    assert rendered(text, 80, styled=False).split() == text.split()
