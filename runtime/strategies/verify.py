"""Temporal consistency: check a solution in rounds, where each judge sees its own last judgement (arXiv 2503.14495).

1. One sample gives a solution, unless `solution` names a file that has one. Its steps are the paragraphs of thought and
   answer, or their lines. A thought that does not fit into the context is left out.
2. `verifiers` judges tell, independently, which step is the first wrong one, or that none is.
3. In each further round every judge sees the solution and its own last judgement, and judges again.
4. Stop when the majority has been the same for `stable` of those further rounds and its support did not shrink
   meanwhile, or after `rounds` of them; the first judging counts apart, as in the authors' code
   (github.com/jcguo123/Iterative-self-checking, code/generation/self_checking.py: 5 judges, 3 stable rounds, 10 at
   most). The paper reports on ProcessBench that R1-distilled models of 7B and 8B so beat 70B models.

The paper ends with the finding. Ours: when a step was found wrong, the model answers once more, told which step and
why; that answer counts if there is one. A judge that names no step abstains; a tie keeps the majority of the round
before, then trusts the solution, then names the earlier step. `most` bounds the cost: all tokens together are at most
those of so many samples as long as the solution, 24 by default: three votes of 8. Of these two are kept for the second
answer. A judge may take four times the length of the solution, so that one that never ends does not use up the others'.
A round that was stopped counts, if a judge of it had ended.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import prompts
from runtime.base.errors import DoesNotFit, UsageError
from runtime.base.events import Event, Notice
from runtime.base.texts import read_text
from runtime.base.types import Completion
from runtime.strategies.stages import Stages
from runtime.strategies.task import Task
from runtime.strategies.verdict import Sample, Verdict

# The number of the first wrong step; 0 for none.
Finding = int

_MOST_STEPS = 200
_REVISION = 2  # lengths of a solution that are kept for the second answer
_JUDGE, _LEAST_JUDGE = 4, 256  # a judge repeats each step and says something about it
_FINDING = re.compile(
    r"first\s+wrong\s+step\W{0,12}?(?:is\W{0,6}?)?(?:step\W{0,4}?)?(-1|none|no\b|\d{1,6})", re.IGNORECASE
)
_LAST_LINE = re.compile(
    r"\bstep\W{0,4}(\d{1,6})\b|\b(none|no error|no mistake|all (?:steps )?(?:are )?(?:right|correct))", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """Defaults of the authors. `most`: lengths of the solution in all, 0 for no limit. `solution`: a text file."""

    verifiers: int = 5
    stable: int = 3
    rounds: int = 10
    most: int = 24
    solution: str = ""

    def __post_init__(self) -> None:
        if self.solution and not read_text(Path(self.solution)).strip():
            raise UsageError(f"{self.solution} has no text, so there is no solution to check")
        if not (self.most == 0 or 4 <= self.most <= 10_000):
            raise UsageError(f"verify: most must be 0 or between 4 and 10000, not {self.most}")
        if not 1 <= self.verifiers <= 100:
            raise UsageError(f"between 1 and 100 judges can verify, not {self.verifiers}")
        if not 1 <= self.stable <= self.rounds <= 100:
            raise UsageError(
                f"verify: 1 <= stable <= rounds <= 100 must hold, not stable={self.stable} and rounds={self.rounds}"
            )


@dataclass(frozen=True, slots=True)
class Round:
    """The finding of one round of judges; None where no judge named a step or "none"."""

    finding: Finding | None
    support: int


@dataclass(frozen=True, slots=True)
class _Limits:
    """`judging` and `whole`: the task with what is left for judges, and for judges and the second answer together."""

    judging: Task
    whole: Task
    one_judge: int | None


def run(task: Task, settings: VerifySettings) -> Generator[Event, None, Verdict]:
    stages = Stages(task)
    if settings.solution:
        solution = _given(read_text(Path(settings.solution)).strip())
        length = len(task.make_prompt(solution.answer, None).tokens)
    else:
        [solution] = yield from stages.draw([task.request()], "solution")
        length = len(solution.tokens)
    if stages.stopped or not steps_of(solution):
        return judge(stages, solution, None, "not verified")
    limits = _limits(task, settings, length, drawn=not settings.solution)
    try:
        checked = yield from _verified(limits, settings, stages, steps_of(solution))
    except DoesNotFit as error:
        answer = steps_of(solution, thought=False)
        if not (solution.thinking and answer):
            yield Notice(f"the solution cannot be verified: {error.message}")
            return judge(stages, solution, None, "not verified")
        yield Notice("the thought is too long for the judges: they see the answer alone")
        try:
            checked = yield from _verified(limits, settings, stages, answer)
        except DoesNotFit as still:
            yield Notice(f"the solution cannot be verified: {still.message}")
            return judge(stages, solution, None, "not verified")
    finding = checked.history[-1].finding if checked.history else None
    if finding is None:
        return judge(stages, solution, None, "the judges named no step" if checked.history else "not verified")
    rounds = len(checked.history)
    settled = "" if is_stable(checked.history[1:], settings.stable) else "not settled, "
    votes = f"{settled}{checked.history[-1].support} of {settings.verifiers} judges after round {rounds}"
    if finding == 0:
        return judge(stages, solution, None, f"no wrong step: {votes}")
    rule = f"step {finding} was found wrong: {votes}"
    if settings.solution:
        yield Notice(f"step {finding} is the first wrong one: {checked.steps[finding - 1]}")
    if stages.stopped:
        return judge(stages, solution, None, rule)
    reason = next((text for text in checked.judgements if finding_of(text, len(checked.steps)) == finding), "")
    question = prompts.read("verify-revise").format(
        question=task.question, steps=_numbered(checked.steps), number=finding, judgement=reason.strip()
    )
    again = limits.whole.request(question=question)
    try:
        [revised] = yield from stages.draw([again], f"again, step {finding} was found wrong", part=limits.whole)
    except DoesNotFit as error:
        yield Notice(f"the question cannot be asked again: {error.message}")
        return judge(stages, solution, None, rule)
    return judge(stages, solution, revised, rule)


def _given(text: str) -> Completion:
    """A solution that nobody drew."""
    return Completion(0, "", text, (), 0, "stop", 0.0)


def _limits(task: Task, settings: VerifySettings, length: int, *, drawn: bool) -> _Limits:
    length = max(length, 1)
    if not settings.most:
        return _Limits(task, task, None)
    whole = task.within((settings.most - drawn) * length)
    judging = whole.within((settings.most - drawn - _REVISION) * length)
    return _Limits(judging, whole, max(_JUDGE * length, _LEAST_JUDGE))


@dataclass(frozen=True, slots=True)
class _Checked:
    """The rounds, each judge's last judgement, and the steps that the judges saw."""

    history: list[Round]
    judgements: list[str]
    steps: list[str]


