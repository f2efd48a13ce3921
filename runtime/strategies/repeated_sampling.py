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
from runtime.strategies.checker import Checker, Outcome
from runtime.strategies.coverage import pass_at_k
from runtime.strategies.task import Task, fate
from runtime.strategies.verdict import Sample, Verdict, count, ended

NAME = "repeated-sampling"
_ENOUGH = "another passed the check"


@dataclass(frozen=True, slots=True)
class RepeatedSamplingSettings:
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


def run(task: Task, settings: RepeatedSamplingSettings) -> Generator[Event, None, Verdict]:
    checker = Checker(settings.check, settings.seconds)
    checker.check_exists()
    samples: list[Sample] = []
    outcomes: dict[int, Outcome] = {}
    solved = False
    for event in task.engine.stream(task.requests(range(settings.n))):
        if not isinstance(event, SampleFinished):
            yield event
            continue
        completion = event.completion
        stopping = solved and settings.stop
        yield from ended(completion, samples, fate(completion, _ENOUGH) if stopping else "")
        sample = samples[-1]
        if stopping or not sample.finished:
            continue
        variables = {"DSR_QUESTION": task.question, "DSR_ANSWER": sample.answer or ""}
        outcomes[sample.number] = checker.check(completion.answer, variables)
        yield SampleNoted(sample.number, f"check {outcomes[sample.number]}")
        solved = solved or outcomes[sample.number] == "passed"
        if solved and settings.stop:
            task.engine.cancel(range(settings.n))
    return judge(samples, outcomes, settings)


def judge(samples: Sequence[Sample], outcomes: Mapping[int, Outcome], settings: RepeatedSamplingSettings) -> Verdict:
    """Only a sample that passed its check can win. `outcomes` by sample number, for samples that were checked."""
    passed = sum(outcome == "passed" for outcome in outcomes.values())
    weighted = [_weighed(each, outcomes.get(each.number), _ENOUGH if passed else "") for each in samples]
    if not passed:
        rule = f"unsolved: none of {len(outcomes)} passed the check"
        verdict = count(NAME, weighted, rule, planned=settings.n)
        return replace(verdict, winner=None, confidence=0.0, tied=False, rule=verdict.rule.partition(";")[0])
    rule = f"solved: {passed} of {len(outcomes)} passed the check"
    if not settings.stop:
        ks = sorted({1, len(outcomes)} | {k for k in (2, 4, 8, 16, 32, 64, 128) if k < len(outcomes)})
        rule += " (" + ", ".join(f"pass@{k} {pass_at_k(len(outcomes), passed, k):.3f}" for k in ks) + ")"
    return count(NAME, weighted, rule, planned=settings.n, unit="sample")


def _weighed(sample: Sample, outcome: Outcome | None, why: str) -> Sample:
    note = f"check {outcome}" if outcome else fate(sample.completion, why) or "not checked"
    sample = replace(sample, weight=1.0 if outcome == "passed" else 0.0, note=note)
    if outcome == "passed" and sample.answer is None:
        # A program, a proof: the checked text is the answer.
        return replace(sample, answer=sample.completion.answer.strip() or None)
    return sample
