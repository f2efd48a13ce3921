"""One model of the catalogue to suggest for a machine, and the machine measured for that. The prediction is cheap.

A model is suggested if it thinks, was released in the year before the newest one, and runs at its usual quantization at
least as fast as people read. Of these the strongest is taken. Strength is the geometric mean of all and active
parameters, the usual rule of thumb for the dense model that a mixture of experts equals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from dsr.hub.select_files import estimated_memory
from dsr.loading.options import LoadOptions
from dsr.models.catalog import Catalog, CatalogEntry
from dsr.plan.runnable import COMFORTABLE, RunnableModel, runnable_entry
from runtime.machine.machine import Machine

_YEAR = 12  # months: a model of the year before is weaker than a new one of the same size


def suggestion(catalog: Catalog, machine: Machine) -> RunnableModel | None:
    """The suggested model with its predicted memory and speed; the fastest where all are slow, None where none fits."""
    fastest: RunnableModel | None = None
    for entry in candidates(catalog.of_last(_YEAR), machine):
        row = runnable_entry(entry, machine, LoadOptions(), smaller=False)
        if row is None:
            continue
        if row.tokens_per_second >= COMFORTABLE:
            return row
        if fastest is None or row.tokens_per_second > fastest.tokens_per_second:
            fastest = row
    return fastest


def candidates(entries: Iterable[CatalogEntry], machine: Machine) -> list[CatalogEntry]:
    """The models that think and may fit, the strongest first."""
    free = machine.usable().memory_free
    fitting = (each for each in entries if each.thinking != "none" and estimated_memory(each) <= free)
    return sorted(fitting, key=strength, reverse=True)


def strength(entry: CatalogEntry) -> float:
    return math.sqrt(entry.parameters * entry.active_parameters)
