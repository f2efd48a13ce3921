"""Checks whether the measurements show the orderings of published results. Pure.

Each verdict compares the 95 % interval of a difference with bounds. Published numbers are quoted as printed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from dsr.bench.all.rows import ITSELF, FileResult, ModelResult, solved_problems
from dsr.bench.experts import bench as experts
from dsr.bench.kit.intervals import Z95
from dsr.store.measurement import Figure
from runtime.base.types import counted

CLOSE = 0.05  # the largest difference of accuracy, or of the perplexity ratio, that counts as close

ClaimVerdict = Literal["seen", "undecided", "not seen"]

_DQ3 = "arXiv 2505.02390, README of UnicomAI/DeepSeek-Eval"
_PREMOE = "arXiv 2505.17639, abstract and README of JarvisPei/PreMoe"
_VOTES = "arXiv 2501.12948, README of deepseek-ai/DeepSeek-R1"
_CONSISTENCY = "arXiv 2203.11171"


@dataclass(frozen=True, slots=True)
class Interval:
    """The 95 % interval of a difference over `count` questions or tokens."""

    mean: float
    low: float
    high: float
    count: int

    def verdict(self, above: float = -math.inf, below: float = math.inf) -> ClaimVerdict:
        """Returns whether the interval is between the bounds ("seen"), outside ("not seen"), or overlaps them."""
        if above < self.low and self.high < below:
            return "seen"
        return "not seen" if self.high <= above or self.low >= below else "undecided"


@dataclass(frozen=True, slots=True)
class Claim:
    """A published ordering, the measurement here as text, and the verdict."""

    claim: str
    published: str
    source: str
    measured: str
    verdict: ClaimVerdict


def paired(first: Mapping[str, float], second: Mapping[str, float]) -> Interval | None:
    """Returns the interval of first minus second over the questions that both have; None without such questions.

    It is the adjusted Wald interval for matched pairs (Agresti and Min 2005). Half a pair is added to each of the four
    outcomes, so that the interval of a few equal answers is not empty.
    """
    differences = [first[name] - second[name] for name in first if name in second]
    if not differences:
        return None
    count = len(differences) + 2
    middle = math.fsum(differences) / count
    spread = (math.fsum(each * each for each in differences) + 1) / count - middle * middle
    half = Z95 * math.sqrt(max(0.0, spread) / count)
    return Interval(math.fsum(differences) / len(differences), middle - half, middle + half, len(differences))


def unpaired(first: Figure, second: Figure) -> Interval:
    """Returns the interval of first minus second, with errors taken as independent.

    Errors on the same text are not independent, so the true interval is narrower.
    """
    half = Z95 * math.hypot(first.error or 0.0, second.error or 0.0)
    mean = first.mean - second.mean
    return Interval(mean, mean - half, mean + half, min(first.count, second.count))


def claims(result: ModelResult) -> tuple[Claim, ...]:
    """Returns the claims whose two sides were measured."""
    return (*_recipes(result), *_votes(result), *_experts(result))


def _recipes(result: ModelResult) -> Iterator[Claim]:
    original, four, three = result.file(ITSELF), result.file("q4_k_m"), result.file("q3_k_m")
    dynamic, two = result.file("dq3_k_m"), result.file("q2_k")
    if original and four:
        yield from _close(original, four, "Q4_K_M is close to full precision", "R1: 85.24 against 85.82 of FP8")
    if dynamic and three:
        yield from _better(dynamic, three, "DQ3_K_M above Q3_K_M", "R1: 85.53 against 84.28")
        size = float(dynamic.size - three.size)
        yield Claim(
            claim="DQ3_K_M smaller than Q3_K_M",
            published="R1: 281 against 298 GiB",
            source=_DQ3,
            measured=f"{dynamic.bits_per_weight:.2f} against {three.bits_per_weight:.2f} bits per weight",
            verdict=Interval(size, size, size, 1).verdict(below=0),
        )
    if two and three:
        yield from _better(three, two, "2-bit falls below 3-bit", "V3: Q2_K_L 68.73 against 75.06 of Q3_K_M")
        yield from _cliff(three, two)


def _cliff(three: FileResult, two: FileResult) -> Iterator[Claim]:
    """Compares two steps of the loss: from 3 to 2 bits, and from the reference to 3 bits."""
    if not three.quality or not two.quality:
        return
    before, after = _figure(three), _figure(two)
    found = unpaired(after, Figure(2 * before.mean, 2 * (before.error or 0.0), before.count))
    yield Claim(
        claim="The step from 3 to 2 bits costs more than all before it: KLD",
        published="V3: 0.52 % of the score down to Q3_K_M, 8.91 % to Q2_K_L",
        source=_DQ3,
        measured=f"{before.mean:.4f} to Q3_K_M, {after.mean:.4f} to Q2_K; {_difference(found)}",
        verdict=found.verdict(above=0),
    )


def _figure(file: FileResult, name: str = "kld_mean") -> Figure:
    assert file.quality is not None
    return file.quality.figures[name]


def _close(original: FileResult, smaller: FileResult, claim: str, published: str) -> Iterator[Claim]:
    if original.answers and smaller.answers and (found := paired(smaller.answers.solved, original.answers.solved)):
        yield Claim(
            f"{claim}: accuracy within {100 * CLOSE:.0f} points",
            published,
            _DQ3,
            _points(smaller.answers.accuracy, original.answers.accuracy, found),
            found.verdict(-CLOSE, CLOSE),
        )
    if smaller.quality and "ppl_ratio" in smaller.quality.figures:
        ratio = smaller.quality.figures["ppl_ratio"]
        found = unpaired(ratio, Figure(1.0, 0.0, ratio.count))
        yield Claim(
            f"{claim}: perplexity at most {100 * CLOSE:.0f} % more",
            published,
            _DQ3,
            f"{100 * (ratio.mean - 1):+.2f} % ({100 * found.low:+.2f} to {100 * found.high:+.2f}), "
            f"{counted(ratio.count, 'token')}",
            found.verdict(below=CLOSE),
        )


def _better(better: FileResult, worse: FileResult, claim: str, published: str) -> Iterator[Claim]:
    if better.answers and worse.answers and (found := paired(better.answers.solved, worse.answers.solved)):
        measured = _points(better.answers.accuracy, worse.answers.accuracy, found)
        yield Claim(f"{claim}: accuracy", published, _DQ3, measured, found.verdict(above=0))
    if better.quality and worse.quality:
        found = unpaired(_figure(better), _figure(worse))
        measured = f"{_figure(better).mean:.4f} against {_figure(worse).mean:.4f}; {_difference(found)}"
        yield Claim(f"{claim}: KLD", published, _DQ3, measured, found.verdict(below=0))


def _votes(result: ModelResult) -> Iterator[Claim]:
    if result.strategies is None:
        return
    solved = solved_problems(result.strategies)
    sizes = {1: "direct"} | {n: f"vote n={n} stop=none" for n in (2, 4, 8)}
    one, four, eight = (solved.get(sizes[n]) for n in (1, 4, 8))
    if not one or not four or not eight:
        return
    early = {name: four[name] - one[name] for name in four if name in one}
    late = {name: eight[name] - four[name] for name in eight if name in four}
    if rising := paired(eight, one):
        curve = ", ".join(f"{100 * _mean(solved[name]):.1f} of {n}" for n, name in sizes.items() if name in solved)
        yield Claim(
            "Votes rise: 8 above one sample",
            "R1-Distill-Qwen-7B on AIME 2024: 55.5 of one sample, 83.3 of 64",
            _VOTES,
            f"{curve}; {_difference(rising, 100)}",
            rising.verdict(above=0),
        )
    if levelling := paired(early, late):
        yield Claim(
            "Votes level off: from 4 to 8 less is gained than from 1 to 4",
            "The curves of self-consistency flatten (no number)",
            _CONSISTENCY,
            f"{100 * _mean(early):+.1f} points, then {100 * _mean(late):+.1f}; {_difference(levelling, 100)}",
            levelling.verdict(above=0),
        )


def _experts(result: ModelResult) -> Iterator[Claim]:
    if result.experts is None:
        return
    by_choice = _by_choice(result.experts)
    original, half, random = (
        by_choice.get(("100%", "own")),
        by_choice.get(("50%", "own")),
        by_choice.get(("50%", "random")),
    )
    if original and half and (found := paired(half, original)):
        yield Claim(
            f"Half of the experts, the task's own, carry nearly all accuracy: at most {100 * CLOSE:.0f} points less",
            "R1 on MATH-500: 97.2 with 128 of 256, 97.3 with all",
            _PREMOE,
            _points(_mean(half), _mean(original), found),
            found.verdict(above=-CLOSE),
        )
    if random and half and (found := paired(half, random)):
        yield Claim(
            "Random experts do much worse: half of them, below the task's own half",
            "no published number; a control",
            _PREMOE,
            _points(_mean(half), _mean(random), found),
            found.verdict(above=0),
        )


def _by_choice(bench: experts.ExpertsBench) -> Mapping[tuple[str, str], Mapping[str, float]]:
    """Returns, by (keep, kind) and question, the share of the seeds that solved it."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in bench.rows:
        choice = found.setdefault((row.case.keep, row.case.kind), {})
        for number, solved in enumerate(row.solved):
            choice.setdefault(f"{row.case.task} {number}", []).append(float(solved))
    return {choice: {name: sum(each) / len(each) for name, each in names.items()} for choice, names in found.items()}


def _points(first: float, second: float, found: Interval) -> str:
    return f"{100 * first:.1f} against {100 * second:.1f}; {_difference(found, 100)}"


def _difference(found: Interval, scale: float = 1.0) -> str:
    digits = 1 if scale > 1 else 4
    low, high = (f"{scale * value:+.{digits}f}" for value in (found.low, found.high))
    return f"difference {low} to {high}, {counted(found.count, 'question' if scale > 1 else 'token')}"


def _mean(shares: Mapping[str, float]) -> float:
    return math.fsum(shares.values()) / len(shares)