def _numbered(steps: Sequence[str]) -> str:
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))


def _verified(
    limits: _Limits, settings: VerifySettings, stages: Stages, steps: list[str]
) -> Generator[Event, None, _Checked]:
    """Judge in rounds. Raises DoesNotFit for a solution that the context does not hold."""
    task = limits.judging
    params = {} if limits.one_judge is None else task.shortened(limits.one_judge)
    first = prompts.read("verify-judge").format(question=task.question, steps=_numbered(steps))
    asked = [task.request(question=first, **params)] * settings.verifiers
    history: list[Round] = []
    judgements: list[str] = []
    while len(history) <= settings.rounds and not is_stable(history[1:], settings.stable):
        replies = yield from stages.draw(asked, f"judging, round {len(history) + 1}", part=task)
        cut = any(reply.finish_reason == "cancelled" for reply in replies)
        said = ["" if reply.finish_reason == "cancelled" else reply.answer for reply in replies]
        before = history[-1].finding if history else None
        found = majority([finding_of(text, len(steps)) for text in said], before)
        if not cut or found.finding is not None:
            history.append(found)
            judgements = said
        if cut:
            break
        again = prompts.read("verify-again")
        asked = [
            task.request(question=again.format(judge_prompt=first, judgement=text.strip()), **params)
            if text.strip()
            else task.request(question=first, **params)
            for text in judgements
        ]
    return _Checked(history, judgements, steps)


def steps_of(solution: Completion, *, thought: bool = True) -> list[str]:
    """The steps of thought and answer, as they are shown to the judges; those beyond the first 200 are one step."""
    steps = [*(_parts(solution.thinking) if thought else ()), *_parts(solution.answer)]
    if len(steps) <= _MOST_STEPS:
        return steps
    return [*steps[: _MOST_STEPS - 1], "\n".join(steps[_MOST_STEPS - 1 :])]


def _parts(text: str) -> list[str]:
    """The paragraphs of a text, or the lines of its only one."""
    paragraphs = [each.strip() for each in re.split(r"\n\s*\n", text) if each.strip()]
    lines = [each.strip() for each in text.splitlines() if each.strip()]
    return paragraphs if len(paragraphs) > 1 else lines


def finding_of(judgement: str, steps: int) -> Finding | None:
    """The finding in a judge's last statement; None where it cannot be read or names a step that does not exist."""
    stated = _FINDING.findall(judgement)
    if not stated:
        lines = [line for line in judgement.splitlines() if line.strip()]
        stated = [number or "none" for number, _ in _LAST_LINE.findall(lines[-1])] if lines else []
    if not stated:
        return None
    number = int(stated[-1]) if stated[-1].isdigit() else 0
    return number if number <= steps else None


def majority(findings: Sequence[Finding | None], before: Finding | None) -> Round:
    """The finding of most; a tie keeps the one `before`, then 0, then the earliest step."""
    votes = Counter(finding for finding in findings if finding is not None)
    if not votes:
        return Round(None, 0)
    finding = min(votes, key=lambda each: (-votes[each], each != before, each))
    return Round(finding, votes[finding])


def is_stable(history: Sequence[Round], rounds: int) -> bool:
    """Whether the last `rounds` of these have the same finding (or all have none), with a support that never shrank."""
    last = history[-rounds:]
    return len(last) == rounds and all(
        one.finding == other.finding and one.support <= other.support for one, other in pairwise(last)
    )


def judge(stages: Stages, solution: Completion, revised: Completion | None, rule: str) -> Verdict:
    """The verdict for the revised answer where there is one, else for the solution."""
    samples = [Sample.of(solution, 0.0, "solution")]
    if revised is not None:
        samples.append(Sample.of(revised, 0.0, "revised"))
    counts = len(samples) - 1 if samples[-1].answer is not None else 0
    samples[counts] = replace(samples[counts], weight=1.0)
    return stages.verdict("verify", samples, rule, "turn", samples[counts].completion)
