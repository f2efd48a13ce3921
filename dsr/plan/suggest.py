"""One model of the catalogue to suggest for a machine, and the machine measured for that. The prediction is cheap.

A model is suggested if it runs at its usual quantization at least as fast as people read; of these the strongest, where
a model below 15 tokens/s counts as a weaker one: half the speed is worth 0.7 of the strength. Of equals the newest is
taken. Of the whole catalogue only models count that think and were released in the year before the newest one. Strength
is the geometric mean of all and active parameters, the usual rule of thumb for the dense model that a mixture of
experts equals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from dsr.loading.machine import measure_this_machine
from dsr.loading.options import LoadOptions
from dsr.models.catalog import Catalog, CatalogEntry, load
from dsr.plan.estimate import estimated_card
from dsr.plan.runnable import COMFORTABLE, RunnableModel, from_the_disk, runnable_entry
from runtime.base.errors import EngineFailed
from runtime.base.events import Listener, ignore
from runtime.machine.machine import Machine

_USUAL_BITS = 4  # for each weight: no usual quantization has less
_PATIENT = 15.0  # tokens per second: a thought of 1000 tokens takes a minute; a slower model counts less
_YEAR = 12  # months: a model of the year before is weaker than a new one of the same size


def recent_thinkers(catalog: Catalog) -> tuple[CatalogEntry, ...]:
    """The models that think and are of the last year: one of them is suggested to a person who names no family."""
    return tuple(each for each in catalog.of_last(_YEAR) if each.thinking != "none")


def suggestion(entries: Iterable[CatalogEntry], machine: Machine) -> RunnableModel | None:
    """The suggested model with its predicted memory and speed; the fastest where all are slow, None where none fits."""
    best = fastest = None
    score = 0.0
    for entry in candidates(entries, machine):
        if strength(entry) <= score:
            break  # no speed makes up for it
        row = runnable_entry(entry, machine, LoadOptions(), smaller=False)
        if row is None:
            continue
        if fastest is None or row.tokens_per_second > fastest.tokens_per_second:
            fastest = row
        worth = strength(entry) * math.sqrt(min(1.0, row.tokens_per_second / _PATIENT))
        if row.tokens_per_second >= COMFORTABLE and worth > score:
            best, score = row, worth
    return best or fastest


def disk_suggestion(entries: Iterable[CatalogEntry], machine: Machine) -> RunnableModel | None:
    """The strongest of the models that fit at no quantization and run from the disk at a bearable speed."""
    for entry in sorted(entries, key=strength, reverse=True):
        if (row := from_the_disk(entry, machine, LoadOptions())) is not None:
            return row
    return None


def machine_for_suggestions(listen: Listener = ignore) -> Machine | None:
    """This machine, measured for the usual types of weights; None where nothing can be measured."""
    usual = load().lookup("qwen3:8b")
    assert usual is not None
    try:
        return measure_this_machine(estimated_card(usual, "Q4_K_M"), listen)
    except EngineFailed:
        return None


def candidates(entries: Iterable[CatalogEntry], machine: Machine) -> list[CatalogEntry]:
    """The models whose weights have room, the strongest first."""
    free = machine.usable().memory_free
    fitting = (each for each in entries if each.parameters * _USUAL_BITS // 8 <= free)
    return sorted(fitting, key=lambda each: (strength(each), each.released or ""), reverse=True)


def strength(entry: CatalogEntry) -> float:
    return math.sqrt(entry.parameters * entry.active_parameters)
