"""Tree of Thoughts (arXiv 2305.10601; github.com/princeton-nlp/tree-of-thought-llm). Breadth first, `search=breadth`:

    for each step:  from every state kept, generate candidates: `propose` asks for several, one per line; `sample`
                    draws `n_generate` replies, each a candidate
                    evaluate them: `value` judges each `n_evaluate` times (sure 20, likely 1, impossible 0.001, summed);
                    `vote` asks `n_evaluate` times for the best of all
                    keep the `keep` best

Depth first with backtracking, `search=depth`: see `depth_first`. `task=sudoku` always searches so. `check` is a command
that accepts an answer (see `repeated_sampling`); with it a search goes on until an answer passes. `evaluate=likelihood`
asks the model whether a state can lead to a solution, and takes the probability of "Yes" without drawing.

`task=generic`, by default, is the paper's creative writing for any question: a plan is sampled 5 times and voted on 5
times, then the answer is written 5 times and voted on. `task=game24`: propose and value, 3 judges, 5 states kept, for
four numbers; 0 stands for these defaults. The paper reports for GPT-4 in the Game of 24 74 % against 4 % for chain of
thought.

A state met twice in a step counts once (the published code gives the second the value 0); prompts that were judged
before are not judged again. Replies are read after their thought. Ours: in the Game of 24 each step is checked by code,
and the last one, writing the expression, is done by code, since checked steps leave no choice; sampling is the user's.
A generic tree says so if a vote at its tokens was measured to be better.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import prompts
from runtime.base.errors import UsageError
from runtime.base.events import Event, Notice
from runtime.base.types import Completion, counted
from runtime.strategies import game24
from runtime.strategies.asked_choice import chances
from runtime.strategies.checker import Checker
from runtime.strategies.depth_first import Search
from runtime.strategies.measured import below_vote
from runtime.strategies.stages import Stages
from runtime.strategies.task import Task
from runtime.strategies.thoughts import (
    Game24,
    Generate,
    Generic,
    Problem,
    State,
    Sudoku,
    choice_of,
    value_of,
    vote_prompt,
)
from runtime.strategies.verdict import Sample, Verdict


@dataclass(frozen=True, slots=True)
class TreeSettings:
    """`steps`: depth. `keep`: the paper's b. 0 and "paper" stand for the values of the paper for the task.

    Of a search in depth: `children` of a state at most, `visits` of states in all (3 and 100 as the paper has for
    crosswords), `check`: a command that accepts an answer.
    """

    task: Literal["generic", "game24", "sudoku"] = "generic"
    generate: Generate = "paper"
    evaluate: Literal["paper", "value", "vote", "likelihood"] = "paper"
    steps: int = 0
    keep: int = 0
    n_generate: int = 0
    n_evaluate: int = 0
    search: Literal["breadth", "depth"] = "breadth"
    children: int = 3
    visits: int = 100
    check: str = ""

    def __post_init__(self) -> None:
        for name in ("steps", "keep", "n_generate", "n_evaluate"):
            if not 0 <= getattr(self, name) <= 100:
                raise UsageError(f"tree: {name} must be between 0 and 100, not {getattr(self, name)}")
        if not (1 <= self.children <= 100 and 1 <= self.visits <= 10_000):
            raise UsageError("tree: children is from 1 to 100, visits from 1 to 10000")
        if self.check and not self.in_depth:
            raise UsageError("tree: check needs a search that goes on", hint="--set search=depth")
        if self.task == "game24" and self.steps not in (0, 3):
            raise UsageError("four numbers become one in 3 steps: the Game of 24 has no other depth")

    @property
    def in_depth(self) -> bool:
        return self.search == "depth" or self.task == "sudoku"


def with_paper_values(settings: TreeSettings) -> TreeSettings:
    """The settings with the values of the paper in place of 0 and "paper"."""
    if settings.task == "sudoku":
        paper = TreeSettings("sudoku", "propose", "value", 1, 1, 1, 1)
    elif settings.task == "game24":
        paper = TreeSettings("game24", "propose", "value", 3, 5, 1, 3)
    else:
        paper = TreeSettings("generic", "sample", "vote", 2, 1, 5, 5)
    generate = paper.generate if settings.generate == "paper" else settings.generate
    # One sample would be no choice, while one proposal is a list.
    n_generate = paper.n_generate if generate == paper.generate else 5 if generate == "sample" else 1
    # In depth each state is judged alone: a vote would compare it with those of one parent only.
    evaluate = "value" if settings.in_depth and paper.evaluate == "vote" else paper.evaluate
    return replace(
        settings,
        generate=generate,
        evaluate=evaluate if settings.evaluate == "paper" else settings.evaluate,
        steps=settings.steps or paper.steps,
        keep=settings.keep or paper.keep,
        n_generate=settings.n_generate or n_generate,
        n_evaluate=settings.n_evaluate or paper.n_evaluate,
    )


def run(task: Task, settings: TreeSettings) -> Generator[Event, None, Verdict]:
    settings = with_paper_values(settings)
    is_game = settings.task == "game24"
    problem = _PROBLEMS[settings.task](task.question)
    if settings.task == "generic" and not settings.check and (warning := below_vote("tree")):
        yield Notice(f"tree: {warning}")
    stages = Stages(task)
    if settings.in_depth:
        return (yield from _in_depth(task, problem, settings, stages))
    judged: dict[str, float] = {}
    states, replies, judges = [problem.start()], [], 0
    for step in range(1, settings.steps + 1):
        last = step == settings.steps
        parents = [state for state in states for _ in range(settings.n_generate)]
        asked = [task.request(question=problem.ask(state, settings.generate, last=last)) for state in parents]
        replies = yield from stages.draw(asked, f"step {step}: {'answering' if last else 'thinking ahead'}")
        grown = [
            problem.grown(parent, reply, settings.generate, last=last)
            for parent, reply in zip(parents, replies, strict=True)
            if reply.finish_reason != "cancelled"
        ]
        candidates = distinct([state for each in grown for state in each])
        if not candidates and not (is_game or last or stages.stopped):
            continue  # nothing was thought; the answer can still be given
        values = [0.0] * len(candidates)
        if len(candidates) > 1 and not stages.stopped:
            values = yield from _evaluate(task, problem, settings, stages, candidates, judged, f"step {step}: judging")
            judges = step
        states = best(candidates, values, len(candidates) if last else settings.keep)
        if stages.stopped and not last:
            states = []
        if not states:
            break
    if is_game:
        return judge_game(stages, states, replies)
    return judge(
        stages, states, replies, "chosen by " + settings.evaluate if judges == settings.steps else "not judged"
    )


_PROBLEMS: dict[str, Callable[[str], Problem]] = {"generic": Generic, "game24": Game24, "sudoku": Sudoku}


def _in_depth(task: Task, problem: Problem, settings: TreeSettings, stages: Stages) -> Generator[Event, None, Verdict]:
    """Search in depth until an answer is accepted."""
    checker = Checker(settings.check) if settings.check else None
    if checker is not None:
        checker.check_exists()
    judged: dict[str, float] = {}

    def evaluate(states: Sequence[State], note: str) -> Generator[Event, None, list[float]]:
        return (yield from _evaluate(task, problem, settings, stages, states, judged, note))

    def accepts(state: State) -> bool | None:
        solved = problem.solved(state)
        if checker is None or solved is False or state.completion is None:
            return solved
        answer = Sample.of(state.completion).answer or ""
        variables = {"DSR_QUESTION": task.question, "DSR_ANSWER": answer}
        return checker.check(state.completion.answer, variables) == "passed"

    search = Search(
        task=task, problem=problem, stages=stages, evaluate=evaluate, accepts=accepts, generate=settings.generate,
        depth=problem.depth(settings.steps), n_generate=settings.n_generate, children=settings.children,
        visits=settings.visits,
    )  # fmt: skip
    found = yield from search.run()
    how = f"{counted(search.visited, 'state')} visited, {counted(search.backtracked, 'dead end')}"
    if found is not None and found.completion is not None:
        won = Sample.of(found.completion)
        won = replace(won, answer=won.answer or found.completion.answer.strip())
        sure = checker is not None or problem.solved(found)
        rule = f"{'a checked answer' if sure else 'the first path to an answer'}; {how}"
        return stages.verdict("tree", [won], rule, "path", found.completion)
    left = [each.completion for each in search.leaves if each.completion is not None] or search.replies
    why = "stopped before an answer" if stages.stopped else "no answer was accepted"
    return stages.verdict("tree", [Sample(each, None, 0.0) for each in left], f"{why}; {how}", "path")


def distinct(states: Sequence[State]) -> list[State]:
    """Each state once."""
    first: dict[str, State] = {}
    for state in states:
        first.setdefault(state.key, state)
    return list(first.values())


def best(states: Sequence[State], values: Sequence[float], keep: int) -> list[State]:
    """The `keep` of the highest value; of equal ones the first."""
    order = sorted(range(len(states)), key=lambda index: -values[index])
    return [states[index] for index in order[:keep]]


def _evaluate(
    task: Task,
    problem: Problem,
    settings: TreeSettings,
    stages: Stages,
    states: Sequence[State],
    judged: dict[str, float],
    note: str,
) -> Generator[Event, None, list[float]]:
    """A value per state. All that is to be judged goes to the engine together."""
    if settings.evaluate == "likelihood":
        return (yield from _likelihoods(task, problem, states))
    if settings.evaluate == "vote":
        request = task.request(question=vote_prompt(task.question, states))
        replies = yield from stages.draw([request] * settings.n_evaluate, note)
        votes = Counter(choice_of(reply.answer, len(states)) for reply in replies)
        return [float(votes[index]) for index in range(len(states))]
    known = [problem.known_value(state) for state in states]
    questions = {problem.ask_value(state) for state, value in zip(states, known, strict=True) if value is None}
    asked = [each for each in sorted(questions) if each not in judged for _ in range(settings.n_evaluate)]
    replies = yield from stages.draw([task.request(question=each) for each in asked], note)
    for each, reply in zip(asked, replies, strict=True):
        judged[each] = judged.get(each, 0.0) + (value_of(reply.answer) or 0.0)
    return [
        judged[problem.ask_value(state)] if value is None else value for state, value in zip(states, known, strict=True)
    ]


def _likelihoods(task: Task, problem: Problem, states: Sequence[State]) -> Generator[Event, None, list[float]]:
    """What code knows of a state, else how likely the model finds that it leads to a solution."""
    known = [problem.known_value(state) for state in states]
    asked = [
        prompts.read("tree-likely").format(question=task.question, steps=state.text)
        for state, value in zip(states, known, strict=True)
        if value is None
    ]
    found = iter((yield from chances(task, asked, ("Yes", "No"))) or [(0.0, 0.0)] * len(asked))
    return [next(found)[0] if value is None else value for value in known]


def judge(stages: Stages, states: Sequence[State], replies: Sequence[Completion], how: str) -> Verdict:
    """The first of the last states, which are sorted, is the answer; without one all replies abstain."""
    samples = [Sample.of(state.completion, 0.0) for state in states if state.completion is not None]
    if not samples:
        why = "stopped before an answer" if stages.stopped else "no path led to an answer"
        return stages.verdict("tree", [Sample(each, None, 0.0) for each in replies], why, "path")
    samples[0] = replace(samples[0], weight=1.0)
    if samples[0].answer is None:
        # The choice is a text; that no answer was found in it must not make another one the winner.
        samples = [replace(each, answer=None) for each in samples]
    rule = f"the best of {len(samples)} paths, {how}" if len(samples) > 1 else "the only path to an answer"
    return stages.verdict("tree", samples, rule, "path", samples[0].completion)


def judge_game(stages: Stages, states: Sequence[State], replies: Sequence[Completion]) -> Verdict:
    """An expression that code has checked, or none."""
    for state in states:
        expression = game24.solution(state.terms)
        if expression is not None and state.completion is not None:
            won = Sample(state.completion, expression)
            lost = [Sample(each, None) for each in replies if each.sample != state.completion.sample]
            rule = f"an expression that makes 24, checked; {_left(states)}"
            return stages.verdict("tree", [won, *lost], rule, "path", state.completion)
    rule = f"no path to 24; {_left(states)}"
    return stages.verdict("tree", [Sample(each, None, 0.0) for each in replies], rule, "path")


def _left(states: Sequence[State]) -> str:
    return counted(len(states), "path was left", "paths were left")
