"""Repeated sampling until a check is passed: Large Language Monkeys (arXiv 2407.21787).

Up to `n` samples are drawn together. As each ends, the user's command `check` gets its answer (the text after the
thought) on standard input; exit code 0 means solved. The environment has DSR_QUESTION, and DSR_ANSWER, the final answer
found in the text. With `stop` the first that is solved ends the others; without it all are checked, and the verdict
tells pass@k.

The paper: the share of solved problems grows with the samples over four orders of magnitude, on SWE-bench Lite 15.9 %
with 1 to 56 % with 250 (DeepSeek-Coder-V2), where a majority vote stands still after a few hundred.

Ours: a check that takes longer than `seconds` has failed, and decoding waits while a check runs.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace

from runtime.base.errors import UsageError
from runtime.base.events import Event, SampleFinished, SampleNoted
from runtime.base.types import Completion
from runtime.strategies.checker import Checker, Outcome
from runtime.strategies.coverage import pass_at_k
from runtime.strategies.task import Task, fate
from runtime.strategies.verdict import Verdict, ballot, count

_ENOUGH = "another passed the check"


@dataclass(frozen=True, slots=True)
class Settings:
    """`n`: samples at most. `check`: a shell command. `seconds`: for one check."""

    n: int = 8
    check: str = ""
    stop: bool = True
    seconds: float = 10.0

    def __post_init__(self) -> None:
        if not 1 <= self.n <= 1000:
            raise UsageError(f"between 1 and 1000 samples can be drawn, not {self.n}")
        if not 0 < self.seconds <= 86_400:
            raise UsageError(f"a check may take between 0 and 86400 seconds, not {self.seconds}")


def run(task: Task, settings: Settings) -> Generator[Event, None, Verdict]:
    checker = Checker(settings.check, settings.seconds)
    checker.look()
    ended: list[Completion] = []
    outcomes: dict[int, Outcome] = {}
    solved = False
    for event in task.engine.stream(task.requests(range(settings.n))):
        if not isinstance(event, SampleFinished):
            yield event
            continue
        completion = event.completion
        ended.append(completion)
        stopping = solved and settings.stop
        if stopping and (note := fate(completion, _ENOUGH)):
            yield SampleNoted(completion.sample, note)
        yield event
        if stopping or completion.finish_reason not in ("stop", "length"):
            continue
        given = {"DSR_QUESTION": task.question, "DSR_ANSWER": ballot(completion).answer or ""}
        outcomes[completion.sample] = checker.check(completion.answer, given)
        yield SampleNoted(completion.sample, f"check {outcomes[completion.sample]}")
        solved = solved or outcomes[completion.sample] == "passed"
        if solved and settings.stop:
            task.engine.cancel(range(settings.n))
    return judge(ended, outcomes, settings)


def judge(completions: Sequence[Completion], outcomes: Mapping[int, Outcome], settings: Settings) -> Verdict:
    """Only what passed its check can win. `outcomes` by sample number; what is not there was not checked."""
    passed = sum(outcome == "passed" for outcome in outcomes.values())
    ballots = []
    for completion in completions:
        outcome = outcomes.get(completion.sample)
        note = f"check {outcome}" if outcome else fate(completion, _ENOUGH if passed else "") or "not checked"
        each = ballot(completion, 1.0 if outcome == "passed" else 0.0, note)
        if outcome == "passed" and each.answer is None:
            # A program, a proof: what was checked is the answer.
            each = replace(each, answer=completion.answer.strip() or None)
        ballots.append(each)
    if not passed:
        verdict = count("monkeys", ballots, f"unsolved: none of {len(outcomes)} passed the check", planned=settings.n)
        return replace(verdict, winner=None, confidence=0.0, tied=False, rule=verdict.rule.partition(";")[0])
    rule = f"solved: {passed} of {len(outcomes)} passed the check"
    if not settings.stop:
        ks = sorted({1, len(outcomes)} | {k for k in (2, 4, 8, 16, 32, 64, 128) if k < len(outcomes)})
        rule += " (" + ", ".join(f"pass@{k} {pass_at_k(len(outcomes), passed, k):.3f}" for k in ks) + ")"
    return count("monkeys", ballots, rule, planned=settings.n, unit="sample")
