"""What can I run? The models that are here and those of the catalogue, as far as they fit, ranked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dsr.loading.options import LoadOptions
from dsr.loading.place import PlaceFunction
from dsr.models import library
from dsr.models.catalog import CatalogEntry, load
from dsr.plan.decide import Plan, placed
from dsr.plan.sketch import mixtures, usual_down
from dsr.plan.subject import Subject, from_catalogue
from dsr.store.predictions import PredictedRun
from runtime.base.errors import DoesNotFit, DsrError
from runtime.base.types import ByteCount
from runtime.machine.machine import Machine
from runtime.placement.memory import need
from runtime.placement.place import place

CONTEXT = 8192  # tokens, where none was asked for
COMFORTABLE = 5.0  # tokens per second: about as fast as one reads; slower models come last


@dataclass(frozen=True, slots=True)
class Row:
    """One model that fits. `larger` are its other quantizations that fit; `estimated`: not from the model's header."""

    name: str
    quant: str
    parameters: int
    what: str
    memory: ByteCount
    tokens_per_second: float
    larger: tuple[str, ...] = ()
    estimated: bool = False

    def json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "quant": self.quant,
            "parameters": self.parameters,
            "what": self.what,
            "memory_bytes": int(self.memory),
            "tokens_per_second": round(self.tokens_per_second, 3),
            "larger_quants": list(self.larger),
            "estimated": self.estimated,
        }


def survey(
    machine: Machine,
    options: LoadOptions,
    entries: Sequence[CatalogEntry] | None = None,
    place: PlaceFunction = place,
    *,
    past: Sequence[PredictedRun] = (),
) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """(what is here, what the catalogue has), each ranked: the largest first, those that are hard to wait for last."""
    entries = load().entries if entries is None else entries
    known = (_of_entry(entry, machine, options, place, past) for entry in entries)
    return _ranked(_here(machine, options, place, past)), _ranked(row for row in known if row is not None)


def _ranked(rows: Iterator[Row]) -> tuple[Row, ...]:
    return tuple(sorted(rows, key=lambda row: (row.tokens_per_second < COMFORTABLE, -row.parameters, row.name)))


def _here(machine: Machine, options: LoadOptions, place: PlaceFunction, past: Sequence[PredictedRun]) -> Iterator[Row]:
    for local in library.installed():
        if local.kind != "gguf":
            continue
        try:
            subject = Subject(local.reference, local.name, local.quant, local.card, entry=local.entry)
            plan = placed(subject, machine, _with_context(options, subject), place, past=past)
        except DsrError:  # what cannot be used is for `dsr show` to explain
            continue
        what = local.entry.describe() if local.entry else local.name
        yield _row(plan, subject.reference.removesuffix(f":{local.quant}"), what)


def _of_entry(
    entry: CatalogEntry, machine: Machine, options: LoadOptions, place: PlaceFunction, past: Sequence[PredictedRun]
) -> Row | None:
    """At the usual quantization; where that does not fit, at the largest that does."""
    known = list(mixtures(entry))
    subjects = {quant: from_catalogue(entry, quant) for quant in known}
    wanted = _with_context(options, subjects[known[0]])
    assert wanted.context is not None
    free = machine.usable().memory_free
    fitting = [
        quant
        for quant, subject in subjects.items()
        if need(subject.card, wanted.context, wanted.slots, wanted.kv_type).total <= free
    ]
    for quant in usual_down(entry):
        if quant not in fitting:
            continue
        try:
            plan = placed(subjects[quant], machine, wanted, place, past=past)
        except DoesNotFit:
            continue
        larger = tuple(other for other in fitting if known.index(other) > known.index(quant))
        return replace(_row(plan, entry.name, entry.describe()), larger=larger, estimated=True)
    return None


def _with_context(options: LoadOptions, subject: Subject) -> LoadOptions:
    trained = subject.card.context_length
    return replace(options, context=options.context or min(CONTEXT, trained))


def _row(plan: Plan, name: str, what: str) -> Row:
    return Row(
        name=name,
        quant=plan.subject.quant or "-",
        parameters=plan.subject.card.parameters,
        what=what,
        memory=plan.memory,
        tokens_per_second=plan.placement.tokens_per_second,
    )
