"""Whether the orderings that the papers' tables show are seen in what was measured. Pure.

A verdict is never written down by hand: each is an interval of 95 % of a difference, held against a bound. The papers'
numbers are beside it as they are printed there; `source` says where.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dsr.records import Figure
from dsr.services.bench.whole import ITSELF, File, Subject, solved_by
from dsr.services.experts import bench as experts

_Z = 1.959963984540054  # 97.5 % of the normal distribution
CLOSE = 0.05  # points of accuracy, as a share, or of perplexity's ratio, that "close" allows

SEEN, NOT_SEEN = "seen", "not seen"

_DQ3 = "arXiv 2505.02390, README of UnicomAI/DeepSeek-Eval"
_PREMOE = "arXiv 2505.17639, abstract and README of JarvisPei/PreMoe"
_VOTES = "arXiv 2501.12948, README of deepseek-ai/DeepSeek-R1"


@dataclass(frozen=True, slots=True)
class Interval:
    """Of 95 %, of a difference over `count` questions or tokens."""

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class Ordering:
    """What a paper's table shows, what was measured here in words, and whether it is the same."""

    claim: str
    published: str
    source: str
    measured: str
    seen: bool

    @property
    def verdict(self) -> str:
        return SEEN if self.seen else NOT_SEEN


def paired(first: Mapping[str, float], second: Mapping[str, float]) -> Interval | None:
    """First minus second over the questions that both were asked; None where there is none.

    The adjusted Wald interval for matched pairs (Agresti and Min 2005): half a pair is added to each of the four
    outcomes, so that a few questions that all agree do not make the interval vanish.
    """
    differences = [first[name] - second[name] for name in first if name in second]
    if not differences:
        return None
    count = len(differences) + 2
    middle = math.fsum(differences) / count
    spread = (math.fsum(each * each for each in differences) + 1) / count - middle * middle
    half = _Z * math.sqrt(max(0.0, spread) / count)
    return Interval(math.fsum(differences) / len(differences), middle - half, middle + half, len(differences))


def apart(first: Figure, second: Figure) -> Interval:
    """First minus second, their errors as if they were independent: of one text they are not, and the true interval is
    narrower."""
    half = _Z * math.hypot(first.error or 0.0, second.error or 0.0)
    mean = first.mean - second.mean
    return Interval(mean, mean - half, mean + half, min(first.count, second.count))


def orderings(subject: Subject) -> tuple[Ordering, ...]:
    """Those of which both sides were measured."""
    return (*_recipes(subject), *_votes(subject), *_experts(subject))


def _recipes(subject: Subject) -> Iterator[Ordering]:
    whole, four, three = subject.file(ITSELF), subject.file("q4_k_m"), subject.file("q3_k_m")
    dynamic, two = subject.file("dq3_k_m"), subject.file("q2_k")
    if whole and four:
        published = "R1: 85.24 against 85.82 of FP8, 0.68 % less"
        yield from _close(whole, four, "Q4_K_M is close to full precision", published, _DQ3)
    if dynamic and three:
        claim, published = "DQ3_K_M above Q3_K_M", "R1: 85.53 against 84.28"
        yield from _better(dynamic, three, claim, published, _DQ3)
        yield Ordering(
            claim="DQ3_K_M smaller than Q3_K_M",
            published="R1: 281 against 298 GiB",
            source=_DQ3,
            measured=f"{dynamic.bits_per_weight:.2f} against {three.bits_per_weight:.2f} bits per weight",
            seen=dynamic.size < three.size,
        )
    if two and three:
        published = "V3: Q2_K_L 68.73 against 75.06 of Q3_K_M"
        yield from _better(three, two, "2-bit falls below 3-bit", published, _DQ3)
    if two and four and three and whole:
        # Losses have to grow twice: from 3 to 2 bits by more than from full precision to 3.
        fall = _of(two).mean - _of(three).mean if two.quality and three.quality else None
        if fall is not None and three.quality:
            spread = apart(_of(two), Figure(2 * _of(three).mean, 2 * (_of(three).error or 0.0), _of(three).count))
            yield Ordering(
                claim="The step from 3 to 2 bits costs more than all before it",
                published="V3: 0.52 % down to Q3_K_M, 8.91 % to Q2_K_L",
                source=_DQ3,
                measured=f"KLD {_of(three).mean:.4f} to Q3_K_M, {_of(two).mean:.4f} to Q2_K; {_told(spread)}",
                seen=spread.low > 0,
            )


def _of(file: File, name: str = "kld_mean") -> Figure:
    assert file.quality is not None
    return file.quality.figures[name]


