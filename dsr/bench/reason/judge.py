"""From saved samples to decisions: pure, so that everything can be judged again without the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dsr.bench.reason.rows import StrategyRow
from dsr.suites.suites import Problem
from runtime.base.types import Completion
from runtime.strategies.coverage import pass_at_k
from runtime.strategies.verdict import Sample, Verdict


@dataclass(frozen=True, slots=True)
class StrategyDecision:
    """What a line decided about a problem, and what that cost.

    `correct` is 0 or 1, for pass@k the estimate between. `samples` are the numbers of those it looked at. Tokens: all
    that were drawn, and the longest chain in which each waits for the one before. `seconds` is measured where a
    strategy drew for itself, and else the chain's tokens at the mean speed of these samples.
    """

    line: str
    problem: str
    samples: tuple[int, ...]
    winner: str | None
    correct: float
    tied: bool
    spent: float
    sequential: float
    seconds: float
    rule: str = ""

    def json(self) -> dict[str, Any]:
        return {
            "row": self.line,
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


def decisions(line: StrategyRow, problem: Problem, completions: Sequence[Completion]) -> Iterator[StrategyDecision]:
    """Every decision of a line that needs no draws of its own, on the samples 0, 1, ... of a problem."""
    if line.source == "coverage":
        yield _covered(line, problem, completions)
        return
    for block in blocks(completions, line.size):
        if line.source == "until-solved":
            yield _until_solved(line, problem, block)
        elif line.chosen is None:
            yield _single(line, problem, block[0])
        else:
            numbered = [replace(each, sample=number) for number, each in enumerate(block)]
            verdict = line.replayed(numbered)
            yield decided(
                line, problem, verdict, [each.sample for each in block], verdict.sequential * seconds_per_token(block)
            )


def decided(
    line: StrategyRow, problem: Problem, verdict: Verdict, samples: Iterable[int], seconds: float
) -> StrategyDecision:
    return StrategyDecision(
        line=line.label,
        problem=problem.id,
        samples=tuple(samples),
        winner=verdict.winner,
        correct=float(problem.is_solved_by(verdict.winner)),
        tied=verdict.tied,
        spent=verdict.spent,
        sequential=verdict.sequential,
        seconds=seconds,
        rule=verdict.rule,
    )


def decision_of(line: StrategyRow, problem: Problem, row: Mapping[str, Any]) -> StrategyDecision:
    """Returns a saved decision, judged again by the key."""
    return StrategyDecision(
        line=line.label,
        problem=problem.id,
        samples=tuple(row["samples"]),
        winner=row["winner"],
        correct=float(problem.is_solved_by(row["winner"])),
        tied=row["tied"],
        spent=row["tokens"],
        sequential=row["sequential"],
        seconds=row["seconds"],
        rule=row["rule"],
    )


def blocks(completions: Sequence[Completion], size: int) -> list[Sequence[Completion]]:
    """As many runs of `size` neighbours as there are; a rest that is too short is left out."""
    return [completions[at : at + size] for at in range(0, len(completions) - size + 1, size)]


def seconds_per_token(completions: Sequence[Completion]) -> float:
    """Returns seconds for one token of one sample, while the others were drawn in parallel."""
    tokens = sum(len(each.tokens) for each in completions)
    return sum(each.seconds for each in completions) / tokens if tokens else 0.0


def _single(line: StrategyRow, problem: Problem, completion: Completion) -> StrategyDecision:
    found = Sample.of(completion).answer
    length, correct = len(completion.tokens), float(problem.is_solved_by(found))
    samples = (completion.sample,)
    return StrategyDecision(line.label, problem.id, samples, found, correct, False, length, length, completion.seconds)


def _covered(line: StrategyRow, problem: Problem, completions: Sequence[Completion]) -> StrategyDecision:
    """pass@k from all n samples; its tokens are those of k."""
    right = sum(problem.is_solved_by(Sample.of(each).answer) for each in completions)
    chains = [max(len(each.tokens) for each in block) for block in blocks(completions, line.size)]
    chain = sum(chains) / len(chains)
    mean = sum(len(each.tokens) for each in completions) / len(completions)
    return StrategyDecision(
        line=line.label,
        problem=problem.id,
        samples=tuple(each.sample for each in completions),
        winner=None,
        correct=pass_at_k(len(completions), right, line.size),
        tied=False,
        spent=mean * line.size,
        sequential=chain,
        seconds=chain * seconds_per_token(completions),
        rule=f"{right} of {len(completions)} are right",
    )


def _until_solved(line: StrategyRow, problem: Problem, block: Sequence[Completion]) -> StrategyDecision:
    """Samples that grow together until one is right by the key: what a perfect checker would have stopped."""
    found = {each.sample: Sample.of(each).answer for each in block}
    right = [each for each in block if problem.is_solved_by(found[each.sample])]
    first = min(right, key=lambda each: len(each.tokens), default=None)
    chain = len(first.tokens) if first else max(len(each.tokens) for each in block)
    return StrategyDecision(
        line=line.label,
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
