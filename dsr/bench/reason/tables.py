"""Shows the result of `dsr bench reason` as a table, CSV and Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from dsr.bench.kit.table import Table, csv_text, left, right
from dsr.bench.reason.bench import ReasonBench
from dsr.bench.reason.judge import Score
from dsr.bench.reason.paired import ONE_SAMPLE, PairedDifference, best_vote
from dsr.bench.reason.rows import GREEDY, short_label
from dsr.models.sampling import SETTINGS, option_name
from dsr.suites.generated import ERROR_KINDS
from dsr.ui.charts.terminal import letter
from runtime.base.types import counted

# For readers who see the table for the first time.
LEGEND = (
    "right: percent, with its 95 % interval; tokens: of all samples of a question; chain: tokens that wait for each "
    "other; seconds: of a question, ~ means estimated from samples drawn while all slots were busy; by task: percent "
    "right, and mean tokens of single samples"
)


def table(bench: ReasonBench) -> Table:
    columns = (*left(" ", "strategy"), *right("right", "95 %", "tokens", "chain", "seconds"))
    rows = [
        (
            letter(number),
            score.row.label,
            f"{100 * score.accuracy:.1f}",
            f"{100 * score.low:.0f}-{100 * score.high:.0f}",
            f"{score.tokens:.0f}",
            f"{score.sequential:.0f}",
            _seconds(score),
        )
        for number, score in enumerate(bench.scores)
    ]
    return Table.of(columns, rows)


def task_table(bench: ReasonBench) -> Table:
    """Returns accuracy by task for the rows that others are compared with, and the lengths of samples."""
    labels = _references(bench)
    heads = [_HEADS.get(label, short(label)) for label in labels]
    columns = (*left("task"), *right("problems", *heads, "tokens if right", "if wrong"))
    rows = []
    for each in bench.tasks:
        shares = dict(each.accuracy)
        cells = [f"{100 * shares[label]:.0f}" if label in shares else "" for label in labels]
        rows.append((each.task or "all", str(each.problems), *cells, _length(each.right), _length(each.wrong)))
    of_kind = {each.task: dict(each.accuracy) for each in bench.tasks}
    if set(of_kind) >= ERROR_KINDS:
        # As ProcessBench counts: a judge that always finds an error, or never, has 0.
        pairs = [[of_kind[kind].get(label, 0.0) for kind in sorted(ERROR_KINDS)] for label in labels]
        rows.append(("F1", "", *(f"{100 * 2 * a * b / (a + b):.0f}" if a + b else "0" for a, b in pairs), "", ""))
    return Table.of(columns, rows, "right, percent, by task; mean tokens of single samples")


_HEADS = {GREEDY: "greedy", ONE_SAMPLE: "one"}


def _references(bench: ReasonBench) -> list[str]:
    """Returns the rows of the table by task: greedy, one sample, the best vote, any of all samples; else the first."""
    labels = [score.row.label for score in bench.scores]
    most = [label for label in labels if label.startswith("pass@")]
    wanted = [GREEDY, ONE_SAMPLE, best_vote(bench.scores), *most[-1:]]
    return [label for label in wanted if label in labels] or labels[:3]


def _length(tokens: float | None) -> str:
    return "" if tokens is None else f"{tokens:.0f}"


def short(label: str) -> str:
    return short_label(label).replace("pass@", "any of ")


def alone_table(bench: ReasonBench) -> Table:
    """Returns what each strategy costs when it runs alone; no rows unless that was asked for."""
    columns = (*left("strategy alone"), *right("problems", "right", "tokens", "chain", "seconds"))
    rows = [
        (
            score.row.label,
            str(score.problems),
            f"{100 * score.accuracy:.1f}",
            f"{score.tokens:.0f}",
            f"{score.sequential:.0f}",
            f"{score.seconds:.2f}",
        )
        for score in bench.alone
    ]
    return Table.of(columns, rows, "each strategy alone, one question at a time")


def paired_table(bench: ReasonBench) -> Table:
    """Returns each row minus the references on the same questions, in points, with 95 % intervals."""
    used = {each.reference for row in bench.comparisons for each in row.differences}
    references = [name for name in (ONE_SAMPLE, GREEDY, best_vote(bench.scores)) if name in used]
    columns = (*left("strategy", "against one sample"), *right(*(f"minus {short(each)}" for each in references)))
    rows = []
    for row in bench.comparisons:
        found = [row.against(reference) for reference in references]
        one = row.against(ONE_SAMPLE)
        cells = [_points(each) for each in found]
        rows.append((f"`{row.row}`", one.outcome if one else "", *cells))
    return Table.of(columns, rows)


def _points(difference: PairedDifference | None) -> str:
    if difference is None:
        return ""
    low, high = 100 * difference.low, 100 * difference.high
    return f"{100 * difference.mean:+.1f} ({low:+.1f} to {high:+.1f})"


def outcomes(bench: ReasonBench) -> Sequence[str]:
    """Returns one line for each outcome: the strategies that gain against one sample, that lose, and the others."""
    found: dict[str, list[str]] = {}
    for row in bench.comparisons:
        if (one := row.against(ONE_SAMPLE)) is not None:
            found.setdefault(one.outcome, []).append(short_label(row.row))
    words = {"gains": "better than one sample", "loses": "worse than one sample", "cannot tell": "cannot tell"}
    return [f"{words[outcome]}: {', '.join(found[outcome])}" for outcome in words if outcome in found]


def title(bench: ReasonBench) -> str:
    problems, samples = counted(bench.problems, "problem"), counted(bench.samples, "sample")
    return f"{bench.model} on {bench.suite}: {problems}, {samples} each"


def conditions(bench: ReasonBench) -> str:
    """Returns 'temperature 1.0, top-p 0.95, top-k 40, seed 0', without options that are off."""
    notes = bench.conditions
    words = [f"temperature {notes['temperature']}"]
    words += [f"top-p {notes['top_p']}"] if notes["top_p"] < 1 else []
    words += [f"top-k {notes['top_k']}"] if notes["top_k"] else []
    words += [f"min-p {notes['min_p']}"] if notes["min_p"] else []
    rare = [name for name in SETTINGS if name in notes and name not in ("temperature", "top_p", "top_k", "min_p")]
    words += [f"{option_name(name)} {_listed(notes[name])}" for name in rare]
    words += [f"with {counted(len(notes['lora']), 'LoRA adapter')}"] if "lora" in notes else []
    words += [f"at most {notes['max_tokens']} tokens"] if notes["max_tokens"] else []
    words += [f"at most {notes['think_budget']} of them thinking"] if notes["think_budget"] is not None else []
    words += ["without thinking"] if notes["thinking"] is False else []
    words += [f"effort {notes['effort']}"] if notes.get("effort") else []
    return ", ".join([*words, f"seed {notes['seed']}"])


def _listed(value: object) -> str:
    return " ".join(map(repr, value)) or "none" if isinstance(value, list) else str(value)


def as_csv(bench: ReasonBench) -> str:
    rows = [{**score.json(), "settings": _settings(score)} for score in bench.scores]
    return csv_text(rows) if rows else "row\n"


def as_markdown(bench: ReasonBench, command: str) -> str:
    """Returns a document with the command and the section."""
    return "\n".join([f"# {title(bench)}", "", f"    {command}", "", *section(bench), ""])


def section(bench: ReasonBench) -> tuple[str, ...]:
    """Returns the lines of a document's section: the conditions, the table, and how to read it."""
    notes = [f"- {warning}" for warning in warnings(bench)]
    return (
        f"Sampling: {conditions(bench)}.",
        "",
        *_all_figures(bench).markdown(),
        *_parts(task_table(bench), alone_table(bench), paired_table(bench)),
        *(["", *notes] if notes else []),
        "",
        *_HOW_TO_READ,
    )