def _close(whole: File, smaller: File, claim: str, published: str, source: str) -> Iterator[Ordering]:
    if whole.answers and smaller.answers and (found := paired(smaller.answers.solved, whole.answers.solved)):
        yield Ordering(
            f"{claim}: accuracy within {100 * CLOSE:.0f} points",
            published,
            source,
            _points(smaller.answers.accuracy, whole.answers.accuracy, found),
            seen=found.low > -CLOSE and found.high < CLOSE,
        )
    if smaller.quality and "ppl_ratio" in smaller.quality.figures:
        ratio = smaller.quality.figures["ppl_ratio"]
        found = apart(ratio, Figure(1.0, 0.0, ratio.count))
        yield Ordering(
            f"{claim}: perplexity within {100 * CLOSE:.0f} %",
            published,
            source,
            f"{100 * (ratio.mean - 1):+.2f} % ({100 * found.low:+.2f} to {100 * found.high:+.2f}), "
            f"{ratio.count} tokens",
            seen=found.high < CLOSE,
        )


def _better(better: File, worse: File, claim: str, published: str, source: str) -> Iterator[Ordering]:
    if better.answers and worse.answers and (found := paired(better.answers.solved, worse.answers.solved)):
        yield Ordering(
            f"{claim}: accuracy",
            published,
            source,
            _points(better.answers.accuracy, worse.answers.accuracy, found),
            seen=found.low > 0,
        )
    if better.quality and worse.quality:
        found = apart(_of(better), _of(worse))
        yield Ordering(
            f"{claim}: KLD",
            published,
            source,
            f"{_of(better).mean:.4f} against {_of(worse).mean:.4f}; {_told(found)}",
            seen=found.high < 0,
        )


def _votes(subject: Subject) -> Iterator[Ordering]:
    bench = subject.strategies
    if bench is None:
        return
    solved = solved_by(bench)
    sizes = {1: "direct"} | {n: f"vote n={n} stop=none" for n in (2, 4, 8)}
    one, four, eight = (solved.get(sizes[n]) for n in (1, 4, 8))
    if not one or not four or not eight:
        return
    curve = ", ".join(f"{100 * _mean(solved[name]):.1f} of {n}" for n, name in sizes.items() if name in solved)
    rising = paired(eight, one)
    early = {name: four[name] - one[name] for name in four if name in one}
    late = {name: eight[name] - four[name] for name in eight if name in four}
    levelling = paired(early, late)
    published = "R1-Distill-Qwen-7B on AIME 2024: 55.5 of one sample, 83.3 of 64"
    if rising and levelling:
        yield Ordering(
            "Votes rise: 8 above one sample",
            published,
            _VOTES,
            f"{curve}; {_told(rising, 100)}",
            seen=rising.low > 0,
        )
        yield Ordering(
            "Votes level off: from 4 to 8 less is gained than from 1 to 4",
            "Self-consistency's curves flatten (from memory)",
            "arXiv 2203.11171",
            f"{100 * _mean(early):+.1f} points, then {100 * _mean(late):+.1f}; {_told(levelling, 100)}",
            seen=levelling.low > 0,
        )


def _experts(subject: Subject) -> Iterator[Ordering]:
    bench = subject.experts
    if bench is None:
        return
    by_line = _by_line(bench)
    whole, half, lot = by_line.get(("100%", "own")), by_line.get(("50%", "own")), by_line.get(("50%", "random"))
    if whole and half and (found := paired(half, whole)):
        yield Ordering(
            f"Half of the experts, the task's own, carry nearly all accuracy: within {100 * CLOSE:.0f} points",
            "R1 on MATH-500: 97.2 with 128 of 256, 97.3 with all",
            _PREMOE,
            _points(_mean(half), _mean(whole), found),
            seen=found.low > -CLOSE,
        )
    if lot and half and (found := paired(half, lot)):
        yield Ordering(
            "Experts kept at random collapse: half of them below the task's own",
            "no number known; a control of ours",
            _PREMOE,
            _points(_mean(half), _mean(lot), found),
            seen=found.low > 0,
        )


def _by_line(bench: experts.Bench) -> Mapping[tuple[str, str], Mapping[str, float]]:
    """(kept, chosen by) -> question -> the share of the seeds that solved it."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in bench.rows:
        line = found.setdefault((row.cell.keep, row.cell.kind), {})
        for number, solved in enumerate(row.solved):
            line.setdefault(f"{row.cell.task} {number}", []).append(float(solved))
    return {line: {name: sum(each) / len(each) for name, each in names.items()} for line, names in found.items()}


def _points(first: float, second: float, found: Interval) -> str:
    return f"{100 * first:.1f} against {100 * second:.1f}; {_told(found, 100)}"


def _told(found: Interval, scale: float = 1.0) -> str:
    digits = 1 if scale > 1 else 4
    low, high = (f"{scale * value:+.{digits}f}" for value in (found.low, found.high))
    return f"difference {low} to {high}, {found.count} {'questions' if scale > 1 else 'tokens'}"


def _mean(shares: Mapping[str, float]) -> float:
    return math.fsum(shares.values()) / len(shares)
