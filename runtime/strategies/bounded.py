"""Any strategy within a budget: what it draws is counted, and it ends with the best answer it has.

A strategy in stages draws mostly other things than answers, so a part of its budget is kept back. If it has no answer
when its own part is used up, one plain sample answers with the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace

from runtime.base.events import Event, Interrupted, Notice, SampleFinished, SampleNoted
from runtime.strategies import direct
from runtime.strategies.bounds import Budget
from runtime.strategies.task import Task
from runtime.strategies.verdict import Verdict

# A quarter is kept back for a plain sample, at most so much: a long thought of a small model with its answer.
_KEPT_TOKENS, _KEPT_SECONDS = 2000, 60.0

Run = Callable[[Task], Generator[Event, None, Verdict]]


def run(task: Task, budget: Budget, strategy: Run, *, staged: bool) -> Generator[Event, None, Verdict]:
    """Run a strategy within the budget."""
    whole = task.within(budget.tokens, budget.seconds)
    allowance = whole.allowance
    assert allowance is not None
    last, interrupted = -1, False
    running = strategy(_without_kept(whole, budget) if staged else whole)
    while True:
        try:
            event = next(running)
        except StopIteration as end:
            verdict: Verdict = end.value
            break
        if isinstance(event, SampleFinished):
            last = max(last, event.completion.sample)
        interrupted = interrupted or isinstance(event, Interrupted)
        yield event
    if staged and not interrupted and not _has_answer(verdict):
        verdict = yield from _plain(whole, verdict, last + 1)
    rule = f"{verdict.rule}; the budget of {budget} is used up" if allowance.over else verdict.rule
    return replace(verdict, rule=rule, spent=allowance.spent)


def _without_kept(whole: Task, budget: Budget) -> Task:
    if budget.tokens is not None:
        return whole.within(tokens=max(budget.tokens - min(budget.tokens // 4, _KEPT_TOKENS), 1))
    assert budget.seconds is not None
    return whole.within(seconds=budget.seconds - min(budget.seconds / 4, _KEPT_SECONDS))


def _has_answer(verdict: Verdict) -> bool:
    """Whether an answer was chosen, and not a part of one that is shown for want of it."""
    chosen = verdict.chosen
    if chosen is None or chosen.finish_reason == "cancelled":
        return False
    return any(each.weight > 0 and each.number == chosen.sample for each in verdict.samples)


def _plain(whole: Task, verdict: Verdict, number: int) -> Generator[Event, None, Verdict]:
    """One sample in place of an answer; the verdict stays if it gives none either."""
    if whole.allowance is None or whole.allowance.over:
        return verdict
    yield Notice(f"{verdict.strategy}: no answer within its part of the budget; one sample answers with the rest")
    yield SampleNoted(number, "answering with the rest")
    drawn = yield from whole.draw([whole.request(number)])
    found = direct.judge(drawn)
    if not _has_answer(found):
        return verdict
    return replace(
        found,
        strategy=verdict.strategy,
        rule=f"{verdict.rule}; one sample answered with the rest of the budget",
        samples=(*verdict.samples, *found.samples),
        drawn=verdict.drawn + found.drawn,
        sequential=verdict.sequential + found.sequential,
    )
