"""Temporal consistency: check a solution in rounds, where each judge sees its own last judgement (arXiv 2503.14495).

1. One sample gives a solution. Its steps are the paragraphs of the answer, or its lines, or those of the thought when
   the answer has but one.
2. `verifiers` judges tell, independently, which step is the first wrong one, or that none is.
3. In each further round every judge sees the solution and its own last judgement, and judges again.
4. Stop when the majority has been the same for `stable` rounds and its support did not shrink meanwhile, or after
   `rounds` rounds. The paper has 5 judges, 3 rounds of stability and 10 at most, and reports on ProcessBench that
   R1-distilled models of 7B and 8B so beat 70B models.

The paper ends with the finding. Ours: when a step was found wrong, the model answers once more, told which step and
why; that answer counts if there is one. A judge that names no step abstains; a tie keeps the majority of the round
before, then trusts the solution, then names the earlier step.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import prompts
from runtime.base.errors import DoesNotFit, UsageError
from runtime.base.events import Event, Notice
from runtime.base.types import Completion
from runtime.strategies.stages import Stages
from runtime.strategies.task import Task
from runtime.strategies.verdict import Sample, Verdict

# The number of the first wrong step; 0 for none.
Finding = int

_MOST_STEPS = 200
_FINDING = re.compile(
    r"first\s+wrong\s+step\W{0,12}?(?:is\W{0,6}?)?(?:step\W{0,4}?)?(-1|none|no\b|\d{1,6})", re.IGNORECASE
)
_LAST_LINE = re.compile(
    r"\bstep\W{0,4}(\d{1,6})\b|\b(none|no error|no mistake|all (?:steps )?(?:are )?(?:right|correct))", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """Defaults of the paper."""

    verifiers: int = 5
    stable: int = 3
    rounds: int = 10

    def __post_init__(self) -> None:
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


def run(task: Task, settings: VerifySettings) -> Generator[Event, None, Verdict]:
    stages = Stages(task)
    [solution] = yield from stages.draw([task.request()], "solution")
    steps = steps_of(solution)
    if stages.stopped or not steps:
        return judge(stages, solution, None, "not verified")
    numbered = "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))
    try:
        history, judgements = yield from _verified(task, settings, stages, numbered, len(steps))
    except DoesNotFit as error:
        yield Notice(f"the solution cannot be verified: {error.message}")
        return judge(stages, solution, None, "not verified")
    finding = history[-1].finding if history else None
    if finding is None:
        return judge(stages, solution, None, "the judges named no step" if history else "not verified")
    settled = "" if is_stable(history, settings.stable) else "not settled, "
    votes = f"{settled}{history[-1].support} of {settings.verifiers} judges after round {len(history)}"
    if finding == 0:
        return judge(stages, solution, None, f"no wrong step: {votes}")
    rule = f"step {finding} was found wrong: {votes}"
    if stages.stopped:
        return judge(stages, solution, None, rule)
    reason = next(text for text in judgements if finding_of(text, len(steps)) == finding)
    question = prompts.read("verify-revise").format(
        question=task.question, steps=numbered, number=finding, judgement=reason.strip()
    )
    try:
        [revised] = yield from stages.draw([task.request(question=question)], f"again, step {finding} was found wrong")
    except DoesNotFit as error:
        yield Notice(f"the question cannot be asked again: {error.message}")
        return judge(stages, solution, None, rule)
    return judge(stages, solution, revised, rule)


def _verified(
    task: Task, settings: VerifySettings, stages: Stages, numbered: str, steps: int
) -> Generator[Event, None, tuple[list[Round], list[str]]]:
    """The rounds, and each judge's last judgement. A round that was stopped does not count."""
    first = prompts.read("verify-judge").format(question=task.question, steps=numbered)
    asked = [task.request(question=first)] * settings.verifiers
    history: list[Round] = []
    judgements: list[str] = []
    while len(history) < settings.rounds and not is_stable(history, settings.stable):
        replies = yield from stages.draw(asked, f"judging, round {len(history) + 1}")
        if stages.stopped:
            break
        judgements = [reply.answer for reply in replies]
        before = history[-1].finding if history else None
        history.append(majority([finding_of(text, steps) for text in judgements], before))
        again = prompts.read("verify-again")
        asked = [
            task.request(question=again.format(judge_prompt=first, judgement=text.strip()) if text.strip() else first)
            for text in judgements
        ]
    return history, judgements


def steps_of(solution: Completion) -> list[str]:
    """The steps of a solution, as they are shown to the judges; those beyond the first 200 are one step."""
    for text in (solution.answer, solution.thinking + "\n" + solution.answer):
        for separator in (r"\n\s*\n", r"\n"):
            steps = [step.strip() for step in re.split(separator, text) if step.strip()]
            if len(steps) > 1:
                rest = "\n".join(steps[_MOST_STEPS - 1 :])
                return steps if len(steps) <= _MOST_STEPS else [*steps[: _MOST_STEPS - 1], rest]
    return [solution.answer.strip()] if solution.answer.strip() else []


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
    """Whether the last `rounds` rounds have the same finding (or all have none), with a support that never shrank."""
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
