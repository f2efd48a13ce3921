"""The problems of a tree of thoughts: any question (`Generic`), or one that code can check: the Game of 24, Sudoku."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import prompts
from runtime.base.types import Completion
from runtime.strategies import game24, sudoku
from runtime.strategies.game24 import Term
from runtime.strategies.sudoku import Board

# How candidates are made; "paper": as the paper does for the task.
Generate = Literal["paper", "propose", "sample"]

_BULLET = re.compile(r"^(?:[-*•]|\(?\d{1,3}[.):])\s+")
_PROPOSED = 5  # asked for
_MOST_PROPOSED = 50  # read
_VALUES = {"sure": 20.0, "likely": 1.0, "impossible": 0.001}
_WORD = re.compile(r"\b(sure|likely|impossible)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class State:
    """The thoughts so far; `terms` are the numbers left in the Game of 24, `board` is that of a Sudoku. `completion`
    brought the last of them."""

    thoughts: tuple[str, ...] = ()
    terms: tuple[Term, ...] = ()
    completion: Completion | None = None
    board: Board | None = None

    @property
    def key(self) -> str:
        """Equal for states that mean the same."""
        if self.board is not None:
            return str(self.board)
        return game24.shown(self.terms) if self.terms else " ".join(" ".join(self.thoughts).lower().split())

    @property
    def text(self) -> str:
        return "\n".join(self.thoughts) or "(none)"


class Problem(Protocol):
    """Prompts for a state, and the states that a reply leads to."""

    def start(self) -> State: ...
    def ask(self, state: State, generate: Generate, *, last: bool) -> str: ...
    def grown(self, state: State, reply: Completion, generate: Generate, *, last: bool) -> list[State]: ...
    def ask_value(self, state: State) -> str: ...
    def known_value(self, state: State) -> float | None:
        """The value of a state that needs no judge; 0 for a dead end."""
        ...

    def depth(self, steps: int) -> int:
        """How many steps lead to the end, where the user asks for so many."""
        ...

    def solved(self, state: State) -> bool | None:
        """Whether code finds that a state solves the problem; None where code cannot tell."""
        ...


@dataclass(frozen=True, slots=True)
class Generic:
    """All steps but the last are thoughts; the last is the answer."""

    question: str

    def start(self) -> State:
        return State()

    def ask(self, state: State, generate: Generate, *, last: bool) -> str:
        if last and not state.thoughts:
            return self.question
        template = prompts.read("tree-answer" if last else f"tree-{generate}")
        return template.format(question=self.question, steps=state.text, n=_PROPOSED)

    def grown(self, state: State, reply: Completion, generate: Generate, *, last: bool) -> list[State]:
        text = reply.answer.strip()
        found = lines_of(text) if generate == "propose" and not last else [text] if text else []
        return [State((*state.thoughts, each), (), reply) for each in found]

    def ask_value(self, state: State) -> str:
        return prompts.read("tree-value").format(question=self.question, steps=state.text)

    def known_value(self, state: State) -> float | None:
        return None

    def depth(self, steps: int) -> int:
        return steps

    def solved(self, state: State) -> bool | None:
        return None


@dataclass(frozen=True, slots=True)
class Game24:
    """Three steps `a op b = c (left: ...)`. A step that is wrong in any part leads nowhere."""

    question: str

    def start(self) -> State:
        return State(terms=game24.start(self.question))

    def ask(self, state: State, generate: Generate, *, last: bool) -> str:
        return prompts.read("game24-propose").format(numbers=game24.shown(state.terms))

    def grown(self, state: State, reply: Completion, generate: Generate, *, last: bool) -> list[State]:
        found = []
        for line in lines_of(reply.answer):
            terms = game24.after(line, state.terms)
            if terms is not None:
                found.append(State((*state.thoughts, line), terms, reply))
        return [with_solution(each) for each in (found[:1] if generate == "sample" else found)]

    def ask_value(self, state: State) -> str:
        return prompts.read("game24-value").format(numbers=game24.shown(state.terms))

    def known_value(self, state: State) -> float | None:
        if len(state.terms) > 1:
            return None
        return _VALUES["sure"] if game24.solution(state.terms) else 0.0

    def depth(self, steps: int) -> int:
        return 3

    def solved(self, state: State) -> bool | None:
        return game24.solution(state.terms) is not None


@dataclass(frozen=True, slots=True)
class Sudoku:
    """A step fills one cell. One that breaks a rule leads nowhere, and so does a board with a cell without a digit."""

    question: str

    def start(self) -> State:
        return State(board=sudoku.read(self.question))

    def ask(self, state: State, generate: Generate, *, last: bool) -> str:
        board = self._board(state)
        high, wide = board.box
        return prompts.read("sudoku-propose").format(size=board.size, high=high, wide=wide, board=board)

    def grown(self, state: State, reply: Completion, generate: Generate, *, last: bool) -> list[State]:
        found = []
        for cell, digit in sudoku.steps(reply.answer, self._board(state)):
            board = self._board(state).filled(cell, digit)
            row, column = divmod(cell, board.size)
            thought = f"row {row + 1}, column {column + 1} = {digit}"
            found.append(State((*state.thoughts, thought), (), replace(reply, answer=str(board)), board))
        return found

    def ask_value(self, state: State) -> str:
        return self.ask(state, "propose", last=False)

    def known_value(self, state: State) -> float | None:
        """A board that fills the fewest options is the surest; a dead one is worth nothing."""
        board = self._board(state)
        if board.dead:
            return 0.0
        return 1.0 / (1 + sum(len(board.options(cell)) for cell in board.empty))

    def depth(self, steps: int) -> int:
        return len(self._board(self.start()).empty)

    def solved(self, state: State) -> bool | None:
        return self._board(state).solved

    @staticmethod
    def _board(state: State) -> Board:
        assert state.board is not None
        return state.board


def with_solution(state: State) -> State:
    """At its goal, the state's reply is the expression that the steps make."""
    expression = game24.solution(state.terms)
    if expression is None or state.completion is None:
        return state
    answer = "\n".join((*state.thoughts, f"Answer: {expression} = 24"))
    return replace(state, completion=replace(state.completion, answer=answer))


def lines_of(text: str) -> list[str]:
    """One thought per line, without bullets and numbers."""
    found = [_BULLET.sub("", line.strip()) for line in text.splitlines()]
    return [line for line in found if line][:_MOST_PROPOSED]


def value_of(reply: str) -> float | None:
    """The value of a judge's last word, as in the published code; None for a reply without one of the three words."""
    for line in reversed(reply.splitlines()):
        if found := _WORD.findall(line):
            return _VALUES[found[-1].lower()]
    return None


def choice_of(reply: str, choices: int) -> int | None:
    """The index of the choice voted for, counted from 0; the number may have several digits."""
    named = re.findall(r"best\s+choice\s+is\D{0,12}(\d{1,6})", reply, re.IGNORECASE)
    if not named and (lines := [line for line in reply.splitlines() if line.strip()]):
        named = re.findall(r"\d{1,6}", lines[-1])
    return int(named[-1]) - 1 if named and 1 <= int(named[-1]) <= choices else None


def vote_prompt(question: str, states: Sequence[State]) -> str:
    choices = "\n\n".join(f"Choice {number}:\n{state.thoughts[-1]}" for number, state in enumerate(states, 1))
    return prompts.read("tree-vote").format(question=question, choices=choices)
