"""The part of docs/results.md that `strategies.py` makes of objects of `dsr bench reason --json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Found = Mapping[str, Any]

_READ = """Each strategy answered the same questions. *here*: against one sample at the same temperature, by the 95 %
interval of the paired difference; one row in twenty gains or loses by chance. The other columns of differences have
points, with that interval. *tokens*: of a question, all samples together. *alone*: tokens and seconds of a question
when the strategy runs alone. *Reference* lines: the greedy answer, one sample, the best plain vote. *Oracle* lines use
the suite's answers."""
_REFERENCES = ("direct", "greedy")


def page(found: Sequence[Found], command: str) -> str:
    """The whole part: how it was made, then a section for each model and suite."""
    parts = ["# Which strategy earns its tokens", f"    {command}", _READ]
    for each in found:
        parts += section(each)
    return "\n\n".join(parts)


def section(found: Found) -> list[str]:
    """The paragraphs about one model on one suite."""
    name = Path(found["model"]).stem
    parts = [f"## {name} on {found['suite']}", f"    {found['command']}", _how(found)]
    if words := outcomes(found):
        parts.append("\n".join(f"- {line}" for line in words))
    parts.append(_strategies(found))
    if len(found["tasks"]) > 1:
        parts.append(_tasks(found))
    return parts


def outcomes(found: Found) -> list[str]:
    """Three lines: the strategies that gain here, that lose here, and those of which nobody can tell."""
    by: dict[str, list[str]] = {"gains": [], "loses": [], "cannot tell": []}
    for each in found["comparisons"]:
        if (one := _against(each, "direct")) is not None:
            by[one["outcome"]].append(f"`{each['row']}`")
    heads = {"gains": "Gains here", "loses": "Loses here", "cannot tell": "Cannot tell"}
    return [f"**{heads[outcome]}**: {', '.join(rows)}." for outcome, rows in by.items() if rows]


def _how(found: Found) -> str:
    notes = found["conditions"]
    made = f"Made {found['made']}. {found['problems']} questions"
    made += f" by {notes['questions']}" if "questions" in notes else ""
    made += f", {found['samples']} samples each at temperature {notes['temperature']:g}"
    made += f", at most {notes['max_tokens']} tokens" if notes["max_tokens"] else ""
    made += f"; {found['unfinished_samples']} samples reached the limit." if found["unfinished_samples"] else "."
    if found["interrupted"]:
        made += " **Not finished**: the rows have fewer questions, and some rows are missing."
    if found["judged_differently"]:
        made += f" The verifiers and dsr's own rule differ on {len(found['judged_differently'])}"
        made += f" of {found['judged']} answers; the verifiers count."
    made += "".join(f" `{each['row']}` could not be run: {each['why']}." for each in found["skipped"])
    return made


def _strategies(found: Found) -> str:
    compared = {each["row"]: each for each in found["comparisons"]}
    alone = {each["row"]: each for each in found["ran_alone"]}
    vote = next((name for each in compared.values() for name in _names(each) if name not in _REFERENCES), "")
    heads = ["strategy", "here", "questions", "right, %", "95 %", "tokens", "alone", "seconds", "minus one sample",
             "minus greedy", f"minus `{vote}`" if vote else "minus vote"]  # fmt: skip
    rows = []
    for row in found["rows"]:
        label, each, own = row["row"], compared.get(row["row"]), alone.get(row["row"])
        one = _against(each, "direct")
        reference = label in (*_REFERENCES, vote)
        here = "oracle" if row["oracle"] else "reference" if reference and not one else one["outcome"] if one else ""
        rows.append([
            f"**`{label}`**" if reference else f"`{label}`", here, str(row["problems"]), f"{100 * row['accuracy']:.1f}",
            f"{100 * row['low']:.0f} to {100 * row['high']:.0f}", f"{row['tokens_mean']:.0f}",
            f"{own['tokens_mean']:.0f}" if own else "", f"{own['seconds_mean']:.1f}" if own else "",
            *(_points(_against(each, name)) for name in ("direct", "greedy", vote)),
        ])  # fmt: skip
    return table(heads, rows, left=2)


def _tasks(found: Found) -> str:
    labels = [row["row"] for row in found["rows"]]
    votes = [name for each in found["comparisons"] for name in _names(each) if name not in _REFERENCES]
    wanted = ["greedy", "direct", *votes[:1], *[label for label in labels if label.startswith("pass@")][-1:]]
    shown = [label for label in wanted if label in labels]
    heads = ["task", "questions", *(f"`{label}`" for label in shown), "tokens if right", "if wrong"]
    rows = [
        [each["task"] or "all", str(each["problems"]),
         *(f"{100 * each['by_row'][label]:.0f}" if label in each["by_row"] else "" for label in shown),
         *(f"{each[key]:.0f}" if each[key] is not None else ""
           for key in ("right_sample_tokens", "wrong_sample_tokens"))]
        for each in found["tasks"]
    ]  # fmt: skip
    return table(heads, rows, left=1)


def _names(comparison: Found) -> list[str]:
    return [each["row"] for each in comparison["references"]]


def _against(comparison: Found | None, reference: str) -> Found | None:
    return next((each for each in (comparison or {"references": ()})["references"] if each["row"] == reference), None)


def _points(difference: Found | None) -> str:
    if difference is None:
        return ""
    low, high = 100 * difference["low"], 100 * difference["high"]
    return f"{100 * difference['difference']:+.1f} ({low:+.1f} to {high:+.1f})"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    """A table of Markdown whose first columns are text."""
    rule = [":--" if number < left else "--:" for number in range(len(heads))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))
