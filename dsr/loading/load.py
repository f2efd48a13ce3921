"""From a local model file to an engine that answers: check, try, size the context, load, choose threads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dsr.loading import machine as this_machine
from dsr.loading import place
from dsr.loading.draft import MTP, check_mtp, draft_model, drafting, unusable_mtp
from dsr.loading.nodes import Lending
from dsr.loading.predict import Forecast
from dsr.models.chat_format import ChatFormat
from dsr.models.model import Model
from dsr.store import paths
from runtime.base.errors import BadModelFile, DoesNotFit, EngineFailed
from runtime.base.events import Event, Listener, Notice, ignore
from runtime.base.keyed_cache import KeyedCache
from runtime.base.run import Run, Stop
from runtime.base.types import ByteCount
from runtime.engine.backend import Backend
from runtime.engine.speculation import LONGEST_AHEAD, LONGEST_DRAFT, Drafter
from runtime.engine.thinking import ThinkingMarkers
from runtime.gguf.reader import ModelCard
from runtime.machine import threads
from runtime.machine.host import Host, busy_cores, probe, resident_memory
from runtime.machine.machine import Machine, usable
from runtime.nodes.addresses import NodeEntry
from runtime.placement import memory

if TYPE_CHECKING:
    from runtime.llama import OpenOptions

# The least context a sample should have beside others: they share the cells, and one for which there are none left
# waits for others to end and is read again then.
LEAST_ROOM = 256
_ROOM_IN_ALL = 32768  # tokens; more than that is only set aside for samples when it is asked for
REPLY_ROOM = 4096  # tokens that a sample of several should have room for, thought and answer together

# A thread count is measured anew when a token takes longer than so many times what it took then.
_STILL_THE_SAME = 3


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """What the user decided about opening a model; None leaves it to the model and the machine.

    `slots` samples can be drawn at once, if there is room. Where it is known that so many will be, each should have
    `room` for so many tokens. `draft` names a second model that guesses ahead, or is "ngram" or "mtp". `nodes` share
    the work; when one of them is lost, `retry` goes on without it at once. `foretell` asks for a forecast with given
    threads too, where this machine was measured with as many; `measure` also where it was not, which it then is.
    """

    context: int | None = None
    threads: int | None = None
    kv_type: str = "f16"
    slots: int = 1
    room: int = 0
    template: str | None = None
    draft: str | None = None
    nodes: tuple[NodeEntry, ...] = ()
    retry: bool = False
    foretell: bool = False
    measure: bool = False

    @property
    def drafted(self) -> int:
        """How many tokens may be guessed and checked at once."""
        return LONGEST_AHEAD if self.draft == MTP else LONGEST_DRAFT if self.draft else 0


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A loaded model with everything a conversation needs to know about it.

    `reach`: the most tokens of one sample with its prompt, where the context has room for more than the model can see.
    `forecast` is None where nothing can be foretold: the machine was not measured, drafts or nodes come into play.
    `reports`: the backend adds events about its nodes here while it computes; see `Engine`.
    """

    model: Model
    backend: Backend
    chat_format: ChatFormat
    threads: int
    load_seconds: float
    reach: int | None = None
    drafter: Drafter | None = None
    forecast: Forecast | None = None
    reports: list[Event] = field(default_factory=list)

    @property
    def card(self) -> ModelCard:
        return self.model.card

    @property
    def markers(self) -> ThinkingMarkers | None:
        return self.chat_format.markers