def _parts(*tables: Table) -> tuple[str, ...]:
    """Returns the lines of the tables that have rows, each after an empty line."""
    lines: list[str] = []
    for each in tables:
        if each.rows:
            lines += ["", *([f"{each.title[:1].upper()}{each.title[1:]}:", ""] if each.title else []), *each.markdown()]
    return tuple(lines)


_HOW_TO_READ = (
    "- *right*: the mean over problems. *95 % interval*: Wilson's; if a row decides a problem several times, it uses",
    "  the standard error of the problems' means.",
    "- *tokens*: drawn per question, including stopped samples. *chain*: the longest chain of tokens that wait for",
    "  each other.",
    "- *seconds*: measured for each question if the strategy draws its own samples. With ~, the time of the chain at",
    "  the speed of samples drawn while other questions filled the slots. Do not compare the two.",
    "- Rows with fewer than all samples decide each problem several times.",
    "- *if right*, *if wrong*: the mean length of single samples, by whether their own answer is right.",
    "- *alone*: the strategy drew its own samples, one question at a time, with nothing else in the slots.",
    "- *minus*: percentage points, on the same questions; in brackets the 95 % interval of a paired bootstrap. A row",
    "  gains or loses if its interval against one sample leaves out zero. One row in twenty does so by chance.",
    "- *oracle*: the decision uses the suite's answers, which a user's question does not have.",
)


def _all_figures(bench: ReasonBench) -> Table:
    numbers = ("right, %", "95 % interval", "tokens", "total tokens", "chain", "seconds", "decisions")
    rows = [
        (
            f"`{score.row.label}`",
            f"{100 * score.accuracy:.1f}",
            f"{100 * score.low:.1f} to {100 * score.high:.1f}",
            f"{score.tokens:.0f}",
            str(score.tokens_total),
            f"{score.sequential:.0f}",
            _seconds(score),
            str(score.decisions),
        )
        for score in bench.scores
    ]
    return Table.of((*left("strategy"), *right(*numbers)), rows)


def _seconds(score: Score) -> str:
    """Returns the seconds, with ~ unless they were measured with one question at a time."""
    return f"{'' if score.row.source == 'own' else '~'}{score.seconds:.2f}"


def _settings(score: Score) -> str:
    return " ".join(f"{key}={value}" for key, value in score.json()["settings"].items())


def warnings(bench: ReasonBench) -> Sequence[str]:
    """Returns what a reader of the table must know, in sentences."""
    notes = [f"{row} could not be run: {why}" for row, why in bench.skipped]
    if bench.interrupted:
        counts = [score.problems for score in bench.scores]
        few, many = min(counts), max(counts)
        notes.append(f"stopped: the rows use {f'{few} to ' if few < many else ''}{counted(many, 'problem')}")
    if bench.disagreements:
        example = bench.disagreements[0]
        notes.append(
            f"the suite's judge and dsr's own rule differ on {len(bench.disagreements)} of {bench.judged} answers; "
            f"the suite's judge counts. {example.problem}: {example.answer!r} for {example.wanted!r} is "
            f"{'right' if example.right else 'wrong'}. --json lists all"
        )
    if bench.unfinished:
        notes.append(f"{counted(bench.unfinished, 'sample')} reached the token limit")
    return notes
