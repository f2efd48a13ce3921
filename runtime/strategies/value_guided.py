"""Value-guided search: a beam search over blocks of tokens, guided by a value (VGS, arXiv 2505.17373).

There are `n` / `width` beams. Until all have ended: from each beam draw `width` continuations of one block, value all
of them, and keep the best, as many as there were beams, whichever beams they came from. An ended reply leaves its beam.
The answers vote at the end, weighted by their values (weighted majority vote). `searches` are independent of each other
and vote together.

The paper: blocks of 4,096 tokens in replies of at most 16,384, n=8, width=2, 16 searches, a value model of 1.5 B
parameters. With 128 blocks a step R1-Distill-Qwen-1.5B had 45.7 % on four mathematical contests, more than votes,
weighted votes and best of n had with it. Here `head` is a file with a value head for this very model; see `value_head`.
Without one the model values its own beginnings by the likelihood of "Yes", which is a proxy and not the paper's method.

Ours: with a budget, when what is left is less than two steps, every beam is drawn to its end without further choice, so
that thoughts are closed and answers come. A reply that could not be valued any more has the value of its beginning.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.base.errors import DoesNotFit, UsageError
from runtime.base.events import Event, Interrupted, Notice, SampleNoted
from runtime.base.types import Completion, counted
from runtime.engine.allowance import Allowance
from runtime.engine.sequence import Request
from runtime.strategies.replies import Reply, joined, last_piece, next_piece, parted, tokens_left
from runtime.strategies.stages import Stages
from runtime.strategies.task import Task, check_samples
from runtime.strategies.value_head import ValueHead, check_head, read_head
from runtime.strategies.values import Valuing, by_head, by_proxy
from runtime.strategies.verdict import Sample, Verdict, whole

NAME = "value-guided"
_UNKNOWN = 0.5


@dataclass(frozen=True, slots=True)
class ValueGuidedSettings:
    """`n`: blocks of a step. `width`: continuations of a beam. `block`: tokens. `head`: a file, or a proxy values."""

    n: int = 8
    width: int = 2
    block: int = 256
    searches: int = 1
    head: str = ""

    def __post_init__(self) -> None:
        check_samples(self.n * self.searches)
        if self.width < 1 or self.n % self.width:
            raise UsageError(
                f"n={self.n} blocks are no whole number of beams with width={self.width}", hint="as in n=8 width=2"
            )
        if not 1 <= self.block <= 2**20:
            raise UsageError(f"a block has between 1 and {2**20} tokens, not {self.block}")
        check_head(self.head)


@dataclass(frozen=True, slots=True)
class Beam(Reply):
    """A beginning of a reply. `value`: how likely it leads to a right answer."""

    value: float = _UNKNOWN


def run(task: Task, settings: ValueGuidedSettings) -> Generator[Event, None, Verdict]:
    head = read_head(Path(settings.head)) if settings.head else None
    if head is None:
        yield Notice(f"{NAME}: without a head the model values its own beginnings, a proxy; --set head=FILE names one")
    return (yield from _Search(task, settings, head).run())


def best(beams: Sequence[Beam], width: int, keep: int) -> list[Beam]:
    """The `keep` beams of the highest value. Of equal ones the first continuation of each parent goes first."""
    order = sorted(range(len(beams)), key=lambda index: (-beams[index].value, index % width, index))
    return [beams[index] for index in order[:keep]]


class _Search:
    """The state of all searches: the beams of each that can go on, and the replies that have ended."""

    def __init__(self, task: Task, settings: ValueGuidedSettings, head: ValueHead | None) -> None:
        self._task, self._settings, self._head = task, settings, head
        self._stages = Stages(task)
        self._going = [[Beam()] * (settings.n // settings.width) for _ in range(settings.searches)]
        self._beams = settings.n // settings.width * settings.searches
        self._ended: list[Beam] = []
        self._step_cost = (0.0, 0.0)

    def run(self) -> Generator[Event, None, Verdict]:
        steps = 0
        if self._head is not None:
            # The prompt has to be read anyway, and a head that does not fit is refused before anything is drawn.
            yield from self._heard(by_head(self._task, self._head, [()]))
        while any(self._going) and not self._stages.stopped:
            ending = self._is_last_step()
            width = 1 if ending else self._settings.width
            parents = [beam for beams in self._going for beam in beams for _ in range(width)]
            asked = [self._asked(beam, to_the_end=ending) for beam in parents]
            note = "to the end" if ending else f"block {steps + 1}, {len(self._ended)} of {self._beams} ended"
            before = _left(self._task.allowance)
            try:
                drawn = yield from self._stages.draw(asked, note)
            except DoesNotFit:
                if not steps:
                    raise
                self._end_longest()
                continue
            steps += 1
            made = [self._grown(*each) for each in zip(parents, asked, drawn, strict=True)]
            if self._stages.stopped:
                self._ended += [beam for beam in made if beam.ended is not None]
                self._going = [[beam for beam in made if beam.ended is None]]
                break
            after = _left(self._task.allowance)
            self._step_cost = (before[0] - after[0], before[1] - after[1])
            made = yield from self._valued(made)
            self._select(made, width)
        return self._verdict(steps)

    def _asked(self, beam: Beam, *, to_the_end: bool) -> Request:
        """The request for the next block. A thought that has used its budget is closed in it."""
        if to_the_end:
            return last_piece(self._task, beam)
        budget, most = self._task.params.think_budget, self._settings.block
        if budget is not None and (parts := parted(self._task, beam)).in_thought:
            left = budget - parts.thinking_tokens
            if left <= 0:
                request = last_piece(self._task, beam)
                limit = min(most, tokens_left(self._task, beam) or most)
                return replace(request, params=replace(request.params, max_tokens=limit))
            most = min(most, left)
        return next_piece(self._task, beam, most)

    def _grown(self, beam: Beam, request: Request, drawn: Completion) -> Beam:
        markers = self._task.markers
        if not request.plain:
            # The text of the whole reply has the marks.
            closed = markers.forced_close if markers is not None and drawn.thought_closed_by is not None else ""
            drawn = replace(drawn, answer=drawn.thinking + closed + drawn.answer)
        most = request.params.max_tokens
        grown = beam.extended(drawn, self._settings.block if most is None else most)
        limit = self._task.params.max_tokens
        if grown.ended is None and limit is not None and len(grown.tokens) >= limit and drawn.finish_reason == "length":
            return replace(grown, ended="length")
        return grown

    def _valued(self, beams: Sequence[Beam]) -> Generator[Event, None, list[Beam]]:
        """The beams with their values; that of their beginning where they could not be valued."""
        found = yield from self._heard(self._values(beams))
        if found is None:
            return [*beams]
        for beam, value in zip(beams, found, strict=True):
            yield SampleNoted(beam.sample, f"value {value:.2f}")
        return [replace(beam, value=value) for beam, value in zip(beams, found, strict=True)]

    def _values(self, beams: Sequence[Beam]) -> Valuing:
        if self._head is not None:
            return by_head(self._task, self._head, [beam.tokens for beam in beams])
        return by_proxy(self._task, [whole(joined(self._task, beam)) for beam in beams], "value-judge")

    def _heard(self, valuing: Valuing) -> Valuing:
        """Notes a stop while it is valued."""
        while True:
            try:
                event = next(valuing)
            except StopIteration as end:
                values: list[float] | None = end.value
                return values
            self._stages.stopped |= isinstance(event, Interrupted)
            yield event

    def _select(self, made: Sequence[Beam], width: int) -> None:
        """Keep the best continuations of each search. Replies that have ended leave the search."""
        at = 0
        for number, beams in enumerate(self._going):
            kept = best(made[at : at + width * len(beams)], width, len(beams))
            at += width * len(beams)
            self._ended += [beam for beam in kept if beam.ended is not None]
            self._going[number] = [beam for beam in kept if beam.ended is None]

    def _end_longest(self) -> None:
        """The context is full: the longest beam ends here."""
        longest = max((beam for beams in self._going for beam in beams), key=lambda beam: len(beam.tokens))
        self._ended.append(replace(longest, ended="length"))
        for beams in self._going:
            if longest in beams:
                beams.remove(longest)
                break

    def _is_last_step(self) -> bool:
        """Whether the budget has no room for another step and the end of the replies."""
        tokens, seconds = _left(self._task.allowance)
        return tokens < 2 * self._step_cost[0] or seconds < 2 * self._step_cost[1]

    def _verdict(self, steps: int) -> Verdict:
        settings = self._settings
        beams = sorted(self._ended, key=lambda beam: beam.sample)
        samples = [Sample.of(joined(self._task, each), each.value, f"value {each.value:.2f}") for each in beams]
        by = "a value head" if self._head is not None else "a proxy, the model itself"
        blocks = settings.n * settings.searches
        rule = f"votes of {len(beams)} weighted by {by}, {counted(steps, 'step')} of {blocks} blocks"
        begun = {beam for beams in self._going for beam in beams if beam.tokens}
        going = sorted(begun, key=lambda beam: (-beam.value, -len(beam.tokens), beam.sample))
        if self._stages.stopped:
            rule = f"stopped in step {steps}; {rule}"
            samples += [Sample.of(joined(self._task, each), 0.0, f"value {each.value:.2f}") for each in going]
        verdict = self._stages.verdict(NAME, samples, rule, "vote")
        if not beams and going:
            verdict = replace(verdict, chosen=joined(self._task, going[0]))
        return replace(verdict, valued_by="head" if self._head is not None else "proxy")


def _left(allowance: Allowance | None) -> tuple[float, float]:
    """Tokens and seconds that are left; infinite without a limit."""
    tokens = None if allowance is None else allowance.tokens_left
    seconds = None if allowance is None else allowance.seconds_left
    return (float("inf") if tokens is None else tokens, float("inf") if seconds is None else seconds)
