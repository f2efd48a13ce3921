"""From a model to an engine that answers: try, place, open, choose threads."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from dsr.loading import from_disk
from dsr.loading import machine as this_machine
from dsr.loading.context import context_for_machine, slots_for
from dsr.loading.draft import find_draft_model, with_draft
from dsr.loading.from_disk import DiskPlan, Fit
from dsr.loading.nodes import NodePool
from dsr.loading.opened_files import OpenedFiles
from dsr.loading.options import OFF, LoadOptions
from dsr.loading.place import describe_layers, place_on_gpus
from dsr.loading.predict import Predictor
from dsr.loading.profiled_picks import profiled_picks
from dsr.loading.reach import settled, too_long, yarn_note
from dsr.loading.state_identity import state_identity
from dsr.loading.threads import best_threads
from dsr.loading.tried_files import try_model, try_once
from dsr.models.model import ChatFormat, Model
from dsr.models.reach import reach_of
from runtime.base.errors import EngineFailed, Incompatible
from runtime.base.events import Event, Listener, Notice
from runtime.base.run import Run
from runtime.base.types import ByteCount, Message, SamplingParams, Tool
from runtime.engine.backend import ROWS, Backend, PassProgress
from runtime.engine.branches import branches
from runtime.engine.literal_text import ALWAYS_CONTROL
from runtime.engine.markers import ThinkingMarkers
from runtime.engine.prompt_options import PromptOptions
from runtime.engine.routing import RoutedBackend, RouteStatistics
from runtime.engine.sequence import Request
from runtime.engine.speculation import Drafter
from runtime.engine.template import Prompt
from runtime.engine.tool_calls import Calling
from runtime.engine.tool_grammar import call_grammar
from runtime.engine.tool_use import ToolUse
from runtime.from_disk.use import DiskUse
from runtime.gguf.adapter import Adapter, read_adapter
from runtime.gguf.card import ModelCard
from runtime.gguf.engine_lists import check_answers
from runtime.gguf.rope import Yarn
from runtime.machine.disk import network_file_system
from runtime.machine.host import Host, available_memory, busy_cores, probe, resident_memory
from runtime.machine.machine import Machine
from runtime.nodes.supervision import SupervisedBackend
from runtime.placement import memory
from runtime.placement.repacked import repacked

if TYPE_CHECKING:
    from runtime.llama import LlamaBackend, OpenOptions

_PLAIN = PromptOptions()
_THROUGH_CACHE = "the file system of the model has no direct reads: dsr reads through the system's cache, more slowly"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is open, with everything that a conversation needs.

    `yarn` scales the positions; None if they are not scaled. `predictor` is None if no speed can be predicted: the
    machine was not measured, or drafts or nodes take part. `reports`: the backend adds events about its nodes here
    while it computes, and tells `pass_progress` how far it has come; see `Engine`. `state_identity`: see
    `dsr.loading.state_identity`; "" if states cannot leave the process. `adapters` are LoRA adapters.
    `token_bytes`: bytes of cache for one token.
    `from_disk`: how a model that is larger than memory runs, and `disk_use` what it has read; None if it fits.
    `files` notices that another file took the name of one of the model's.
    `routes`: which of two models drew how many tokens, since the last call; None for one model.
    """

    model: Model
    backend: Backend
    chat_format: ChatFormat
    threads: int
    load_seconds: float
    yarn: Yarn | None = None
    drafter: Drafter | None = None
    predictor: Predictor | None = None
    reports: list[Event] = field(default_factory=list)
    pass_progress: PassProgress = field(default_factory=PassProgress)
    state_identity: str = ""
    token_bytes: int = 0
    adapters: tuple[Adapter, ...] = ()
    from_disk: DiskPlan | None = None
    disk_use: Callable[[], DiskUse] | None = None
    files: OpenedFiles = field(default_factory=lambda: OpenedFiles(()))
    routes: Callable[[], RouteStatistics] | None = None

    @property
    def card(self) -> ModelCard:
        return self.model.card

    @property
    def markers(self) -> ThinkingMarkers | None:
        return self.chat_format.markers

    def request(
        self,
        messages: Sequence[Message],
        params: SamplingParams,
        options: PromptOptions = _PLAIN,
        use: ToolUse | None = None,
    ) -> Request:
        """One sample of the answer to `messages`, which may `use` tools.

        Raises Incompatible when the template fails, or cannot write a call that `use` requires; DoesNotFit.
        """
        tools = use.offered if use is not None else ()
        prompt = self.prompt(messages, options, tools)
        length, longest = len(prompt.tokens), self.backend.longest
        if length >= longest:
            raise too_long(self.card, self.model.entry, self.yarn, length, longest)
        if use is None or not tools:
            return Request(prompt, params, self.markers)
        form = self.chat_format.tool_form
        calling = Calling(form, use.callable.tools, use.parallel and form.parallel)
        forced = use.choice not in ("auto", "none")
        grammar = call_grammar(form, use, control_tokens(self.card)) if forced else None
        return Request(prompt, params, self.markers, calling=calling, grammar=grammar)

    def tokens(self, text: str, *, begins: bool = False) -> list[int]:
        """The tokens of a text; what spells a special token is text. `begins`: with the token that begins a text."""
        spellings = self.chat_format.template.spellings
        pattern = "|".join(map(re.escape, sorted(spellings, key=len, reverse=True)))
        literal = [found.start() for found in re.finditer(pattern, text)] if pattern else []
        return self.backend.tokenize(text, add_bos=begins, literal=literal)

    def prompt(
        self, messages: Sequence[Message], options: PromptOptions = _PLAIN, tools: Sequence[Tool] = ()
    ) -> Prompt:
        """`messages` as the model reads them, with branches if its cache cannot be cut anywhere."""
        prompt = self.chat_format.prompt(messages, options, tools).tokenized(self.backend.tokenize)
        if self.backend.cuts_anywhere:
            return prompt
        build = partial(self.chat_format.prompt, options=options, tools=tools)
        return replace(prompt, branches=branches(prompt, messages, build, self.backend.tokenize))