@contextmanager
def opened(
    local: Model, request: OpenRequest, *, stop: Stop | None = None, listen: Listener = ignore
) -> Iterator[LoadedModel]:
    """Open a model for the length of the block.

    Raises BadModelFile for a file that cannot be trusted, Incompatible for one that cannot be used or has no chat
    template, DoesNotFit, Aborted.
    """
    started = time.perf_counter()
    card = local.card
    chat_format = local.chat_format(request.template)
    if not local.embedded:
        try_once(local.path, card)
    mtp = request.draft == MTP
    if mtp:
        check_mtp(card, nodes=bool(request.nodes))
        try:
            try_once(local.path, card, mtp=True)
        except (BadModelFile, EngineFailed) as error:
            raise unusable_mtp(card, error) from None
    second = draft_model(request.draft, card, request.context)
    host = probe()
    if second is not None:
        if not second.local.embedded:
            try_once(second.local.path, second.card)
        host = replace(host, memory_available=ByteCount(max(0, host.memory_available - second.memory)))
    lending = Lending.of(request.nodes, request.retry, listen) if request.nodes else None
    home = None
    if lending is not None or this_machine.has_gpus():
        home = this_machine.measured(host, card, busy_cores(), listen)
    if home is None:
        context = choose_context(card, host, request)
    else:
        context = context_on(card, lending.together_with(home) if lending is not None else home, request)

    from runtime.llama import LlamaBackend, OpenOptions

    before = resident_memory()
    # Looking takes a tenth of a second, which only the choice of threads and a forecast are worth.
    busy = busy_cores() if request.threads is None or request.foretell or request.measure else 0
    machine = _machine(card, host, busy, request, listen)
    left_behind = ByteCount(max(0, resident_memory() - before))
    options = OpenOptions(
        context=context,
        slots=choose_slots(context, request),
        threads=request.threads or 1,
        kv_type=request.kv_type,
        visible=chat_format.markers.texts if chat_format.markers else (),
        drafted=request.drafted,
        mtp=mtp,
    )
    if home is not None and lending is None:
        options = _on_gpus(card, home, options, request)
        listen(Notice(place.in_words(options, card)))
    reports: list[Event] = []
    with (
        lending.backend(
            local.path,
            card,
            options,
            home,
            _together(options, request),
            run=Run(stop or Stop(), listen),
            report=reports.append,
        )
        if lending is not None and home is not None
        else LlamaBackend(local.path, options, Run(stop or Stop(), listen))
    ) as backend:
        count = request.threads or _best_threads(backend, card, host, busy, _elsewhere(request, options))
        with drafting(request.draft, second, backend, count, stop=stop, listen=listen) as drafter:
            yield LoadedModel(
                reports=reports,
                model=local,
                backend=backend,
                chat_format=chat_format,
                threads=count,
                load_seconds=time.perf_counter() - started,
                reach=card.context_length
                if request.context is None and options.context > card.context_length
                else None,
                drafter=drafter,
                forecast=_forecast(card, host, machine, options, count, left_behind),
            )


def choose_context(card: ModelCard, host: Host, request: OpenRequest) -> int:
    """`context_for` what a model may take of this machine's memory."""
    return context_for(card, usable(host.memory_available), request)


def context_on(card: ModelCard, machine: Machine, request: OpenRequest) -> int:
    """`context_for` what all devices can spare together, to begin with: a split may need a shorter one. Raises
    DoesNotFit for an asked one."""
    try:
        context = context_for(card, machine.spared().memory_free, request)
    except DoesNotFit:
        if request.context is not None:
            raise
        context = min(card.context_length, place.SHORTEST_CONTEXT)
    alone = request.context is not None or len(machine.devices) == 1
    return context if alone else min(context, place.ENOUGH_CONTEXT)


def context_for(card: ModelCard, available: ByteCount, request: OpenRequest) -> int:
    """The asked context, or the smaller of the model's training context and what fits in `available` bytes.

    Where samples are drawn together it may be larger than the training context: it is shared by all of them.

    Raises DoesNotFit. Weights are mapped, so a model larger than memory still runs, slowly, from the disk; what the
    cache and the working buffers need must be there.
    """

    def need_of(context: int) -> memory.MemoryNeed:
        return memory.need(card, context, request.slots, request.kv_type, request.drafted, mtp=mtp)

    mtp = request.draft == MTP
    most = memory.largest_context(card, available, request.slots, request.kv_type, request.drafted, mtp=mtp)
    need = need_of(request.context or 1)
    if request.context is not None and need.total - need.weights > available:
        raise DoesNotFit(
            f"a context of {request.context} tokens needs {ByteCount(need.total - need.weights)} beside the weights, "
            f"and {available} of memory is free",
            hint=f"try --ctx-size {max(most, 512)}, or --kv-type q8_0, which halves it",
        )
    if request.context is None and most < 1:
        raise DoesNotFit(
            f"{card.name} needs {need.total}, and {available} of memory is free",
            hint="choose a smaller quantization, or force it with --ctx-size 2048: slow, from the disk",
        )
    if request.context is None and most == card.context_length:
        wanted = request.slots * min(card.context_length, request.room)
        wanted = min(wanted, max(_ROOM_IN_ALL, request.slots * LEAST_ROOM))
        while wanted > most and need_of(wanted).total > available:
            wanted //= 2
        most = max(most, wanted)
    return request.context or most


