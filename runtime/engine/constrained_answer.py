"""Holds the answer of one reply to a grammar. The thought before it is free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runtime.engine.backend import Constraint
from runtime.engine.markers import ThinkingMarkers


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The tokens that may come before an answer without being part of it.

    A reply may begin with `opening`, the mark that opens a thought; empty if it must not. Before it, or before the
    answer, the tokens of one of the texts `before` may come in their order. Those of `between` may stand between the
    mark that ends a thought and the answer.
    """

    opening: tuple[int, ...] = ()
    before: tuple[tuple[int, ...], ...] = ()
    between: tuple[int, ...] = ()


def surroundings(
    markers: ThinkingMarkers | None,
    may_open: bool,
    tokenize: Callable[[str], Sequence[int]],
    piece: Callable[[int], bytes],
) -> Surroundings:
    """`may_open`: the reply may begin with a thought.

    White space belongs to them where the vocabulary has it in tokens of its own. In formats with channels, headers
    surround the answer instead.
    """
    if markers is None or markers.header is not None:
        return Surroundings()

    def last(text: str, of: str) -> tuple[int, ...]:
        """The last tokens of a text, which spell the end `of` it."""
        tokens = tuple(tokenize(text))
        spelled = [b"".join(map(piece, tokens[begin:])).decode("utf-8", "replace") for begin in range(len(tokens))]
        return tokens[spelled.index(of) :] if of in spelled else ()

    between = last(markers.forced_close, markers.after + markers.answer_open)
    if not may_open:
        return Surroundings(between=between)
    opening = tuple(tokenize(markers.open))
    led = tuple(tokenize(markers.lead + markers.open))
    lead = led[: -len(opening)] if markers.lead and led[-len(opening) :] == opening else ()
    answer_open = last(markers.forced_close, markers.answer_open) if markers.answer_open else ()
    return Surroundings(opening, tuple(path for path in (lead, answer_open) if path), between)


class ConstrainedAnswer:
    """Where a reply stands between its thought and the end of its grammar.

    Until the answer has `begun`, tokens of the surroundings may come, one after another in their order. A token that
    the grammar allows, too, belongs to the answer.
    """

    __slots__ = ("_between", "_opening", "_paths", "begun", "constraint")

    def __init__(self, constraint: Constraint, around: Surroundings) -> None:
        self.constraint = constraint
        self.begun = False
        self._opening, self._paths, self._between = around.opening, around.before, around.between

    @property
    def also(self) -> tuple[int, ...]:
        """The tokens that may come although they are not of the grammar."""
        return () if self.begun else (*self._opening[:1], *(path[0] for path in self._paths if path))

    def take(self, token: int) -> bool:
        """Whether the token is part of the answer."""
        if self.begun or self.constraint.permits(token):
            self.begun = True
            self.constraint.accept(token)
            return True
        self._paths = tuple(path[1:] for path in self._paths if path[:1] == (token,))
        return False

    def opens_with(self, token: int) -> tuple[int, ...]:
        """The rest of the mark that opens a thought, if a token that is no part of the answer begins it."""
        return self._opening[1:] if self._opening[:1] == (token,) else ()

    def thought_ended(self, *, by_force: bool) -> None:
        """`by_force`: what stands between thought and answer is written already."""
        self._opening = ()
        self._paths = () if by_force else (self._between,)
