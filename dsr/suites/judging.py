"""Judges each reply once, by the rule of its problem or by the suite's own judge."""

from __future__ import annotations

from dataclasses import dataclass, field

from dsr.suites import code, refusals
from dsr.suites.problem import Judgement, Suite, SuiteProblem


@dataclass(frozen=True, slots=True)
class Disagreement:
    """An answer that the suite's judge and dsr's own rule judge differently. `right`: by the suite's judge."""

    problem: str
    answer: str
    wanted: str
    right: bool

    def json(self) -> dict[str, str | bool]:
        return {"id": self.problem, "answer": self.answer, "wanted": self.wanted, "right": self.right}


@dataclass(slots=True)
class Judging:
    """A context manager. Remembers all judgements, because many strategies choose the same replies."""

    suite: Suite
    _made: dict[tuple[str, str], Judgement] = field(default_factory=dict)
    _disagreements: dict[tuple[str, str], Disagreement] = field(default_factory=dict)

    def __enter__(self) -> Judging:
        return self

    def __exit__(self, *_: object) -> None:
        if self.suite.judge is not None:
            self.suite.judge.close()

    @property
    def disagreements(self) -> tuple[Disagreement, ...]:
        return tuple(self._disagreements.values())

    @property
    def judged(self) -> int:
        """Returns the number of different replies, or of different answers to a problem."""
        return len(self._made)

    def is_right(self, problem: SuiteProblem, answer: str | None, reply: str) -> bool:
        """Returns whether a reply is right. `answer`: what it ends with. `reply`: all of it but the thought.

        Raises Incompatible where code must run and there is no sandbox.
        """
        if answer is None and not problem.by_reply:
            return False
        key = problem.id, reply if problem.by_reply else str(answer)
        if key not in self._made:
            made = self._made[key] = self._judge(problem, answer, reply)
            if made.ours is not None and made.ours != made.right:
                self._disagreements[key] = Disagreement(problem.id, str(answer), problem.answer, made.right)
        return self._made[key].right

    def _judge(self, problem: SuiteProblem, answer: str | None, reply: str) -> Judgement:
        if self.suite.judge is not None:
            return self.suite.judge.judge(problem, answer, reply)
        if problem.checker == "command":
            return Judgement(code.passes(problem, reply))
        if problem.checker == "refusal":
            return Judgement(refusals.is_as_wanted(reply, problem.answer))
        return Judgement(problem.is_solved_by(answer))
