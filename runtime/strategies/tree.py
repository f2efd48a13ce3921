"""Tree of Thoughts, breadth first (arXiv 2305.10601; github.com/princeton-nlp/tree-of-thought-llm).

    for each step:  from every state kept, generate candidates: `propose` asks for several, one per line; `sample`
                    draws `n_generate` replies, each a candidate
                    evaluate them: `value` judges each `n_evaluate` times (sure 20, likely 1, impossible 0.001, summed);
                    `vote` asks `n_evaluate` times for the best of all
                    keep the `keep` best

`task=generic`, by default, is the paper's creative writing for any question: a plan is sampled 5 times and voted on 5
times, then the answer is written 5 times and voted on. `task=game24`: propose and value, 3 judges, 5 states kept, for
four numbers; 0 stands for these defaults. The paper reports for GPT-4 in the Game of 24 74 % against 4 % for chain of
thought.

A state met twice in a step counts once (the published code gives the second the value 0); prompts that were judged
before are not judged again. Replies are read after their thought. Ours: in the Game of 24 each step is checked by code,
and the last one, writing the expression, is done by code, since checked steps leave no choice; sampling is the user's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from runtime.base.errors import UsageError
from runtime.base.events import Event
from runtime.base.types import Completion, counted
from runtime.strategies import game24
from runtime.strategies.stages import Stages
from runtime.strategies.task import Task
from runtime.strategies.thoughts import Game24, Generate, Generic, Problem, State, choice_of, value_of, vote_prompt
from runtime.strategies.verdict import Sample, Verdict


@dataclass(frozen=True, slots=True)
class TreeSettings:
    """`steps`: depth. `keep`: the paper's b. 0 and "paper" stand for the values of the paper for the task."""

    task: Literal["generic", "game24"] = "generic"
    generate: Generate = "paper"
    evaluate: Literal["paper", "value", "vote"] = "paper"
    steps: int = 0
    keep: int = 0
    n_generate: int = 0
    n_evaluate: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "keep", "n_generate", "n_evaluate"):
            if not 0 <= getattr(self, name) <= 100:
                raise UsageError(f"tree: {name} must be between 0 and 100, not {getattr(self, name)}")
        if self.task == "game24" and self.steps not in (0, 3):
            raise UsageError("four numbers become one in 3 steps: the Game of 24 has no other depth")


def with_paper_values(settings: TreeSettings) -> TreeSettings:
    """The settings with the values of the paper in place of 0 and "paper"."""
    if settings.task == "game24":
        paper = TreeSettings("game24", "propose", "value", 3, 5, 1, 3)
    else:
        paper = TreeSettings("generic", "sample", "vote", 2, 1, 5, 5)
    generate = paper.generate if settings.generate == "paper" else settings.generate
    # One sample would be no choice, while one proposal is a list.
    n_generate = paper.n_generate if generate == paper.generate else 5 if generate == "sample" else 1
    return TreeSettings(
        settings.task,
        generate,
        paper.evaluate if settings.evaluate == "paper" else settings.evaluate,
        settings.steps or paper.steps,
        settings.keep or paper.keep,
        settings.n_generate or n_generate,
        settings.n_evaluate or paper.n_evaluate,
    )


def run(task: Task, settings: TreeSettings) -> Generator[Event, None, Verdict]:
    settings = with_paper_values(settings)
    is_game = settings.task == "game24"
    problem: Problem = Game24(task.question) if is_game else Generic(task.question)
    stages = Stages(task)
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


def judge(stages: Stages, states: Sequence[State], replies: Sequence[Completion], how: str) -> Verdict:
    """The first of the last states, which are sorted, is the answer; without one all replies abstain."""
    samples = [Sample.of(state.completion, 0.0) for state in states if state.completion is not None]
    if not samples:
        why = "stopped before an answer" if stages.stopped else "no path led to an answer"
        return stages.verdict("tree", [Sample(each, None) for each in replies], why, "path")
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
    return stages.verdict("tree", [Sample(each, None) for each in replies], rule, "path")


def _left(states: Sequence[State]) -> str:
    return counted(len(states), "path was left", "paths were left")
