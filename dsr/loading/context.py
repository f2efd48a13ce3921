"""How many tokens of context a model gets, and how many samples share them."""

from __future__ import annotations

from dsr.loading.options import LoadOptions
from dsr.models.reach import DEFAULT_CONTEXT, reach_of
from runtime.base.errors import DoesNotFit, UsageError
from runtime.base.types import ByteCount
from runtime.gguf.card import ModelCard
from runtime.gguf.kv_types import kv_types
from runtime.machine.host import Host
from runtime.machine.machine import Machine, usable
from runtime.placement import memory

# The least context of a sample that is drawn with others. They share the cells; a sample without a free cell waits
# until others end, and is then read again.
MIN_SLOT_TOKENS = 256
SHORTEST_CONTEXT = 2048
MAX_SHARED_CONTEXT = 32768  # the most tokens that are set aside for samples without being asked for


def context_for_host(card: ModelCard, host: Host, options: LoadOptions) -> int:
    """`context_for_memory` in the memory that a model may take on this computer."""
    return context_for_memory(card, usable(host.memory_available), options)


def context_for_machine(card: ModelCard, machine: Machine, options: LoadOptions) -> int:
    """`context_for_memory` in the memory that all devices can spare together; a placement may have to shorten it.

    Raises DoesNotFit for a context that the user gave.
    """
    try:
        context = context_for_memory(card, machine.usable().memory_free, options)
    except DoesNotFit:
        if options.context is not None:
            raise
        context = min(reach_of(card, options.yarn), SHORTEST_CONTEXT)
    return context


def context_for_memory(card: ModelCard, available: ByteCount, options: LoadOptions) -> int:
    """The user's context in tokens, or DEFAULT_CONTEXT, as far as the model reaches and as it fits `available` bytes.

    For samples that are drawn together it may be larger than one text can be, because they share it.

    Raises DoesNotFit, and UsageError for an impossible type of the cache. Weights are mapped, so a model larger than
    memory still runs, slowly, from the disk; the cache and the working buffers must fit.
    """
    check_kv_types(card, options)
    reach = reach_of(card, options.yarn)

    def need_of(context: int) -> memory.MemoryNeed:
        return memory.need(
            card, context, options.slots, options.kv_type, options.drafted, kv_full=options.kv_full, mtp=options.mtp
        )

    most = memory.largest_context(need_of, available, reach)
    need = need_of(options.context or 1)
    if options.context is not None and need.total - need.weights > available:
        raise DoesNotFit(
            f"a context of {options.context} tokens needs {ByteCount(need.total - need.weights)} in addition to the "
            f"weights, and {available} of memory is free",
            hint=f"try --ctx-size {max(most, 512)}, or --kv-type q8_0, which halves it",
        )
    if options.context is None and most < 1:
        raise DoesNotFit(
            f"{card.name} needs {need.total}, and {available} of memory is free",
            hint=f"choose a smaller quantization, or force it with --ctx-size {min(reach, SHORTEST_CONTEXT)}: "
            "slow, from the disk",
        )
    usual = min(reach, DEFAULT_CONTEXT) if options.yarn is None else reach
    if options.context is None and most >= usual:
        most = usual
        shared = options.slots * min(reach, options.reply_tokens)
        shared = min(shared, max(MAX_SHARED_CONTEXT, options.slots * MIN_SLOT_TOKENS))
        while shared > most and need_of(shared).total > available:
            shared //= 2
        most = max(most, shared)
    return options.context or most


def check_kv_types(card: ModelCard, options: LoadOptions) -> None:
    """Raise UsageError for types of keys and values that the model cannot have."""
    types = kv_types(options.kv_type)
    if card.is_mla and types.keys != types.values:
        raise UsageError(
            f"{card.name} caches keys and values as one (MLA): they need one type, not {options.kv_type}",
            hint=f"--kv-type {types.keys.name.lower()}",
        )


def slots_for(context: int, options: LoadOptions) -> int:
    """The asked number of slots, or fewer where the context has no room for so many samples."""
    return max(min(options.slots, context // MIN_SLOT_TOKENS), 1)
