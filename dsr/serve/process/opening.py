"""What a model will take once it is open, before it is opened."""

from __future__ import annotations

from dsr.loading.context import context_for_host
from dsr.loading.options import LoadOptions
from dsr.loading.reach import settled
from dsr.models.model import Model
from runtime.base.errors import DoesNotFit
from runtime.base.types import ByteCount
from runtime.gguf.engine_lists import check_answers
from runtime.machine.host import probe
from runtime.placement import memory


def memory_need(model: Model, options: LoadOptions) -> ByteCount:
    """The bytes of memory that the model takes when it is open: weights, cache, buffers. Raises as `load` does.

    A model that fits nowhere needs the whole memory: it runs from the disk when it is alone.
    """
    card = model.card
    check_answers(card)
    options = settled(options, card, model.entry)
    host = probe()
    try:
        context = context_for_host(card, host, options)
    except DoesNotFit:
        return host.memory_total
    return memory.need(card, context, options.slots, options.kv_type, kv_full=options.kv_full).total