def control_tokens(card: ModelCard) -> Callable[[str], int | None]:
    """A function that returns the control token that a text is, None for another text."""
    texts = frozenset((*card.special_texts()[0], *ALWAYS_CONTROL))
    return lambda text: card.token_id(text) if text in texts else None


@contextmanager
def load(model: Model, options: LoadOptions, run: Run | None = None) -> Iterator[LoadedModel]:
    """Load a model for the length of the block.

    Raises BadModelFile for a broken structure, Incompatible for a file that cannot be used, crashes the engine or has
    no chat template, DoesNotFit, Aborted.
    """
    started, run = time.perf_counter(), run or Run()
    card = model.card
    options = settled(options, card, model.entry)
    check_answers(card)  # before the chat template, which other kinds of models lack
    chat_format = model.chat_format(options.template, run.stop)
    adapters = open_adapters(options, card)
    host = probe()
    taken = sum(each.size for each in adapters)
    host = replace(host, memory_available=ByteCount(max(0, host.memory_available - taken)))
    if not (options.nodes or this_machine.has_gpus()):
        from_disk.fit_on_host(card, host, options)  # what does not fit is not read
    try_model(model, options, run, adapters)
    if options.yarn is not None:
        run.listen(Notice(yarn_note(card, model.entry, options.yarn)))
    together = options.slots if options.route is not None else 1
    draft = None if options.draft is None else find_draft_model(options.draft, card, options.context, together)
    if draft is not None:
        try_once(draft.model, run)
        host = replace(host, memory_available=ByteCount(max(0, host.memory_available - draft.memory)))
    pool = NodePool.connect(options.nodes, options.retry, run.listen) if options.nodes else None
    machine = None  # known only where there is more than a CPU to place layers on
    if pool is not None or this_machine.has_gpus():
        machine = this_machine.measured_machine(host, card, busy_cores(), run.listen)
    fit = _fit(card, host, machine, pool, options)
    if fit.from_disk is not None:
        fit = replace(fit, from_disk=fit.from_disk.seeded(profiled_picks(card)))
    context = fit.context

    import runtime.llama  # imported before memory is measured, which then leaves out what the import takes

    memory_before = resident_memory()
    # This takes a tenth of a second; only the choice of threads and a prediction need it.
    busy = busy_cores() if run.threads is None or options.predict or options.measure else 0
    speeds = _known_speeds(card, host, busy, options, run)
    memory_of_measuring = ByteCount(max(0, resident_memory() - memory_before))
    engine_options = runtime.llama.OpenOptions(
        context=context,
        slots=slots_for(context, options),
        threads=run.threads or 1,
        kv_type=options.kv_type,
        kv_full=options.kv_full,
        visible=(*(chat_format.markers.texts if chat_format.markers else ()), *chat_format.tool_form.marks),
        drafted=options.drafted,
        mtp=options.mtp,
        yarn=options.yarn,
        reach=reach_of(card, options.yarn),
        adapters=adapters,
        from_disk=fit.from_disk.opened if fit.from_disk is not None else None,
        rows=fit.from_disk.chunk if fit.from_disk is not None else ROWS,
    )
    if fit.why_not:
        run.listen(Notice(fit.why_not))
    if fit.from_disk is not None:
        run.listen(Notice(fit.from_disk.line()))
        if kind := network_file_system(card.path):
            run.listen(Notice(f"the model is on a network file system ({kind}): each token waits for the network"))
    if machine is not None and pool is None:
        engine_options = place_on_gpus(card, machine, engine_options, options)
        run.listen(Notice(describe_layers(engine_options, card)))
    reports: list[Event] = []
    progress, files = PassProgress(), OpenedFiles(card.files)
    with _open(model, engine_options, options, machine, pool, run, reports.append, progress) as backend:
        if isinstance(backend, runtime.llama.StreamedBackend) and not backend.reads_directly:
            run.listen(Notice(_THROUGH_CACHE))
        if fit.from_disk is not None:
            fit = replace(fit, from_disk=fit.from_disk.with_free(available_memory()))
        threads = run.threads or best_threads(backend, card, host, busy, _elsewhere(options, engine_options))
        predictor = _predictor(card, host, speeds, engine_options, threads, memory_of_measuring, fit.from_disk)
        if fit.from_disk is not None and predictor is not None and predictor.machine.disk_read:
            speed = 1 / predictor.seconds([1], 0)
            run.listen(Notice(f"expected: about {speed:{'.0f' if speed >= 10 else '.2g'}} tokens/s"))
        with with_draft(options, draft, backend, threads, run) as (drawing, drafter):
            yield LoadedModel(
                model=model,
                backend=drawing,
                chat_format=chat_format,
                threads=threads,
                load_seconds=time.perf_counter() - started,
                yarn=options.yarn,
                drafter=drafter,
                reports=reports,
                pass_progress=progress,
                predictor=predictor,
                state_identity=""
                if options.route is not None
                else state_identity(card, engine_options, cuts_anywhere=backend.cuts_anywhere),
                adapters=adapters,
                token_bytes=_need(card, engine_options).kv_cache // engine_options.context,
                from_disk=fit.from_disk,
                disk_use=(lambda: backend.disk_use) if isinstance(backend, runtime.llama.StreamedBackend) else None,
                files=files,
                routes=drawing.take_routes if isinstance(drawing, RoutedBackend) else None,
            )


