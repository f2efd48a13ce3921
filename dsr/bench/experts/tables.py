"""Shows the result of `dsr bench experts` as tables and Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dsr.bench.experts.bench import CaseResult, ExpertsBench
from dsr.bench.kit.intervals import mean_interval
from dsr.bench.kit.table import Table, left, right
from dsr.ui.charts.terminal import letter
from quant.experts.prune_plan import RANDOM
from runtime.base.types import ByteCount, counted

_COLUMNS = (
    *left(" ", "keep"),
    *right("kept"),
    *left("chosen by"),
    *right("right", "95 %", "KLD", "size", "memory", "tok/s"),
)
# For readers who see the tables for the first time.
LEGEND = (
    "right: percent, mean over tasks; KLD: nats per token, on the text of the task's profile; memory: predicted, with "
    "all slots; tok/s: all slots together, imprecise"
)
DETAIL_LEGEND = "for each task: percent right and its 95 % interval, after the number of experts if it is automatic"


@dataclass(frozen=True, slots=True)
class CaseGroup:
    """The results of all tasks and seeds for one choice of experts: a row of the table.

    Figures are means over tasks. `accuracy`, `low` and `high` are shares.
    """

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


def case_groups(bench: ExpertsBench) -> list[CaseGroup]:
    """Returns the rows of the table, in the order of the request."""
    found: dict[tuple[str, str, str], list[CaseResult]] = {}
    for row in bench.rows:
        found.setdefault(row.case.group, []).append(row)
    several = len({score for score, _, _ in found} - {RANDOM}) > 1
    return [_group(keep, score if several else kind, rows) for (score, keep, kind), rows in found.items()]


def _group(keep: str, label: str, rows: Sequence[CaseResult]) -> CaseGroup:
    shares = [share for task in _by_task(rows).values() for share in _shares(task)]
    low, high = mean_interval(shares, sum(len(row.solved) for row in rows))
    accuracy = _mean([_mean(_shares(task)) for task in _by_task(rows).values()])
    return CaseGroup(keep, label, tuple(rows), accuracy, low, high)


def _by_task(rows: Sequence[CaseResult]) -> dict[str, list[CaseResult]]:
    found: dict[str, list[CaseResult]] = {}
    for row in rows:
        found.setdefault(row.case.task, []).append(row)
    return found


def _shares(rows: Sequence[CaseResult]) -> list[float]:
    """Returns, for each problem of a task, the share of the seeds that solved it."""
    return [_mean(list(each)) for each in zip(*(row.solved for row in rows), strict=True)]


def table(bench: ExpertsBench) -> Table:
    rows = [
        (
            letter(number),
            group.keep,
            f"{group.kept:.3g}",
            "all" if group.unpruned else group.label,
            f"{100 * group.accuracy:.1f}",
            f"{100 * group.low:.0f}-{100 * group.high:.0f}",
            _divergence(group.rows),
            str(ByteCount(_mean([row.bytes for row in group.rows]))),
            str(ByteCount(_mean([row.memory for row in group.rows]))),
            f"{_speed(group.rows):.0f}",
        )
        for number, group in enumerate(case_groups(bench))
    ]
    return Table.of(_COLUMNS, rows)


def details(bench: ExpertsBench) -> Iterator[Table]:
    """Yields a table for each way to choose experts: a row for each task, a column for each number of experts."""
    found = case_groups(bench)
    if len(bench.origins) < 2:
        return
    unpruned = [group for group in found if group.unpruned]
    for label in dict.fromkeys(group.label for group in found if not group.unpruned):
        yield _of_tasks(bench, label, [group for group in found if group.unpruned or group.label == label])
    if len(unpruned) == len(found):
        yield _of_tasks(bench, "all", unpruned)


def _of_tasks(bench: ExpertsBench, label: str, groups: Sequence[CaseGroup]) -> Table:
    rows = [(task, *(_cell(group, task) for group in groups)) for task in bench.origins]
    return Table.of((*left(label), *right(*(group.keep for group in groups))), rows)


def _cell(group: CaseGroup, task: str) -> str:
    """Returns '97 87-100', or '12: 97 87-100' if tasks can keep different numbers of experts."""
    rows = _by_task(group.rows).get(task)
    if rows is None:
        return ""
    shares = _shares(rows)
    low, high = mean_interval(shares, sum(len(row.solved) for row in rows))
    kept = f"{rows[0].case.plan.keep}: " if group.keep == "auto" else ""
    return f"{kept}{100 * _mean(shares):.0f} {100 * low:.0f}-{100 * high:.0f}"


def findings(bench: ExpertsBench) -> list[str]:
    """Returns sentences that compare the automatic number with all experts, and profiles with random experts.

    Rows without a result for some task are left out.
    """
    complete = [group for group in case_groups(bench) if len(_by_task(group.rows)) == len(bench.origins)]
    found = {(group.keep, group.label): group for group in complete}
    unpruned = next((group for group in found.values() if group.unpruned), None)
    sentences = []
    for (keep, label), group in found.items():
        if (
            keep == "auto"
            and unpruned is not None
            and label not in ("merged", "other", "random")
            and not group.unpruned
        ):
            sentences.append(_kept_accuracy(group, unpruned, bench.experts, "" if label == "own" else f" by {label}"))
        if label == "own" and not group.unpruned and (random := found.get((keep, RANDOM))) is not None:
            sentences.append(
                f"keep {keep}: {100 * (group.accuracy - random.accuracy):+.1f} points compared with random experts"
            )
    return sentences


def _kept_accuracy(group: CaseGroup, unpruned: CaseGroup, experts: int, how: str) -> str:
    before = {task: _mean(_shares(rows)) for task, rows in _by_task(unpruned.rows).items()}
    after = {task: _mean(_shares(rows)) for task, rows in _by_task(group.rows).items()}
    shares = {task: after[task] / before[task] for task in after if before.get(task)}
    if not shares:
        return f"keep auto{how}: the model with all experts solves no problem"
    worst = min(shares, key=lambda task: shares[task])
    total = sum(after.values()) / sum(before[task] for task in after)
    return (
        f"keep auto{how}: {100 * total:.1f} % of the accuracy with all experts, at worst {100 * shares[worst]:.1f} % "
        f"({worst}), with {100 * group.kept / experts:.0f} % of the experts"
    )


def title(bench: ExpertsBench) -> str:
    problems, tasks = counted(bench.problems, "problem"), counted(len(bench.origins), "task")
    return f"experts of {bench.model} on {bench.suite}: {problems}, {tasks}"


def conditions(bench: ExpertsBench) -> str:
    request = bench.request
    return (
        f"{bench.experts} experts in each layer, {bench.active} for each token; greedy, at most {request.max_tokens} "
        f"tokens, {request.slots} slots, random experts from seed {request.seed}"
    )


def warnings(bench: ExpertsBench) -> list[str]:
    """Returns what a reader of the table must know, in sentences."""
    sentences = []
    if bench.interrupted:
        sentences.append(f"stopped: {bench.missing} of {bench.missing + len(bench.rows)} figures are missing")
    uneven = {len(_by_task(group.rows)) for group in case_groups(bench)}
    if bench.interrupted and len(uneven) > 1:
        sentences.append("rows have different tasks, so you cannot compare them")
    return sentences


def as_markdown(bench: ExpertsBench, command: str, date: str) -> str:
    """Returns a section of a document: the command, the conditions, the tables, and how to read them."""
    parts = [f"## {title(bench)[0].upper()}{title(bench)[1:]}", "", f"    {command}", ""]
    parts += [f"Made {date}. {conditions(bench)[0].upper()}{conditions(bench)[1:]}.", ""]
    parts += table(bench).without_first().markdown()
    parts += [""] + [f"- {group}" for group in (*findings(bench), *warnings(bench))]
    parts += ["", *_HOW_TO_READ]
    for of_tasks in details(bench):
        parts += ["", *of_tasks.markdown()]
    return "\n".join([*parts, ""])


_HOW_TO_READ = (
    "- *own*: experts chosen by the task's own profile; *merged*: by the profiles of all tasks; *other*: by another",
    "  task's profile; *random*: at random, with three seeds. *auto*: the smallest number whose KLD stays below the",
    "  bound.",
    "- *right*: mean over tasks, with Wilson's 95 % interval over the problems; for random, from the standard error of",
    "  the problems' means. For each task: percent and interval, after the number of experts if it is automatic.",
    "- *KLD*: divergence from the model with all experts, nats per token, on the text of the task's profile.",
    "- *memory*: predicted for weights, cache and buffers with all slots. *tok/s*: all slots together; other work on",
    "  the machine changes it.",
)


def _divergence(rows: Sequence[CaseResult]) -> str:
    return f"{_mean([row.kld.value for row in rows]):.4f}"


def _speed(rows: Sequence[CaseResult]) -> float:
    seconds = math.fsum(row.seconds for row in rows)
    return sum(row.tokens for row in rows) / seconds if seconds else 0.0


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
