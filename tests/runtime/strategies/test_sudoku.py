"""Sudoku boards: what is read, what breaks a rule, what a reply proposes."""

from __future__ import annotations

import pytest

from runtime.base.errors import UsageError
from runtime.strategies import sudoku
from runtime.strategies.sudoku import Board

FOUR = """Solve this Mini Sudoku:
_ 3 4 _
4 _ _ 3
_ 4 3 1
3 1 2 _
Fill in the empty cells."""


def test_a_board_is_read_from_a_question() -> None:
    board = sudoku.read(FOUR)
    assert board == Board(4, (0, 3, 4, 0, 4, 0, 0, 3, 0, 4, 3, 1, 3, 1, 2, 0))
    assert str(board).splitlines()[0] == "_ 3 4 _"
    assert board.empty == [0, 3, 5, 6, 8, 15]
    assert sudoku.read("1 . 3 4\n3 4 1 .\n. 1 4 3\n4 3 . 1").cells[1] == 0


def test_digits_that_break_no_rule_are_the_options_of_a_cell() -> None:
    board = sudoku.read(FOUR)
    assert board.options(0) == {1, 2}
    assert board.options(15) == {4}
    assert not board.dead and board.valid and not board.solved
    assert board.filled(0, 1).filled(3, 1).valid is False
    assert Board(4, (1, 2, 3, 0, 0, 0, 0, 4) + (0,) * 8).dead


def test_a_full_valid_board_is_solved() -> None:
    assert Board(4, (1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1)).solved


def test_proposals_that_break_a_rule_are_left_out() -> None:
    board = sudoku.read(FOUR)
    reply = "Row 1, column 1 = 3\nrow 1, column 1 = 2\nr4c4: 4\nrow 1, column 2 = 1\nrow 9, column 1 = 1\nr4c4=4"
    assert sudoku.steps(reply, board) == [(0, 2), (15, 4)]


@pytest.mark.parametrize("question", ["", "1 2 3", "1 1 3 4\n_ _ _ _\n_ _ _ _\n_ _ _ _"])
def test_what_is_no_board_is_refused(question: str) -> None:
    with pytest.raises(UsageError):
        sudoku.read(question)
