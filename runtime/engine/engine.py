"""The loop: schedule, decode, draw, hand out text. Knows no native library, no template and no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Sequence_

from runtime.base.errors import Aborted, DoesNotFit, Incompatible, NoRoom
from runtime.base.events import Event, Interrupted, Notice, Progress, SampleFinished, ThoughtEnded
from runtime.base.types import Completion, FinishReason
from runtime.engine.backend import Backend, Batch
from runtime.engine.markers import EXTENSION, ThinkingMarkers
from runtime.engine.scheduler import Scheduler
from runtime.engine.sequence import Request, Sequence
from runtime.engine.speculation import Drafter, DraftStatistics, Speculation


class Engine:
    """Draws many samples from one model.

    The common beginning of the prompts is read once, kept in a slot of its own, and forked; a later call reuses the
    part that its prompts share with it. `reproducible` gives that up, so that the prompt is always split into the same
    batches: for K-quants and F16 the last bits of the logits depend on the split. A sample that is drawn alone goes on
    several tokens at a time where the `drafter` guesses them. `reports` are events that the backend adds while it
    computes; a stream yields them after each step.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        reproducible: bool = False,
        drafter: Drafter | None = None,
        reports: list[Event] | None = None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._backend = backend
        self._reproducible = reproducible
        self._reports = reports if reports is not None else []
        self._now = now
        self._speculation = Speculation(drafter, now) if drafter is not None else None
        # Another engine may have left its prompt there.
        backend.trim(backend.slots, 0)
        self._kept: tuple[int, ...] = ()
        self._closings: dict[ThinkingMarkers, list[int]] = {}
        self._unwanted: set[int] = set()
        self.aborted = False  # whether an abort ended the last stream

    @property
    def slots(self) -> int:
        """How many samples are drawn at once."""
        return self._backend.slots

    def take_drafts(self) -> DraftStatistics | None:
        """The statistics of the drafts since the last call; None without a drafter."""
        return self._speculation.take() if self._speculation is not None else None

    def generate(self, requests: Sequence_[Request]) -> list[Completion]:
        """All samples, in the order of the requests. Raises DoesNotFit if a prompt is longer than the context."""
        finished = [event.completion for event in self.stream(requests) if isinstance(event, SampleFinished)]
        order = {request.sample: index for index, request in enumerate(requests)}
        return sorted(finished, key=lambda completion: order[completion.sample])

    def stream(self, requests: Sequence_[Request]) -> Iterator[Event]:
        """Draw all requests, yielding text as it comes. Close the generator to cancel.

        When the backend aborts, the unfinished samples end with `finish_reason` "cancelled" and keep their text. The
        last event is then `Interrupted`.
        """
        for request in requests:
            self._check_fits(request)
        self._unwanted.clear()
        self.aborted = False
        shared = _common_prefix([request.prompt.tokens for request in requests])
        sequences = [self._sequence(request) for request in requests]
        scheduler = Scheduler(
            sequences,
            slots=self._backend.slots,
            context=self._backend.context,
            batch_size=self._backend.batch_size,
            shared=len(shared),
        )
        try:
            yield from self._read_prompt(shared)
            while scheduler.busy:
                yield from self._step(scheduler)
                yield from self._take_reports()
                if self._unwanted:
                    for sequence in scheduler.remove(self._unwanted):
                        yield from self._finish(scheduler, sequence, "cancelled")
                    self._unwanted.clear()
        except Aborted as error:
            self.aborted = True
            for sequence in sequences:
                if sequence.finish_reason is None:
                    yield from self._finish(scheduler, sequence, "cancelled")
            yield from self._take_reports()
            yield Interrupted(error)
        finally:
            for sequence in scheduler.active:
                self._backend.trim(sequence.slot, 0)

    def cancel(self, samples: Iterable[int]) -> None:
        """End samples of the running stream, by number, before their next token. Those that ended already stay."""
        self._unwanted.update(samples)

    def _take_reports(self) -> list[Event]:
        reports = list(self._reports)
        self._reports.clear()
        return reports

    def _check_fits(self, request: Request) -> None:
        length, context = len(request.prompt.tokens), self._backend.context
        if length >= context:
            raise DoesNotFit(
                f"the prompt is {length} tokens long, the context holds {context} including the answer",
                hint=f"shorten the prompt, or use --ctx-size {length + 1024} or more",
            )

    def _sequence(self, request: Request) -> Sequence:
        extension: list[int] = []
        if request.params.extensions:
            if request.markers is None or len(self._backend.tokenize(request.markers.close)) != 1:
                raise Incompatible("thoughts cannot be extended: this model does not end them with a token of its own")
            extension = self._backend.tokenize(EXTENSION)
        seed = (request.params.seed + request.sample) % 2**32
        return Sequence(request, self._backend.sampler(request.params, seed), self._closing, extension)

    def _closing(self, markers: ThinkingMarkers) -> list[int]:
        """The tokens that end a thought by force."""
        if markers not in self._closings:
            self._closings[markers] = self._backend.tokenize(markers.forced_close)
        return self._closings[markers]

    def _read_prompt(self, shared: tuple[int, ...]) -> Iterator[Event]:
        """Make the prompt slot hold exactly `shared`; decode only the tokens that it does not hold yet."""
        slot = self._backend.slots
        done = 0 if self._reproducible else len(_common_prefix([self._kept, shared], spare=0))
        if done < len(self._kept):
            self._kept = self._kept[:done]
            if not self._backend.trim(slot, done):
                done = 0
                self._backend.trim(slot, 0)
        try:
            while done < len(shared):
                yield Progress("reading the prompt", "", done, len(shared), "tokens")
                batch = Batch()
                batch.add(list(shared[done : done + self._backend.batch_size]), done, slot, output=False)
                self._backend.decode(batch)
                done += len(batch.tokens)
                self._kept = shared[:done]
        except Aborted:
            # Parts of the aborted batch may be in the cache.
            self._backend.trim(slot, done)
            raise
        yield Progress("reading the prompt", "", len(shared), len(shared), "tokens")

    def _step(self, scheduler: Scheduler) -> list[Event]:
        for newcomer in scheduler.admit():
            self._backend.fork(self._backend.slots, newcomer.slot)
            newcomer.started = newcomer.started if newcomer.started is not None else self._now()
        if scheduler.overfull():
            return self._make_room(scheduler)
        alone = scheduler.alone()
        if self._speculation is not None and alone is not None:
            return self._speculate(self._speculation, scheduler, alone)
        return self._decode_and_draw(scheduler)

    def _decode_and_draw(self, scheduler: Scheduler) -> list[Event]:
        batch, drawing = scheduler.next_batch()
        try:
            self._backend.decode(batch)
        except NoRoom:
            return self._make_room(scheduler)
        scheduler.decoded()
        events: list[Event] = []
        for row, sequence in zip(batch.outputs, drawing, strict=True):
            events += self._draw(scheduler, sequence, row)
        return events

    def _speculate(self, speculation: Speculation, scheduler: Scheduler, sequence: Sequence) -> list[Event]:
        """Decode the pending token and a draft after it; draw row by row while the draft agrees."""
        rows = min(self._backend.most_outputs, self._backend.batch_size, scheduler.room + 1, sequence.most_left)
        draft = speculation.propose(sequence, rows - 1)
        batch = Batch()
        batch.add([*sequence.pending, *draft], sequence.cached, sequence.slot, output=False)
        batch.outputs = [*range(len(batch.tokens))]
        try:
            self._backend.decode(batch)
        except NoRoom:
            return self._decode_and_draw(scheduler)
        events: list[Event] = []
        drawn = 0
        for drafted in [*draft, None]:
            sequence.cached += 1
            sequence.pending = []
            events += self._draw(scheduler, sequence, drawn)
            drawn += 1
            if sequence.finish_reason is not None or sequence.pending != [drafted]:
                break
        if drawn <= len(draft) and sequence.finish_reason is None:
            events += self._forget_draft(speculation, scheduler, sequence)
        speculation.done(len(draft), drawn)
        return events

    def _forget_draft(self, speculation: Speculation, scheduler: Scheduler, sequence: Sequence) -> list[Event]:
        """Remove rejected draft tokens from the cache; where the model cannot, read the whole text again."""
        if self._backend.trim(sequence.slot, sequence.cached):
            return []
        speculation.give_up()
        self._backend.trim(sequence.slot, 0)
        self._backend.fork(self._backend.slots, sequence.slot)
        scheduler.reenter(sequence)
        return [Notice("drafting is off: this model cannot remove rejected draft tokens from its cache")]

    def _draw(self, scheduler: Scheduler, sequence: Sequence, row: int) -> list[Event]:
        token = sequence.draw(row)
        if self._backend.ends(token):
            return self._finish(scheduler, sequence, "stop")
        closed_by = sequence.closed_by
        statistics = self._backend.statistics(row, token) if sequence.request.params.statistics else None
        events: list[Event] = [*sequence.accept(token, self._backend.piece(token), statistics)]
        if sequence.closed_by is not None and closed_by is None:
            events.append(ThoughtEnded(sequence.request.sample))
        if sequence.closed_by == "loop" and closed_by is None:
            events.append(Notice("the thought repeated itself and was closed"))
        if sequence.finish_reason is not None:
            events += self._finish(scheduler, sequence, sequence.finish_reason)
        return events

    def _make_room(self, scheduler: Scheduler) -> list[Event]:
        """The cache is full: half of the samples wait; a sample that is alone has reached the end of the context."""
        if len(scheduler.active) == 1:
            return self._finish(scheduler, scheduler.active[0], "length")
        for sequence in scheduler.halve():
            self._backend.trim(sequence.slot, 0)
        return []

    def _finish(self, scheduler: Scheduler, sequence: Sequence, reason: FinishReason) -> list[Event]:
        if sequence in scheduler.active:
            scheduler.leave(sequence)
            self._backend.trim(sequence.slot, 0)
        return [*sequence.finish(reason), SampleFinished(sequence.completion(self._now()))]


def _common_prefix(prompts: Sequence_[tuple[int, ...]], spare: int = 1) -> tuple[int, ...]:
    """The tokens all prompts begin with, less `spare` of the shortest: each sample decodes its last token itself."""
    if not prompts:
        return ()
    low, high = min(prompts), max(prompts)
    length = 0
    for a, b in zip(low, high, strict=False):
        if a != b:
            break
        length += 1
    shortest = min(map(len, prompts))
    return low[: min(length, shortest - spare)]
