"""Shows the result of `dsr bench speed` as a table and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import PurePath

from dsr.bench.history.formats import main_figure
from dsr.bench.kit.table import Column, Table
from dsr.store.measurement import PREDICTED, Figure, Measurement
from runtime.base.types import ByteCount, counted

# For readers who see the table for the first time.
LEGEND = (
    "pp: prompt tokens read per second (t/s); tg: tokens decoded one by one; @ d: tokens in the cache before; votes: "
    "tokens of all samples per second, with that many samples; ttft: time to the first token of such a prompt; "
    "±: standard deviation"
)
_FROM_DISK = (
    "; in memory: the share of the needed experts (or layers) that were in memory; waiting: the share of the "
    "time that was spent waiting for the disk"
)
UNITS = {"tokens_per_second": "t/s", "seconds": "s", "bytes": ""}
_NUMBERS = ("size", "threads", "measured", "±", "predicted", "tokens/J", "in memory", "read/token", "waiting")


def table(rows: Sequence[Measurement], *, full: bool = False) -> Table:
    """Returns the figures, and the columns that differ between rows. `full`: all columns."""
    words = {
        "model": [PurePath(row.model).name.removesuffix(".gguf") for row in rows],
        "size": [str(ByteCount(row.size)) for row in rows],
        "threads": [str(row.parameters.get("threads", "")) for row in rows],
        "KV": [str(row.parameters.get("kv_type", "")) for row in rows],
    }
    cells = {name: values for name, values in words.items() if full or (len(set(values)) > 1 and name != "size")}
    if len({row.model for row in rows}) > 1:
        cells["model"] = words["model"]
    cells |= {
        "test": [row.test for row in rows],
        "measured": [value(row.figures[main_figure(row)], main_figure(row)) for row in rows],
        "±": [deviation(row.figures[main_figure(row)], main_figure(row)) for row in rows],
        " ": [UNITS[main_figure(row)] for row in rows],
    }
    for name, values in (("predicted", _predicted(rows)), ("tokens/J", _per_joule(rows)), *_from_disk(rows)):
        if any(values):
            cells[name] = values
    columns = [Column(name, right=name in _NUMBERS) for name in cells]
    return Table.of(columns, zip(*cells.values(), strict=True))


def legend(rows: Sequence[Measurement]) -> str:
    """Returns the meaning of the tests and columns."""
    return LEGEND + (_FROM_DISK if any("disk_in_memory" in row.figures for row in rows) else "")


def value(figure: Figure, name: str) -> str:
    if name == "bytes":
        return str(ByteCount(round(figure.mean)))
    return _rate(figure.mean) if name == "tokens_per_second" else _precise(figure.mean)


def deviation(figure: Figure, name: str) -> str:
    """Returns the standard deviation of one repetition, "" for a figure that was measured once."""
    if figure.error is None:
        return ""
    spread = figure.error * math.sqrt(figure.count)
    return _rate(spread) if name == "tokens_per_second" else _precise(spread)


def _precise(number: float) -> str:
    return f"{number:.3f}" if number >= 0.1 else f"{number:.2g}"


def _rate(number: float) -> str:
    return f"{number:.1f}" if number < 1000 else f"{number:.0f}"


def _predicted(rows: Sequence[Measurement]) -> list[str]:
    found = [(row.figures.get(PREDICTED + main_figure(row)), main_figure(row)) for row in rows]
    return [value(figure, name) if figure is not None else "" for figure, name in found]


def _from_disk(rows: Sequence[Measurement]) -> list[tuple[str, list[str]]]:
    """The columns of models that run from the disk."""

    def cells(name: str, form: Callable[[float], str]) -> list[str]:
        found = [row.figures.get(name) for row in rows]
        return [form(figure.mean) if figure is not None else "" for figure in found]

    return [
        ("in memory", cells("disk_in_memory", "{:.0%}".format)),
        ("read/token", cells("disk_bytes_per_token", lambda mean: str(ByteCount(round(mean))))),
        ("waiting", cells("disk_waiting", "{:.0%}".format)),
    ]


def _per_joule(rows: Sequence[Measurement]) -> list[str]:
    found = [row.figures.get("joules_per_token") for row in rows]
    return [_rate(1 / figure.mean) if figure is not None and figure.mean > 0 else "" for figure in found]


def title(rows: Sequence[Measurement]) -> str:
    """Returns 'nano (12.5 MiB), 1 thread, KV cache f16; AMD EPYC, 2 cores, ...', without conditions that differ."""
    models = {(row.model, row.size) for row in rows}
    names = [f"{PurePath(model).name} ({ByteCount(size)})" for model, size in models]
    first = rows[0]
    words = [f"{names[0] if len(names) == 1 else counted(len(names), 'model')}"]
    if len({row.parameters.get("threads") for row in rows}) == 1:
        words.append(counted(int(first.parameters.get("threads") or 0), "thread"))
    if len({row.parameters.get("kv_type") for row in rows}) == 1:
        words.append(f"KV cache {first.parameters.get('kv_type')}")
    return f"{', '.join(words)}; {machine(first)}"


def machine(row: Measurement) -> str:
    here = row.conditions
    cores = counted(here.cores, "core")
    return f"{here.processor}, {cores}, {ByteCount(here.memory)}; dsr {here.dsr}, llama-cpp-python {here.engine}"


def warnings(rows: Sequence[Measurement]) -> list[str]:
    """Returns a sentence about disturbed rows, with the most disturbed one; nothing if none was disturbed."""
    disturbed = [row for row in rows if row.conditions.disturbed]
    if not disturbed:
        return []
    worst = max(disturbed, key=lambda row: row.conditions.load)
    return [
        f"{len(disturbed)} of {counted(len(rows), 'row')} are doubtful; the worst is {worst.test}: "
        f"{worst.conditions.disturbed}"
    ]


def as_markdown(rows: Sequence[Measurement], command: str, notes: Sequence[str]) -> str:
    """Returns a document with the command, the machine, the table and the legend."""
    lines = table(rows, full=True).markdown()
    words = ["", *(f"- {note}" for note in notes)] if notes else []
    return "\n".join(
        ["# Speed", "", f"    {command}", "", f"On {machine(rows[0])}.", "", *lines, *words, "", legend(rows), ""]
    )