def choose_slots(context: int, request: OpenRequest) -> int:
    """As many as were asked for, unless the context has no room for so many samples."""
    return max(min(request.slots, context // LEAST_ROOM), 1)


def _together(options: OpenOptions, request: OpenRequest) -> int:
    """How many samples will be drawn together, as far as that is known."""
    return options.slots if request.room else 1


def _on_gpus(card: ModelCard, home: Machine, options: OpenOptions, request: OpenRequest) -> OpenOptions:
    """`options` with the layers where a token is drawn fastest, and with a shorter context where none was asked for
    that fits. Raises DoesNotFit."""
    wanted = place.wanted(options.context, _together(options, request), options.kv_type, options.drafted)
    shorter = request.context is None
    placement = place.placed(card, home, wanted, shorter=shorter, from_disk=not shorter)
    context = placement.request.context
    options = replace(options, context=context, slots=choose_slots(context, request))
    return place.carried_out(options, card, home, placement)


def _machine(card: ModelCard, host: Host, busy: int, request: OpenRequest, listen: Listener) -> Machine | None:
    """What this machine is known to do; None where nothing can be foretold."""
    if request.draft or request.nodes:
        return None
    with suppress(EngineFailed):
        threads = request.threads
        known = this_machine.known(host, card, busy, threads=threads)
        if known is None and request.measure:
            return this_machine.measured(host, card, busy, listen, threads=threads)
        return known
    return None


def _forecast(
    card: ModelCard, host: Host, machine: Machine | None, options: OpenOptions, threads: int, left_behind: ByteCount
) -> Forecast | None:
    """None where the machine was measured with another number of threads, and where there is more than its CPU."""
    if machine is None or len(machine.devices) > 1 or machine.devices[0].speed.threads != threads:
        return None
    need = memory.need(card, options.context, options.slots, options.kv_type, options.drafted)
    whole = need.total + memory.repacked(card, host.features)
    return Forecast(card, machine, options.context, options.slots, options.kv_type, whole, left_behind)


def try_once(path: Path, card: ModelCard, *, mtp: bool = False) -> None:
    """Open the file in a child process, unless a file with this header survived that before."""
    from runtime.llama.trial import try_in_child, try_mtp_in_child

    key = f"{card.header_digest}-{_engine_version()}{'-mtp' if mtp else ''}"
    survived = KeyedCache(paths.cache_folder() / "tried.json", bool)
    if not survived.get(key):
        (try_mtp_in_child if mtp else try_in_child)(path)
        survived.put({key: True})


def _elsewhere(request: OpenRequest, options: OpenOptions) -> str:
    """What does not leave all to the CPU, for whom another number of threads may be best."""
    if request.nodes:
        return f" {len(request.nodes)} nodes"
    return f" {sum(options.layers)} layers on {' '.join(options.gpus)}" if options.gpus else ""


def _best_threads(backend: threads.Threaded, card: ModelCard, host: Host, busy: int, elsewhere: str) -> int:
    """Measure once per model, machine, nodes and load, and again when what was found does not hold any more."""
    # A thread on a core that is busy makes all others wait at every step, so such counts are not even tried.
    free = max(1, host.cores - busy)
    key = f"{card.header_digest[:16]} {host.cpu} {host.cores} {free}{elsewhere}"
    cache = KeyedCache(paths.cache_folder() / "threads.json", dict)
    match cache.get(key):
        case {"threads": int(count), "seconds": float(seconds)} if 1 <= count <= host.threads:
            # Other work on the same cores can make each token a hundred times slower than with a thread less.
            backend.set_threads(count, count)
            if threads.seconds_per_token(backend) <= seconds * _STILL_THE_SAME:
                return count
    count = threads.measure(backend, threads.candidates(free))
    cache.put({key: {"threads": count, "seconds": threads.seconds_per_token(backend)}})
    return count


def _engine_version() -> str:
    from importlib.metadata import version

    return version("llama-cpp-python")
