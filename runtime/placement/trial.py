"""What the first opening of a file may take, from its header; and that opening."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.base.errors import DoesNotFit, Incompatible
from runtime.base.run import MOST_THREADS, Run
from runtime.base.types import ByteCount
from runtime.from_disk.units import FromDisk, units_of
from runtime.gguf.adapter import Adapter
from runtime.gguf.card import ModelCard
from runtime.gguf.embedding import embedding_form
from runtime.gguf.engine_lists import check_answers
from runtime.machine.host import probe
from runtime.machine.machine import usable
from runtime.placement import memory
from runtime.placement.embedding import SHORTEST, plan_embedding

if TYPE_CHECKING:
    from runtime.llama.limited_child import Limits

_SECONDS = 60.0
_BYTES_PER_SECOND = 10e6  # of a slow disk, or of slow arithmetic with weights that are in memory
# The need of a rare architecture is only known roughly, and ggml pads what it copies into another order.
_ROUGHLY = 2
_PADDED = 1.25
_BASE = ByteCount(1 << 30)
_ALIGNMENT = 32  # TENSOR_ALIGNMENT of ggml-impl.h: the engine ends the process where mapped weights begin elsewhere
# Without weights: the vocabulary and the graph. Those of Kimi K2 take 0.4 GiB.
_LAYOUT, _LAYOUT_SECONDS = ByteCount(4 << 30), 300.0
_EXPERTS_OF_TOKENS = 4  # the most tokens of one pass of a trial from the disk, with room for those read ahead
_PROGRAM = ByteCount(256 << 20)  # interpreter, libraries, the engine's tables


def limits_of(
    card: ModelCard, available: ByteCount, kv_type: str = "f16", *, kv_full: bool = False, mtp: bool = False
) -> Limits:
    """What a trial may take where a model may take `available` bytes. Raises DoesNotFit before the file is read."""
    from runtime.llama.trial_process import CONTEXT, DRAFTED, SLOTS

    need = memory.need(card, CONTEXT, SLOTS, kv_type, DRAFTED, kv_full=kv_full, mtp=mtp).beyond_weights
    if need > available:
        raise DoesNotFit(
            f"{card.path}: the model needs {need} of memory in addition to its weights, and {available} is free",
            hint="choose a smaller model, or close other programs",
        )
    return _limits(card, need, available)


def _limits(card: ModelCard, need: int, available: ByteCount) -> Limits:
    """The limits of a trial that needs `need` bytes in addition to the weights."""
    from runtime.llama.limited_child import Limits

    copies = round(card.weights_size * _PADDED)
    repack = need + copies <= available
    enough = _ROUGHLY * need + _BASE + (copies if repack else 0)
    return Limits(
        memory=ByteCount(max(need + _PROGRAM, min(enough, available))),
        seconds=_SECONDS + card.size / _BYTES_PER_SECOND,
        repack=repack,
    )


def check_alignment(card: ModelCard) -> None:
    """Raise Incompatible if the engine cannot use the weights where they lie in the file."""
    for tensor in card.tensors:
        if tensor.offset % _ALIGNMENT:
            raise Incompatible(
                f"{card.files[tensor.file]}: its weights begin at byte {tensor.offset}, and the engine maps only those "
                f"at multiples of {_ALIGNMENT} (general.alignment)",
                hint="write the file again with dsr quantize, or take another conversion of the model",
            )


def try_file(
    card: ModelCard,
    run: Run,
    kv_type: str = "f16",
    *,
    kv_full: bool = False,
    mtp: bool = False,
    adapters: tuple[Adapter, ...] = (),
) -> None:
    """Open a file once in a child process. Everything that opens a file of others in this process calls it before.

    Raises Incompatible for a file that the engine cannot use, as EngineFailed where it crashes it; DoesNotFit, Aborted.
    """
    from runtime.llama import OpenOptions
    from runtime.llama.trial_process import CONTEXT, try_in_child

    check_answers(card)
    check_alignment(card)
    host = probe()
    available = usable(host.memory_available)
    limits = limits_of(card, available, kv_type, kv_full=kv_full, mtp=mtp)
    limits = replace(limits, memory=ByteCount(limits.memory + 2 * sum(each.size for each in adapters)))
    on_disk = None if mtp or adapters else experts_on_disk(card, available, kv_type, kv_full=kv_full)
    if on_disk is not None:
        limits = replace(limits, memory=available, address_space=round(_PADDED * card.weights_size))
    options = OpenOptions(
        context=CONTEXT,
        threads=run.threads or min(host.cores, MOST_THREADS),
        kv_type=kv_type,
        kv_full=kv_full,
        mtp=mtp,
        adapters=adapters,
        from_disk=on_disk,
    )
    try_in_child(card.path, options, limits, run)


def experts_on_disk(card: ModelCard, available: int, kv_type: str, *, kv_full: bool) -> FromDisk | None:
    """How the trial opens a mixture of experts that has no room; None for other models: their weights are mapped.

    A mapped mixture would read nearly all of its file, page by page."""
    from runtime.llama.trial_process import CONTEXT, DRAFTED, SLOTS

    units = units_of(card)
    need = memory.need(card, CONTEXT, SLOTS, kv_type, DRAFTED, kv_full=kv_full)
    if need.total <= available or not units.stacks or sys.platform != "linux":
        return None
    room = available - (need.total - units.bytes)
    least = _EXPERTS_OF_TOKENS * card.experts_used * max(units.paged_sizes)
    return FromDisk(least) if room >= least else None


def try_embedder(card: ModelCard, run: Run) -> None:
    """Open a file once as an embedder in a child process, as `try_file` does for answers. Raises as it does."""
    from runtime.llama import trial_process

    available = usable(probe().memory_available)
    plan = plan_embedding(card, available, min(SHORTEST, embedding_form(card).longest))
    check_alignment(card)
    threads = run.threads or min(probe().cores, MOST_THREADS)
    limits = _limits(card, plan.need.beyond_weights, available)
    trial_process.try_embedder(card.path, plan.options, limits, threads, run)


def try_layout(path: Path, run: Run) -> None:
    """Let the engine open a file that has only its header and its size, in a child process: the names and shapes of
    the tensors, the metadata, the vocabulary, and the graph that follows from them.

    Raises EngineFailed with the engine's reason, DoesNotFit, Aborted."""
    from runtime.llama import OpenOptions
    from runtime.llama.limited_child import Limits
    from runtime.llama.trial_process import CONTEXT, try_in_child

    limits = Limits(memory=_LAYOUT, seconds=_LAYOUT_SECONDS, repack=False)
    try_in_child(path, OpenOptions(context=CONTEXT, threads=1), limits, run, weights=False)
