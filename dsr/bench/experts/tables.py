"""A bench of experts as tables and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dsr.bench.experts.bench import CaseResult, ExpertsBench
from dsr.bench.kit.table import Table, left, right
from dsr.bench.reason.score import interval
from dsr.ui.charts.terminal import letter
from quant.experts.prune_plan import RANDOM
from runtime.base.types import ByteCount, counted

_COLUMNS = (
    *left(" ", "keep"),
    *right("kept"),
    *left("chosen by"),
    *right("right", "95 %", "KLD", "size", "memory", "tok/s"),
)
# Below the tables, for whoever sees them for the first time.
LEGEND = (
    "right: percent, means over tasks; KLD: nats per token, on the text of the task's profile; memory: with "
    "all slots, as reckoned; tok/s: of all slots together, and noisy"
)
DETAIL_LEGEND = "per task: percent that are right, its 95 % interval; N: says how many experts are kept"


@dataclass(frozen=True, slots=True)
class CaseGroup:
    """The rows of all tasks, and of all seeds, for one way to keep experts. Figures are means over tasks; `accuracy`,
    `low` and `high` shares."""

    keep: str
    label: str
    rows: tuple[CaseResult, ...]
    accuracy: float
    low: float
    high: float

    @property
    def kept(self) -> float:
        return _mean([row.case.plan.keep for row in self.rows])

    @property
    def unpruned(self) -> bool:
        return all(row.case.plan.keep == row.case.plan.experts for row in self.rows)


def lines(bench: ExpertsBench) -> list[CaseGroup]:
    """In the order in which they were asked for."""
    found: dict[tuple[str, str, str], list[CaseResult]] = {}
    for row in bench.rows:
        found.setdefault(row.case.line, []).append(row)
    several = len({score for score, _, _ in found} - {RANDOM}) > 1
    return [_line(keep, score if several else kind, rows) for (score, keep, kind), rows in found.items()]


def _line(keep: str, label: str, rows: Sequence[CaseResult]) -> CaseGroup:
    shares = [share for task in _by_task(rows).values() for share in _shares(task)]
    low, high = interval(shares, sum(len(row.solved) for row in rows))
    accuracy = _mean([_mean(_shares(task)) for task in _by_task(rows).values()])
    return CaseGroup(keep, label, tuple(rows), accuracy, low, high)


def _by_task(rows: Sequence[CaseResult]) -> dict[str, list[CaseResult]]:
    found: dict[str, list[CaseResult]] = {}
    for row in rows:
        found.setdefault(row.case.task, []).append(row)
    return found


def _shares(rows: Sequence[CaseResult]) -> list[float]:
    """Of each problem of a task, how often it was solved over the seeds."""
    return [_mean(list(each)) for each in zip(*(row.solved for row in rows), strict=True)]


def table(bench: ExpertsBench) -> Table:
    rows = [
        (
            letter(number),
            line.keep,
            f"{line.kept:.3g}",
            "all" if line.unpruned else line.label,
            f"{100 * line.accuracy:.1f}",
            f"{100 * line.low:.0f}-{100 * line.high:.0f}",
            _divergence(line.rows),
            str(ByteCount(_mean([row.bytes for row in line.rows]))),
            str(ByteCount(_mean([row.memory for row in line.rows]))),
            f"{_speed(line.rows):.0f}",
        )
        for number, line in enumerate(lines(bench))
    ]
    return Table.of(_COLUMNS, rows)


def details(bench: ExpertsBench) -> Iterator[Table]:
    """Yields a table for each way to choose experts: a row for each task, a column for each number of experts."""
    found = lines(bench)
    if len(bench.origins) < 2:
        return
    unpruned = [line for line in found if line.unpruned]
    for label in dict.fromkeys(line.label for line in found if not line.unpruned):
        yield _of_tasks(bench, label, [line for line in found if line.unpruned or line.label == label])
    if len(unpruned) == len(found):
        yield _of_tasks(bench, "all", unpruned)


def _of_tasks(bench: ExpertsBench, label: str, groups: Sequence[CaseGroup]) -> Table:
    rows = [(task, *(_cell(group, task) for group in groups)) for task in bench.origins]
    return Table.of((*left(label), *right(*(group.keep for group in groups))), rows)


def _cell(line: CaseGroup, task: str) -> str:
    """'97 87-100', with '12: ' before it where tasks keep different numbers."""
    rows = _by_task(line.rows).get(task)
    if rows is None:
        return ""
    shares = _shares(rows)
    low, high = interval(shares, sum(len(row.solved) for row in rows))
    kept = f"{rows[0].case.plan.keep}: " if line.keep == "auto" else ""
    return f"{kept}{100 * _mean(shares):.0f} {100 * low:.0f}-{100 * high:.0f}"


def findings(bench: ExpertsBench) -> list[str]:
    """What the table says of the automatic number, and of profiles against chance, in sentences. Lines that lack a
    task say nothing."""
    complete = [line for line in lines(bench) if len(_by_task(line.rows)) == len(bench.origins)]
    found = {(line.keep, line.label): line for line in complete}
    unpruned = next((line for line in found.values() if line.unpruned), None)
    sentences = []
    for (keep, label), line in found.items():
        if keep == "auto" and unpruned is not None and label not in ("merged", "other", "random") and not line.unpruned:
            sentences.append(_kept_accuracy(line, unpruned, bench.experts, "" if label == "own" else f" by {label}"))
        if label == "own" and not line.unpruned and (lot := found.get((keep, RANDOM))) is not None:
            sentences.append(
                f"keep {keep}: {100 * (line.accuracy - lot.accuracy):+.1f} points against experts chosen at random"
            )
    return sentences


def _kept_accuracy(line: CaseGroup, unpruned: CaseGroup, experts: int, how: str) -> str:
    before = {task: _mean(_shares(rows)) for task, rows in _by_task(unpruned.rows).items()}
    after = {task: _mean(_shares(rows)) for task, rows in _by_task(line.rows).items()}
    shares = {task: after[task] / before[task] for task in after if before.get(task)}
    if not shares:
        return f"keep auto{how}: the model solves nothing to begin with"
    worst = min(shares, key=lambda task: shares[task])
    total = sum(after.values()) / sum(before[task] for task in after)
    return (
        f"keep auto{how}: {100 * total:.1f} % of the accuracy with all experts, at worst {100 * shares[worst]:.1f} % "
        f"({worst}), with {100 * line.kept / experts:.0f} % of the experts"
    )


def title(bench: ExpertsBench) -> str:
    asked, tasks = counted(bench.problems, "problem"), counted(len(bench.origins), "task")
    return f"experts of {bench.model} on {bench.suite}: {asked}, {tasks}"


def conditions(bench: ExpertsBench) -> str:
    request = bench.request
    return (
        f"{bench.experts} experts in each layer, {bench.active} for each token; greedy, at most {request.max_tokens} "
        f"tokens, {request.slots} slots, random experts from seed {request.seed} on"
    )


def warnings(bench: ExpertsBench) -> list[str]:
    """What a reader of the table must know."""
    sentences = []
    if bench.interrupted:
        sentences.append(f"stopped: {bench.missing} of {bench.missing + len(bench.rows)} figures are missing")
    uneven = {len(_by_task(line.rows)) for line in lines(bench)}
    if bench.interrupted and len(uneven) > 1:
        sentences.append("lines stand on different tasks, and cannot be compared")
    return sentences


def as_markdown(bench: ExpertsBench, command: str, date: str) -> str:
    """A section of a document: the command, the conditions, the tables, and how to read them."""
    parts = [f"## {title(bench)[0].upper()}{title(bench)[1:]}", "", f"    {command}", ""]
    parts += [f"Made {date}. {conditions(bench)[0].upper()}{conditions(bench)[1:]}.", ""]
    parts += table(bench).without_first().aligned(range(3, 9)).markdown()
    parts += [""] + [f"- {line}" for line in (*findings(bench), *warnings(bench))]
    parts += ["", *_HOW_TO_READ]
    for of_tasks in details(bench):
        parts += ["", *of_tasks.markdown()]
    return "\n".join([*parts, ""])


_HOW_TO_READ = (
    "- *own*: experts chosen by the task's own profile; *merged*: by those of all tasks; *other*: by another task's;",
    "  *random*: by lot, three times. *auto*: as many as keep the divergence on the profile's text under the bound.",
    "- *right*: mean over tasks, with Wilson's 95 % interval over the problems, for random by the standard error of",
    "  the problems' means. Below, for each task: percent, interval, and before a colon how many experts are kept.",
    "- *KLD*: divergence from the model with all its experts, nats per token, on the text of the task's profile.",
    "- *memory*: weights, cache and buffers with all slots, as reckoned. *tok/s*: all slots together; where a machine",
    "  has other work, speeds are noisy.",
)


def _divergence(rows: Sequence[CaseResult]) -> str:
    return f"{_mean([row.kld.value for row in rows]):.4f}"


def _speed(rows: Sequence[CaseResult]) -> float:
    seconds = math.fsum(row.seconds for row in rows)
    return sum(row.tokens for row in rows) / seconds if seconds else 0.0


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
