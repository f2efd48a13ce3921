"""The loop: schedule, decode, draw, hand out text. Knows no native library, no template and no terminal."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Sequence_

from runtime.base.errors import Aborted, Lost, NoRoom, OutOfGrammar
from runtime.base.events import Event, Interrupted, Listener, Notice, SampleFinished, ThoughtEnded, ignore
from runtime.base.types import Completion, FinishReason
from runtime.engine.backend import Backend, Batch, Checkpoint, PassProgress
from runtime.engine.kept_state import KeptState
from runtime.engine.moving_cache import MovingCache
from runtime.engine.prefix_plan import FEW_TOKENS, planned_checkpoints
from runtime.engine.row_reader import take_row
from runtime.engine.scheduler import Reading, Scheduler, Ticket
from runtime.engine.sequence import Request
from runtime.engine.sequence_factory import SequenceFactory
from runtime.engine.speculation import Drafter, DraftStatistics, Speculation
from runtime.engine.standing import Standing


class Engine:
    """Draws samples from one model for any number of requests.

    `submit` takes a request at any time, and each `step` decodes one batch. `stream` and `generate` do both for a list
    of requests. Each text begins from its longest cached prefix, no matter which request read it. A prompt without its
    last token stays cached until its cells are needed. So does a reply, if its request has `keep_reply`.

    `reproducible` drops what earlier calls cached, so that a prompt is always split into the same batches: for K-quants
    and F16 the last bits of the logits depend on the split. If one sample is drawn alone, the `drafter` guesses several
    tokens for each step. The backend adds events to `reports` while it computes. `most_checkpoints`: see `PrefixCache`.
    `host_bytes`: the most bytes of host memory for idle texts that leave the cache, so that a text that runs alone need
    not attend to them; they come back when a prompt begins with them. `most_waiting`: the most requests in the queue;
    None for no limit. The backend tells `pass_progress` how far a long pass has come: `meanwhile` hears it at once,
    while `stream` waits for the pass. `now`: a clock in seconds.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        reproducible: bool = False,
        drafter: Drafter | None = None,
        reports: list[Event] | None = None,
        most_checkpoints: int | None = None,
        host_bytes: int = 0,
        most_waiting: int | None = None,
        pass_progress: PassProgress | None = None,
        meanwhile: Listener = ignore,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._backend = backend
        self._reproducible = reproducible
        self._reports = reports if reports is not None else []
        self._now = now
        self._speculation = Speculation(drafter, now) if drafter is not None else None
        most = most_checkpoints if most_checkpoints is not None else planned_checkpoints(backend.slots)
        self._cache = MovingCache(backend, most, 0 if reproducible else host_bytes)
        self._scheduler = Scheduler(
            slots=backend.slots,
            batch_size=backend.batch_size,
            chunk_size=backend.chunk_size,
            most_outputs=backend.most_outputs,
            most_waiting=most_waiting,
        )
        self._sequences = SequenceFactory(backend)
        self._meanwhile = meanwhile
        if pass_progress is not None:
            pass_progress.listen = self._hear_pass
        self._streamed: list[Ticket] = []
        self._approximate = backend.can_graft and not reproducible
        self._may_admit = False  # whether something changed that may let a request in
        self._drafts_need_checkpoints = False  # known once a draft could not be trimmed
        self.aborted: Aborted | None = None  # what ended the last requests, if that was an abort

    @property
    def slots(self) -> int:
        """How many samples are drawn at once."""
        return self._backend.slots

    @property
    def busy(self) -> bool:
        """Whether there is anything to do for `step`."""
        return self._scheduler.busy

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many requests draw, read their prompt and wait."""
        scheduler = self._scheduler
        return len(scheduler.drawing), len(scheduler.reading), len(scheduler.waiting)

    @property
    def standing(self) -> Standing:
        """The counts, and the cells in use."""
        held = self._cache.cells_with(None)
        return Standing(*self.counts, held, self._cache.cells - held, self._cache.moved)

    def take_drafts(self) -> DraftStatistics | None:
        """The statistics of the drafts since the last call; None without a drafter."""
        return self._speculation.take() if self._speculation is not None else None

    # Requests

    def submit(self, request: Request, listen: Listener, client: str = "") -> Ticket:
        """Queue a request. `listen` gets its events during `step`; each `client` gets its turn.

        Raises DoesNotFit for a prompt that leaves no room for an answer, Busy if the queue is full.
        """
        self._sequences.check_fits(request)
        if not self._scheduler.busy:
            self.aborted = None
        ticket = Ticket(self._sequences.make(request), listen, client)
        self._scheduler.waiting.add(ticket)
        self._may_admit = True
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """End a request before its next token. A request that has ended stays as it is."""
        ticket.withdrawn = True

    def generate(self, requests: Sequence_[Request]) -> list[Completion]:
        """All samples, in the order of the requests.

        Raises DoesNotFit if a prompt leaves no room for an answer, Lost if something went away that the model needs.
        """
        finished = [event.completion for event in self.stream(requests) if isinstance(event, SampleFinished)]
        if isinstance(self.aborted, Lost):
            raise self.aborted
        order = {request.sample: index for index, request in enumerate(requests)}
        return sorted(finished, key=lambda completion: order[completion.sample])

    def stream(self, requests: Sequence_[Request]) -> Iterator[Event]:
        """Draw all requests, yielding text as it comes. Close the generator to cancel.

        When the backend aborts, the unfinished samples end with `finish_reason` "cancelled" and keep their text. The
        last event is then `Interrupted`.
        """
        for request in requests:
            self._sequences.check_fits(request)
        if self._reproducible:
            self._cache.drop_idle()
        events: deque[Event] = deque()
        listen = events.append
        tickets: list[Ticket] = []
        self._streamed = tickets
        try:
            for request in requests:
                tickets.append(self.submit(request, listen))
            while True:
                while events:
                    yield events.popleft()
                if all(ticket.done for ticket in tickets):
                    break
                self.step()
        finally:
            for ticket in [each for each in tickets if each in self._scheduler.tickets]:
                self._leave(ticket)

    def cancel(self, samples: Iterable[int]) -> None:
        """End samples of the running stream, by number, before their next token. Samples that have ended stay."""
        numbers = {*samples}
        for ticket in self._streamed:
            if ticket.sequence.request.sample in numbers:
                self.withdraw(ticket)

    # What is cached

    def export(self, tokens: Sequence_[int]) -> KeptState | None:
        """The state of the cached sequence that has the longest prefix of `tokens`; None if nothing can be saved.

        If the model cannot go back to any length, the state may hold more than that prefix.
        """
        return self._cache.export(tokens)

    def adopt(self, kept: KeptState) -> bool:
        """Cache a state from `export` as if it had been read. False if it has no room or the backend refuses it."""
        return self._cache.adopt(kept)

    def rest(self) -> bool:
        """While no request is in progress, move one idle text to host memory, if many are cached.

        False if nothing is left to do.
        """
        return not self._scheduler.busy and self._cache.rest()

    # The loop

    def step(self) -> None:
        """Decode one batch for the requests that draw or read, and hand out their events.

        An abort ends every request, and each listener then gets `Interrupted`. Any other error ends them without an
        event.
        """
        for ticket in [each for each in self._scheduler.tickets if each.withdrawn]:
            self._finish(ticket, "cancelled")
        if not self._scheduler.busy:
            return
        listeners = dict.fromkeys(ticket.listen for ticket in self._scheduler.tickets)
        try:
            if not self._admit():
                self._decode()
        except Aborted as error:
            self.aborted = error
            for ticket in self._scheduler.tickets:
                self._finish(ticket, "cancelled")
            self._cache.after_loss(error)
            self._report(listeners)
            for listen in listeners:
                listen(Interrupted(error))
        except BaseException:
            for ticket in self._scheduler.tickets:
                self._leave(ticket)
            raise
        else:
            self._report(listeners)

    def _report(self, listeners: Iterable[Listener]) -> None:
        for report in self._reports:
            for listen in listeners:
                listen(report)
        self._reports.clear()

    def _admit(self) -> bool:
        """Let requests from the queue begin to read, or to draw if their whole text is cached.

        True if nobody was at work before: then their progress should be heard before the first batch, which may take
        seconds.
        """
        scheduler, cache = self._scheduler, self._cache
        if not self._may_admit:
            return False
        self._may_admit = first = False
        # Otherwise waiting for another reader costs a checkpoint.
        worth = 1 if self._backend.cuts_anywhere else FEW_TOKENS
        for ticket in scheduler.waiting:
            if scheduler.full:
                break
            text = ticket.sequence.text
            approximate = self._approximate and ticket.sequence.request.approximate
            start = cache.plan(text[:-1], approximate=approximate)
            if start is None:
                break
            if scheduler.waits_for(text, start.length, worth):
                continue
            # Room for the text is enough: a sample that outgrows the cache later goes back to the queue.
            alone = not scheduler.drawing and not scheduler.reading
            need = cache.cells_with(start.source) + scheduler.reserved + len(text) - start.length
            if need > self._backend.context and not alone:
                break
            moved = alone and cache.move_out(text[:-1], start)
            if cache.bring_back(text[:-1], start, scheduler.reserved) or moved:
                start = cache.plan(text[:-1], approximate=approximate)
                assert start is not None
            start = cache.begin(start)
            scheduler.waiting.take(ticket)
            if ticket.sequence.taken is None:
                ticket.sequence.taken = self._now()
            reading = Reading(ticket, text, start.target, start.length, {*ticket.sequence.request.prompt.branches})
            scheduler.reading.append(reading)
            if start.splice is not None and start.source is not None:
                reading.splice, reading.source = start.splice, start.source
                reading.stops.add(start.splice.at)
                self._graft(reading)
            first = first or alone
            if reading.left or alone:
                ticket.listen(reading.progress)
            if not reading.left:
                self._enter(reading)
        return first

    def _graft(self, reading: Reading) -> None:
        """Append the cached part of another text, if the reading has come to its place."""
        splice = reading.splice
        if splice is None or reading.done != splice.at:
            return
        reading.splice = None
        moved = reading.tokens[splice.at : splice.at + splice.moved]
        if self._cache.graft(splice, reading.source, reading.slot, moved):
            reading.done += splice.moved

    def _enter(self, reading: Reading) -> None:
        """The text is read: its sequence keeps it, and a fork of it draws."""
        slot = self._cache.fork(reading.slot)
        if slot is None:
            slot = reading.slot
        else:
            self._cache.release(reading.slot)
        ticket = reading.ticket
        self._scheduler.reading.remove(reading)
        ticket.sequence.enter(slot, reading.done)
        self._scheduler.enter(ticket)
        if ticket.sequence.started is None:
            ticket.sequence.started = self._now()

    def _decode(self) -> None:
        alone = self._scheduler.alone()
        if self._speculation is not None and alone is not None:
            self._speculate(self._speculation, alone)
        else:
            self._decode_and_draw()

    def _decode_and_draw(self) -> None:
        batch, drawing = self._scheduler.next_batch()
        if not self._compute(batch):
            self._preempt()
            return
        for reading in self._scheduler.decoded():
            self._was_read(reading)
        for row, ticket in zip(batch.outputs, drawing, strict=True):
            if ticket.sequence.request.draws:
                self._draw(ticket, row)
            else:
                self._read_row(ticket, row)

    def _compute(self, batch: Batch) -> bool:
        """Decode a batch; False if the cache has no room for it, even without idle sequences."""
        if not self._cache.make_room(len(batch.tokens)):
            return False
        try:
            self._backend.decode(batch)
        except NoRoom:
            # llama.cpp may need more cells than the tree counts, or adjacent ones.
            return self._cache.drop_idle() and self._compute(batch)
        except BaseException:
            self._cache.settle(batch)
            raise
        self._cache.decoded(batch)
        return True

    def _hear_pass(self, share: float) -> None:
        """Part of the present batch is computed."""
        for ticket, progress in self._scheduler.progress(share):
            if ticket not in self._streamed:
                ticket.listen(progress)
            self._meanwhile(progress)

    def _was_read(self, reading: Reading) -> None:
        self._may_admit = True
        self._graft(reading)
        reading.ticket.listen(reading.progress)
        if reading.done in reading.stops:
            self._cache.keep_checkpoint(reading.slot)
        if not reading.left:
            self._enter(reading)

    def _speculate(self, speculation: Speculation, ticket: Ticket) -> None:
        """Decode the pending token and a draft after it; draw row by row while the draft agrees."""
        sequence = ticket.sequence
        room = min(self._backend.context - self._cache.cells_with(None), self._backend.longest - sequence.cached)
        rows = min(self._backend.most_outputs, self._backend.batch_size, room, sequence.most_left)
        draft = speculation.propose(sequence, rows - 1)
        batch = Batch()
        batch.add([*sequence.pending, *draft], sequence.cached, sequence.slot, output=False)
        batch.outputs = [*range(len(batch.tokens))]
        before = self._backend.checkpoint(sequence.slot) if draft and self._drafts_need_checkpoints else None
        if not self._compute(batch):
            self._decode_and_draw()
            return
        drawn = 0
        for drafted in [*draft, None]:
            sequence.cached += 1
            sequence.pending = []
            self._draw(ticket, drawn, spare=len(draft) - drawn)
            drawn += 1
            if ticket.done or sequence.pending != [drafted]:
                break
        if drawn <= len(draft) and not ticket.done:
            self._forget_draft(speculation, ticket, before)
        speculation.done(len(draft), drawn)

    def _forget_draft(self, speculation: Speculation, ticket: Ticket, before: Checkpoint | None) -> None:
        """Remove rejected draft tokens from the cache.

        Where the model cannot, go back to the checkpoint `before` the draft and decode the accepted tokens again, all
        at once. Without a checkpoint the reply is read again: the first time, and where the model has none.
        """
        sequence = ticket.sequence
        if self._cache.trim(sequence.slot, sequence.cached):
            return
        if before is not None and self._cache.restore(before, sequence.slot):
            sequence.enter(sequence.slot, before.length)
            self._decode_and_draw()
            return
        if self._drafts_need_checkpoints:
            speculation.give_up()
            ticket.listen(Notice("drafting is off: this model cannot remove rejected draft tokens from its cache"))
        self._drafts_need_checkpoints = True
        self._scheduler.remove(ticket)
        self._cache.drop(sequence.slot)
        self._scheduler.waiting.put_back(ticket)
        self._may_admit = True

    def _read_row(self, ticket: Ticket, row: int) -> None:
        sequence = ticket.sequence
        take_row(self._backend, sequence, row, self._now())
        if sequence.finish_reason is not None:
            self._finish(ticket, sequence.finish_reason)

    def _draw(self, ticket: Ticket, row: int, spare: int = 0) -> None:
        """Draw a token from a row. `spare` tokens of a draft are cached after it."""
        sequence = ticket.sequence
        closed_by = sequence.closed_by
        try:
            token = sequence.draw(row)
        except OutOfGrammar as error:
            ticket.listen(Notice(f"{error.message}: the answer is not complete"))
            self._finish(ticket, "length", spare)
            return
        if not self._backend.ends(token):
            self._accept(ticket, row, token)
        elif (text := sequence.answer_now()) is not None:
            for each in text:
                ticket.listen(each)
        else:
            self._finish(ticket, "stop", spare)
            return
        if sequence.closed_by is not None and closed_by is None:
            ticket.listen(ThoughtEnded(sequence.request.sample))
        if sequence.closed_by == "loop" and closed_by is None:
            ticket.listen(Notice("the thought repeated itself and was closed"))
        if sequence.finish_reason is None and sequence.cached + len(sequence.pending) > self._backend.longest:
            sequence.finish_reason = "length"
        if sequence.finish_reason is not None:
            self._finish(ticket, sequence.finish_reason, spare)

    def _accept(self, ticket: Ticket, row: int, token: int) -> None:
        sequence, params = ticket.sequence, ticket.sequence.request.params
        if sequence.first_drawn is None:
            sequence.first_drawn = self._now()
        statistics = self._backend.statistics(row, token) if params.statistics else None
        logprobs = None
        if params.top_logprobs is not None:
            logprobs = self._backend.logprobs(row, token, params.top_logprobs)
        for drawn in sequence.accept(token, self._backend.piece(token), statistics, logprobs):
            ticket.listen(drawn)

    def _preempt(self) -> None:
        """The cache is full: some requests wait again; a request that is alone has reached the end of the context."""
        self._may_admit = True
        preempted = self._scheduler.preempt()
        for slot in preempted:
            self._cache.release(slot)
        if not preempted:
            for ticket in [*self._scheduler.drawing, *(reading.ticket for reading in self._scheduler.reading)]:
                self._finish(ticket, "length")

    def _finish(self, ticket: Ticket, reason: FinishReason, spare: int = 0) -> None:
        self._leave(ticket, spare)
        for drawn in ticket.sequence.finish(reason):
            ticket.listen(drawn)
        ticket.listen(SampleFinished(ticket.sequence.completion(self._now())))

    def _leave(self, ticket: Ticket, spare: int = 0) -> None:
        """Take a ticket out. Cells that no later prompt needs are freed: each cell slows down the attention of all."""
        self._may_admit = True
        draws, sequence = ticket in self._scheduler.drawing, ticket.sequence
        slot = self._scheduler.remove(ticket)
        if slot is None:
            return
        useless = draws and (not sequence.request.keep_reply or sequence.thinking_tokens > 0)
        if useless or (spare and not self._cache.trim(slot, self._cache.length(slot) - spare)):
            self._cache.drop(slot)
        self._cache.release(slot)
