"""Which of several models with one name suits a machine: `dsr pull deepseek-r1` names seven. The prediction is cheap.

The strongest model that runs here at reading speed is taken (suggest.py). Models that think come before those that do
not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dsr.loading.options import LoadOptions
from dsr.models.catalog import CatalogEntry
from dsr.plan.report import figure
from dsr.plan.runnable import COMFORTABLE, RunnableModel, from_the_disk, runnable_entry
from dsr.plan.suggest import strength, suggestion
from runtime.machine.machine import Machine

_CLEARLY = 1.25  # times as strong: another size


@dataclass(frozen=True, slots=True)
class WhichModel:
    """The model that is taken of those that a name means, and why; `others` says in a line each what else there is."""

    entry: CatalogEntry
    why: str
    others: tuple[str, ...]


def which_model(name: str, entries: Sequence[CatalogEntry], machine: Machine, *, from_disk: bool) -> WhichModel:
    """The one of the entries that suits the machine; the smallest where none fits. `from_disk`: models may run so."""
    wanted = [each for each in entries if each.thinking != "none"] or list(entries)
    smallest = min(wanted, key=strength)
    row = suggestion(wanted, machine)
    if row is None and from_disk:
        row = from_the_disk(smallest, machine, LoadOptions())
    entry = smallest if row is None else next(each for each in wanted if each.name == row.name)
    if row is None:
        what = f"none fits into memory; the smallest is {entry.name}, {entry.describe()}"
    elif row.from_disk:
        what = f"none fits into memory; {entry.name} runs from the disk: {entry.describe()}, {_figures(row)}"
    elif row.tokens_per_second < COMFORTABLE:
        what = f"all are slow here; {entry.name} is the fastest: {entry.describe()}, {_figures(row)}"
    else:
        what = f"{entry.name} suits this machine: {entry.describe()}, {_figures(row)}"
    return WhichModel(entry, f"{name} means {len(entries)} models; {what}", _others(entry, wanted, machine))


def _figures(row: RunnableModel) -> str:
    return f"~{row.memory} of memory, ~{figure(row.tokens_per_second)} tokens/s at {row.quant}"


def _others(taken: CatalogEntry, entries: Sequence[CatalogEntry], machine: Machine) -> tuple[str, ...]:
    """The next smaller one, the next larger one, and the true model if distills share its name."""
    size = strength(taken)
    smaller = [each for each in entries if strength(each) * _CLEARLY < size]
    larger = [each for each in entries if strength(each) > size * _CLEARLY]
    lines = []
    named = [max(smaller, key=_rank)] if smaller else []
    named += [min(larger, key=strength)] if larger else []
    for other in named:
        row = runnable_entry(other, machine, LoadOptions(), smaller=False)
        word = "smaller" if other in smaller else "larger"
        lines.append(f"{word}: {other.name} ({_figures(row) if row else 'does not fit into memory'})")
    true = [each for each in entries if not each.distill]
    if taken.distill and len(true) == 1 and true[0] not in named:
        lines.append(f"{taken.name} is a distill; the true {true[0].describe()} is {true[0].name}")
    return tuple(lines)


def _rank(entry: CatalogEntry) -> tuple[float, str]:
    return strength(entry), entry.released or ""