def open_adapters(options: LoadOptions, card: ModelCard) -> tuple[Adapter, ...]:
    """The adapters of `--lora`, checked for this model. Raises as `read_adapter` does, Incompatible with nodes."""
    if options.lora and options.nodes:
        raise Incompatible("--lora and --nodes exclude each other: adapters of layers on nodes are not tested")
    return tuple(read_adapter(each.path, each.scale, card) for each in options.lora)


def _fit(card: ModelCard, host: Host, machine: Machine | None, pool: NodePool | None, options: LoadOptions) -> Fit:
    """The context to begin with; a placement may shorten it."""
    if machine is None:
        return from_disk.fit_on_host(card, host, options)
    whole = pool.with_pooled_memory(machine) if pool is not None else machine
    context = context_for_machine(card, whole, options)
    need = memory.need(card, context, options.slots, options.kv_type, options.drafted, kv_full=options.kv_full)
    too_large = options.from_disk != OFF and need.total > whole.usable().memory_free
    return Fit(context, why_not=from_disk.NOT_WITH_OTHERS if too_large else "")


def _open(
    model: Model,
    engine_options: OpenOptions,
    options: LoadOptions,
    machine: Machine | None,
    pool: NodePool | None,
    run: Run,
    report: Listener,
    progress: PassProgress,
) -> LlamaBackend | SupervisedBackend:
    from runtime.llama import LlamaBackend, StreamedBackend

    if engine_options.from_disk is not None:
        return StreamedBackend(model.path, engine_options, run, available_memory, progress)
    if pool is None or machine is None:
        return LlamaBackend(model.path, engine_options, run)
    return pool.backend(model.path, model.card, engine_options, options, machine, run, report)


def _known_speeds(card: ModelCard, host: Host, busy: int, options: LoadOptions, run: Run) -> Machine | None:
    """This machine with its measured speeds; None where nothing can be predicted."""
    if options.draft or options.nodes or options.lora:
        return None
    with suppress(EngineFailed):
        known = this_machine.cached_machine(host, card, busy, threads=run.threads)
        if known is None and options.measure:
            return this_machine.measured_machine(host, card, busy, run.listen, threads=run.threads)
        return known
    return None


def _predictor(
    card: ModelCard,
    host: Host,
    machine: Machine | None,
    options: OpenOptions,
    threads: int,
    left_behind: ByteCount,
    disk: DiskPlan | None,
) -> Predictor | None:
    """None where the machine was measured with another number of threads, or has more than a CPU."""
    if machine is None or len(machine.devices) > 1 or machine.devices[0].speed.threads != threads:
        return None
    from runtime.llama.load_model import with_kernels

    copies = repacked(card, with_kernels(host.features))
    total: int = _need(card, options).total + copies if disk is None else disk.whole
    return Predictor(
        card, machine, options.context, options.slots, options.kv_type, total, left_behind, options.kv_full, disk
    )


def _need(card: ModelCard, options: OpenOptions) -> memory.MemoryNeed:
    return memory.need(card, options.context, options.slots, options.kv_type, options.drafted, kv_full=options.kv_full)


def _elsewhere(options: LoadOptions, engine_options: OpenOptions) -> str:
    """The part of the work that the CPU does not do; another number of threads may then be best."""
    if options.nodes:
        return f" {len(options.nodes)} nodes"
    if engine_options.from_disk is not None:
        return " from disk"
    gpus = engine_options.gpus
    return f" {sum(engine_options.layers)} layers on {' '.join(gpus)}" if gpus else ""
