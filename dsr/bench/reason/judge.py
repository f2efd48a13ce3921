"""Judges saved samples: decisions of each strategy, and their means. Pure, so that it can run again without a model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dsr.bench.kit.intervals import mean_interval
from dsr.bench.reason.rows import StrategyRow
from dsr.suites.judging import Judging
from dsr.suites.problem import SuiteProblem
from runtime.base.types import Completion
from runtime.strategies.coverage import pass_at_k
from runtime.strategies.verdict import Sample, Verdict


@dataclass(frozen=True, slots=True)
class StrategyDecision:
    """The decision of one row (its label) about one problem, and its cost.

    `correct` is 0 or 1; for pass@k it is an estimate between. `samples`: the numbers of the samples it used. `spent`:
    all tokens drawn; `sequential`: the longest chain of tokens that wait for each other. `seconds` is measured if the
    strategy drew its own samples. Otherwise it is the time of the chain at the mean speed of the samples. `right` and
    `wrong`: tokens of each of its samples, by what each says alone.
    """

    row: str
    problem: str
    samples: tuple[int, ...]
    winner: str | None
    correct: float
    tied: bool
    spent: float
    sequential: float
    seconds: float
    rule: str = ""
    right: tuple[int, ...] = ()
    wrong: tuple[int, ...] = ()

    def json(self) -> dict[str, Any]:
        return {
            "row": self.row,
            "id": self.problem,
            "samples": list(self.samples),
            "winner": self.winner,
            "correct": self.correct,
            "tied": self.tied,
            "tokens": self.spent,
            "sequential": self.sequential,
            "seconds": round(self.seconds, 4),
            "rule": self.rule,
        }


def decisions(
    row: StrategyRow, problem: SuiteProblem, completions: Sequence[Completion], judging: Judging
) -> Iterator[StrategyDecision]:
    """Yields the decisions of a row that shares samples, from the samples 0, 1, ... of a problem."""
    if row.source == "coverage":
        yield _pass_at_k(row, problem, completions, judging)
        return
    for block in blocks(completions, row.size):
        if row.source == "until-solved":
            yield _until_solved(row, problem, block, judging)
        elif row.strategy is None:
            yield _single_answer(row, problem, block[0], judging)
        else:
            numbered = [replace(each, sample=number) for number, each in enumerate(block)]
            verdict = row.replay(numbered)
            seconds = verdict.sequential * seconds_per_token(block)
            yield make_decision(row, problem, verdict, block, seconds, judging)


def make_decision(
    row: StrategyRow,
    problem: SuiteProblem,
    verdict: Verdict,
    samples: Sequence[Completion],
    seconds: float,
    judging: Judging,
) -> StrategyDecision:
    reply = verdict.chosen.answer if verdict.chosen else ""
    right, wrong = _lengths(problem, samples, judging)
    return StrategyDecision(
        row=row.label,
        problem=problem.id,
        samples=tuple(each.sample for each in samples),
        winner=verdict.winner,
        correct=float(judging.is_right(problem, verdict.winner, reply)),
        tied=verdict.tied,
        spent=verdict.spent,
        sequential=verdict.sequential,
        seconds=seconds,
        rule=verdict.rule,
        right=right,
        wrong=wrong,
    )


def _lengths(
    problem: SuiteProblem, samples: Sequence[Completion], judging: Judging
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the tokens of right samples, then of wrong ones. A stopped sample counts in neither."""
    right: list[int] = []
    wrong: list[int] = []
    for each in samples:
        if each.finish_reason in ("stop", "length"):
            lengths = right if judging.is_right(problem, Sample.of(each).answer, each.answer) else wrong
            lengths.append(len(each.tokens))
    return tuple(right), tuple(wrong)


def saved_decision(
    row: StrategyRow, problem: SuiteProblem, entry: Mapping[str, Any], judging: Judging
) -> StrategyDecision:
    """Returns a saved decision, judged again by the suite's answer."""
    ended = [
        (judging.is_right(problem, each["found"], each["answer"]), each["tokens"])
        for each in entry.get("drawn", ())
        if each["finish_reason"] in ("stop", "length")
    ]
    return StrategyDecision(
        row=row.label,
        problem=problem.id,
        samples=tuple(entry["samples"]),
        winner=entry["winner"],
        correct=float(judging.is_right(problem, entry["winner"], entry.get("reply", ""))),
        tied=entry["tied"],
        spent=entry["tokens"],
        sequential=entry["sequential"],
        seconds=entry["seconds"],
        rule=entry["rule"],
        right=tuple(tokens for is_right, tokens in ended if is_right),
        wrong=tuple(tokens for is_right, tokens in ended if not is_right),
    )


def blocks(completions: Sequence[Completion], size: int) -> list[Sequence[Completion]]:
    """Returns the samples in groups of `size`, without a last group that is too short."""
    return [completions[at : at + size] for at in range(0, len(completions) - size + 1, size)]


def seconds_per_token(completions: Sequence[Completion]) -> float:
    """Returns seconds for one token of one sample, while the others were drawn in parallel."""
    tokens = sum(len(each.tokens) for each in completions)
    return sum(each.seconds for each in completions) / tokens if tokens else 0.0


