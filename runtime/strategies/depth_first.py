"""Tree of Thoughts, depth first with backtracking (arXiv 2305.10601, section 4.3; the controller of arXiv 2305.08291).

From a state the candidates are generated and valued. The best `children` are tried, the best first; one that leads
nowhere is remembered, and never tried again on another path. At most `visits` states are visited. A state is a dead end
if code finds so, if a judge finds it impossible, or if nothing new grows from it. A solution is what code or the user's
`check` accepts; where neither can tell, the first path to an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

from runtime.base.events import Event
from runtime.base.types import Completion
from runtime.strategies.stages import Stages
from runtime.strategies.task import Task
from runtime.strategies.thoughts import Generate, Problem, State

# The value of each candidate. One that judges found impossible is a dead end; 0 is that of one they said nothing about.
Evaluate = Callable[[Sequence[State], str], Generator[Event, None, list[float]]]
# Whether an answer passes; None where nothing can tell.
Accepts = Callable[[State], bool | None]

_IMPOSSIBLE = 0.01


@dataclass(slots=True)
class Search:
    """The state of one search. `failed`: keys of states that led nowhere. `leaves`: answers that were not accepted."""

    task: Task
    problem: Problem
    stages: Stages
    evaluate: Evaluate
    accepts: Accepts
    generate: Generate
    depth: int
    n_generate: int
    children: int
    visits: int
    visited: int = 0
    backtracked: int = 0
    failed: set[str] = field(default_factory=set)
    leaves: list[State] = field(default_factory=list)
    replies: list[Completion] = field(default_factory=list)

    def run(self) -> Generator[Event, None, State | None]:
        """The solution, or None."""
        return (yield from self._visit(self.problem.start(), 0))

    def _visit(self, state: State, depth: int) -> Generator[Event, None, State | None]:
        """Look for a solution behind this state."""
        last = depth + 1 == self.depth
        candidates = yield from self._candidates(state, depth + 1, last=last)
        for child in candidates[: self.children]:
            if self.stages.stopped or self.visited >= self.visits:
                return None
            self.visited += 1
            if child.key in self.failed:
                continue
            accepted = self.accepts(child) if last or self.problem.solved(child) else False
            if accepted or (last and accepted is None):
                return child
            if not last:
                found = yield from self._visit(child, depth + 1)
                if found is not None or self.stages.stopped:
                    return found
            else:
                self.leaves.append(child)
            self.failed.add(child.key)
            self.backtracked += 1
        return None

    def _candidates(self, state: State, step: int, *, last: bool) -> Generator[Event, None, list[State]]:
        """What grows from a state, the best first, without dead ends."""
        question = self.problem.ask(state, self.generate, last=last)
        asked = [self.task.request(question=question)] * self.n_generate
        note = f"step {step}, state {self.visited}: {'answering' if last else 'thinking ahead'}"
        self.replies = yield from self.stages.draw(asked, note)
        grown: dict[str, State] = {}
        for reply in self.replies:
            if reply.finish_reason != "cancelled":
                for each in self.problem.grown(state, reply, self.generate, last=last):
                    grown.setdefault(each.key, each)
        fresh = [each for key, each in grown.items() if key not in self.failed]
        if not fresh or self.stages.stopped:
            return fresh
        values = yield from self.evaluate(fresh, f"step {step}: judging")
        for each, value in zip(fresh, values, strict=True):
            if 0 < value <= _IMPOSSIBLE or self.problem.known_value(each) == 0.0:
                self.failed.add(each.key)
        order = sorted(range(len(fresh)), key=lambda index: -values[index])
        return [fresh[index] for index in order if fresh[index].key not in self.failed]
