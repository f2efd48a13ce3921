"""Ranks the models that would run on a machine: the installed ones, and those of the catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dsr.loading.options import LoadOptions
from dsr.loading.place import PlaceFunction
from dsr.loading.reach import settled
from dsr.models import library
from dsr.models.catalog import CatalogEntry, load
from dsr.models.reach import DEFAULT_CONTEXT
from dsr.plan.decide import Plan, plan_placement
from dsr.plan.estimate import mixtures, quants_to_try
from dsr.plan.planned_model import PlannedModel, from_catalogue
from dsr.store.predictions import PredictedRun
from runtime.base.errors import DoesNotFit, DsrError
from runtime.base.types import ByteCount
from runtime.machine.machine import Machine
from runtime.placement.memory import need
from runtime.placement.place import place

BEARABLE = 0.5  # tokens per second: 1000 tokens in half an hour; slower models from the disk are not offered
COMFORTABLE = 5.0  # tokens per second, about the speed of reading; slower models come last


@dataclass(frozen=True, slots=True)
class RunnableModel:
    """A model that fits, or runs `from_disk`. `larger`: its larger quantizations that fit; `estimated`: from the
    catalogue, not a header."""

    name: str
    quant: str
    parameters: int
    what: str
    memory: ByteCount
    tokens_per_second: float
    larger: tuple[str, ...] = ()
    estimated: bool = False
    from_disk: bool = False

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
            "from_disk": self.from_disk,
        }


def runnable_models(
    machine: Machine,
    options: LoadOptions,
    entries: Sequence[CatalogEntry] | None = None,
    place: PlaceFunction = place,
    *,
    past: Sequence[PredictedRun] = (),
) -> tuple[tuple[RunnableModel, ...], tuple[RunnableModel, ...]]:
    """(installed models, models of the catalogue), each ranked: the largest first, then the slow ones, then models that
    run from the disk."""
    entries = load().entries if entries is None else entries
    known = (runnable_entry(entry, machine, options, place, past=past) for entry in entries)
    return _ranked(_here(machine, options, place, past)), _ranked(row for row in known if row is not None)


def _ranked(rows: Iterator[RunnableModel]) -> tuple[RunnableModel, ...]:
    def rank(row: RunnableModel) -> tuple[bool, bool, int, str]:
        return row.from_disk, row.tokens_per_second < COMFORTABLE, -row.parameters, row.name

    return tuple(sorted(rows, key=rank))


def _here(
    machine: Machine, options: LoadOptions, place: PlaceFunction, past: Sequence[PredictedRun]
) -> Iterator[RunnableModel]:
    for model in library.installed():
        if model.kind != "gguf":
            continue
        try:
            planned = PlannedModel(model.reference, model.name, model.quant, model.card, entry=model.entry)
            plan = plan_placement(planned, machine, _with_context(options, planned), place, past=past)
        except DsrError:  # `dsr show` says why a model cannot be used
            continue
        what = model.entry.describe() if model.entry else model.name
        yield _row(plan, model.reference.removesuffix(f":{model.quant}"), what)


def runnable_entry(
    entry: CatalogEntry,
    machine: Machine,
    options: LoadOptions,
    place: PlaceFunction = place,
    *,
    past: Sequence[PredictedRun] = (),
    smaller: bool = True,
) -> RunnableModel | None:
    """The model at its usual quantization, or at the largest smaller one that fits. Where none fits: the smallest one,
    if it runs from the disk at a bearable speed. None without any.

    Without `smaller` only the usual quantization is tried, which takes a fraction of the time.
    """
    known, tried = list(mixtures(entry)), quants_to_try(entry)
    models = {quant: from_catalogue(entry, quant) for quant in (known if smaller else tried[:1])}
    try:
        wanted = _with_context(options, models[tried[0]])
    except DsrError:  # it does not reach so far
        return None
    assert wanted.context is not None
    free = machine.usable().memory_free
    fitting = [
        quant
        for quant, model in models.items()
        if need(model.card, wanted.context, wanted.slots, wanted.kv_type, kv_full=wanted.kv_full).total <= free
    ]
    for quant in tried:
        if quant not in fitting:
            continue
        try:
            plan = plan_placement(models[quant], machine, wanted, place, past=past)
        except DoesNotFit:
            continue
        larger = tuple(other for other in fitting if known.index(other) > known.index(quant))
        return replace(_row(plan, entry.name, entry.describe()), larger=larger, estimated=True)
    return from_the_disk(entry, machine, options, place, past=past) if smaller and not fitting else None


def from_the_disk(
    entry: CatalogEntry,
    machine: Machine,
    options: LoadOptions,
    place: PlaceFunction = place,
    *,
    past: Sequence[PredictedRun] = (),
) -> RunnableModel | None:
    """The model at its smallest quantization, if it runs from the disk at a bearable speed."""
    model = from_catalogue(entry, next(iter(mixtures(entry))))
    if not _may_run_from_disk(model, machine):
        return None
    try:
        plan = plan_placement(model, machine, settled(options, model.card, entry), place, past=past)
    except DsrError:
        return None
    if plan.from_disk is None or plan.tokens_per_second < BEARABLE:
        return None
    return replace(_row(plan, entry.name, entry.describe()), estimated=True)


def _may_run_from_disk(model: PlannedModel, machine: Machine) -> bool:
    """A quick check before a plan is made: the model is larger than memory, and the disk is fast enough for the part of
    its experts, or of a dense model, that does not fit."""
    card, free = model.card, machine.usable().memory_free
    size = card.weights_size
    used = card.experts_used / card.experts if card.experts else 1.0
    return size > free and machine.disk_read >= BEARABLE * used * (size - free)


def _with_context(options: LoadOptions, model: PlannedModel) -> LoadOptions:
    trained = model.card.context_length
    return settled(replace(options, context=options.context or min(DEFAULT_CONTEXT, trained)), model.card, model.entry)


def _row(plan: Plan, name: str, what: str) -> RunnableModel:
    return RunnableModel(
        name=name,
        quant=plan.model.quant or "-",
        parameters=plan.model.card.parameters,
        what=what,
        memory=plan.memory,
        tokens_per_second=plan.tokens_per_second,
        from_disk=plan.from_disk is not None,
    )
