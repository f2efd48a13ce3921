"""What a model will take once it is open, before it is opened."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from dsr.loading.draft import find_draft_model
from dsr.loading.from_disk import fit_on_host
from dsr.loading.options import LoadOptions
from dsr.loading.reach import settled
from dsr.models.model import Model
from runtime.base.errors import DoesNotFit
from runtime.base.types import ByteCount
from runtime.gguf.engine_lists import check_answers
from runtime.machine.host import probe
from runtime.machine.machine import usable
from runtime.placement import memory


class Need(NamedTuple):
    """Bytes that a model takes when it is open: weights, cache, buffers and those of a draft model, and at
    most `host_cache` of idle texts."""

    model: ByteCount
    host_cache: ByteCount = ByteCount(0)

    @property
    def total(self) -> ByteCount:
        return ByteCount(self.model + self.host_cache)


def memory_need(model: Model, options: LoadOptions) -> Need:
    """The memory that the model takes when it is open. Raises as `load` does.

    A model that is larger than memory needs all of it: it runs from the disk when it is alone.
    """
    card = model.card
    check_answers(card)
    options = settled(options, card, model.entry)
    host = probe()
    draft = find_draft_model(options.draft, card, options.context) if options.draft is not None else None
    drafting = draft.memory if draft is not None else 0
    host = replace(host, memory_available=ByteCount(max(0, host.memory_available - drafting)))
    try:
        fit = fit_on_host(card, host, options)
    except DoesNotFit:
        return Need(host.memory_total)
    if fit.from_disk is not None:
        return Need(host.memory_total)
    need = memory.need(
        card, fit.context, options.slots, options.kv_type, options.drafted, kv_full=options.kv_full, mtp=options.mtp
    )
    return Need(
        ByteCount(need.total + drafting), memory.host_cache(need.kv_cache, usable(host.memory_available) - need.total)
    )