def _single_answer(
    row: StrategyRow, problem: SuiteProblem, completion: Completion, judging: Judging
) -> StrategyDecision:
    found = Sample.of(completion).answer
    length, correct = len(completion.tokens), float(judging.is_right(problem, found, completion.answer))
    right, wrong = _lengths(problem, [completion], judging)
    return StrategyDecision(
        row=row.label,
        problem=problem.id,
        samples=(completion.sample,),
        winner=found,
        correct=correct,
        tied=False,
        spent=length,
        sequential=length,
        seconds=completion.seconds,
        right=right,
        wrong=wrong,
    )


def _pass_at_k(
    row: StrategyRow, problem: SuiteProblem, completions: Sequence[Completion], judging: Judging
) -> StrategyDecision:
    """Returns pass@k, estimated from all n samples. The tokens are those of k samples."""
    right = sum(judging.is_right(problem, Sample.of(each).answer, each.answer) for each in completions)
    chains = [max(len(each.tokens) for each in block) for block in blocks(completions, row.size)]
    chain = sum(chains) / len(chains)
    mean = sum(len(each.tokens) for each in completions) / len(completions)
    return StrategyDecision(
        row=row.label,
        problem=problem.id,
        samples=tuple(each.sample for each in completions),
        winner=None,
        correct=pass_at_k(len(completions), right, row.size),
        tied=False,
        spent=mean * row.size,
        sequential=chain,
        seconds=chain * seconds_per_token(completions),
        rule=f"{right} of {len(completions)} are right",
    )


def _until_solved(
    row: StrategyRow, problem: SuiteProblem, block: Sequence[Completion], judging: Judging
) -> StrategyDecision:
    """Returns the decision of a perfect checker, which stops all samples when the first right one ends."""
    found = {each.sample: Sample.of(each).answer for each in block}
    right = [each for each in block if judging.is_right(problem, found[each.sample], each.answer)]
    first = min(right, key=lambda each: len(each.tokens), default=None)
    chain = len(first.tokens) if first else max(len(each.tokens) for each in block)
    return StrategyDecision(
        row=row.label,
        problem=problem.id,
        samples=tuple(each.sample for each in block),
        winner=found[first.sample] if first else None,
        correct=float(first is not None),
        tied=False,
        spent=sum(min(len(each.tokens), chain) for each in block),
        sequential=chain,
        seconds=chain * seconds_per_token(block),
        rule="solved by the key" if first else "not solved",
    )


@dataclass(frozen=True, slots=True)
class Score:
    """The means of one row over all problems. `accuracy`, `low` and `high` are shares.

    Tokens and seconds are means per question; `tokens_total` is for all questions once. `right_length` and
    `wrong_length`: mean tokens of the row's samples that are right alone, and of the others; None without any.
    """

    row: StrategyRow
    problems: int
    decisions: int
    accuracy: float
    low: float
    high: float
    tokens: float
    tokens_total: int
    sequential: float
    seconds: float
    right_length: float | None = None
    wrong_length: float | None = None

    def json(self) -> dict[str, Any]:
        chosen = self.row.strategy
        return {
            "row": self.row.label,
            "strategy": self.row.name,
            "settings": dict(chosen.given) if chosen else {},
            "samples": self.row.size or None,
            "draws": self.row.source,
            "oracle": self.row.oracle,
            "problems": self.problems,
            "decisions": self.decisions,
            "accuracy": round(self.accuracy, 6),
            "low": round(self.low, 6),
            "high": round(self.high, 6),
            "tokens_mean": round(self.tokens, 3),
            "tokens_total": self.tokens_total,
            "sequential_mean": round(self.sequential, 3),
            "seconds_mean": round(self.seconds, 4),
            "right_sample_tokens": None if self.right_length is None else round(self.right_length, 3),
            "wrong_sample_tokens": None if self.wrong_length is None else round(self.wrong_length, 3),
        }


def score(row: StrategyRow, decisions: Sequence[StrategyDecision]) -> Score | None:
    """Returns the means over all problems, where a problem counts as the mean of its decisions. None without any."""
    by_problem: dict[str, list[StrategyDecision]] = {}
    for decision in decisions:
        by_problem.setdefault(decision.problem, []).append(decision)
    if not by_problem:
        return None
    groups = list(by_problem.values())
    shares = [_mean([each.correct for each in group]) for group in groups]
    low, high = mean_interval(shares, len(decisions))
    tokens = [_mean([each.spent for each in group]) for group in groups]
    return Score(
        row=row,
        problems=len(groups),
        decisions=len(decisions),
        accuracy=_mean(shares),
        low=low,
        high=high,
        tokens=_mean(tokens),
        tokens_total=round(math.fsum(tokens)),
        sequential=_mean([_mean([each.sequential for each in group]) for group in groups]),
        seconds=_mean([_mean([each.seconds for each in group]) for group in groups]),
        right_length=mean_length(length for each in decisions for length in each.right),
        wrong_length=mean_length(length for each in decisions for length in each.wrong),
    )


def mean_length(lengths: Iterable[int]) -> float | None:
    found = list(lengths)
    return _mean(found) if found else None


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
