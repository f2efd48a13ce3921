"""phi-Decoding: choose each step by looking ahead (arXiv 2503.13288; github.com/xufangzhi/phi-Decoding).

A step is a line. For at most `depth` steps, with `beams` M:

1. From each beam draw `rollouts` next steps, scored by f, the mean log-probability of their tokens.
2. Keep those with f > mean - sigma * deviation; if fewer than M, add dropped ones by softmax(f / tau).
3. Foresight: complete each kept one once. F = mean log-probability of that; advantage A = F - F of the step before.
4. Of those with A > 0 sample M without replacement, by the mean of softmax(A / tau) and softmax(share of its cluster),
   where k-means on TF-IDF vectors of the completions makes `clusters`. Fewer than M: by softmax(A / tau) of all.
5. Stop when a cluster holds more than `agreement` of them and `min_depth` steps are made, or all selected are the same.

Then complete each beam, make two clusters of the completions, and take one of the larger by softmax(A / tau). The paper
reports about 14 points over plain chain of thought on average for Llama-3.1-8B.

Other than the published code: the larger cluster is really the one that is taken from; at the first step, where there
is no F before, the mean of all F stands in for it (with 0 no advantage would be positive); softmax is stabilised; a
step that ends the reply is its own foresight, and its beam waits for the last choice; a step is no empty line; and the
user's sampling is kept where the authors have temperature 0.6. Beams go on from the very tokens that were drawn.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace

from runtime.base.errors import DoesNotFit, UsageError
from runtime.base.events import Event
from runtime.base.types import Completion
from runtime.engine.confidence import mean_logprob
from runtime.strategies.foresight import Beam, choose, in_width, scored_by_foresight, select
from runtime.strategies.replies import joined, last_piece, next_piece
from runtime.strategies.stages import Stages, Whole
from runtime.strategies.task import Task
from runtime.strategies.verdict import Sample, Verdict


@dataclass(frozen=True, slots=True)
class PhiSettings:
    """Defaults of the authors' code. `lookahead`: tokens of a step or a foresight at most."""

    beams: int = 4
    rollouts: int = 4
    depth: int = 8
    min_depth: int = 4
    clusters: int = 3
    sigma: float = 1.0
    tau: float = 0.1
    agreement: float = 0.7
    lookahead: int = 1024

    def __post_init__(self) -> None:
        for name, most in (("beams", 64), ("rollouts", 64), ("depth", 1000), ("clusters", 64), ("lookahead", 2**20)):
            if not 1 <= getattr(self, name) <= most:
                raise UsageError(f"phi: {name} must be between 1 and {most}, not {getattr(self, name)}")
        if self.min_depth < 0:
            raise UsageError(f"phi: min_depth cannot be negative, not {self.min_depth}")
        if not (0 <= self.sigma <= 100 and 0.001 <= self.tau <= 100 and 0 <= self.agreement <= 1):
            raise UsageError("phi: sigma is from 0 to 100, tau from 0.001 to 100, agreement from 0 to 1")


@dataclass(slots=True)
class _Search:
    """The constant parts of one search."""

    task: Task
    settings: PhiSettings
    stages: Stages
    rng: random.Random


def run(task: Task, settings: PhiSettings) -> Generator[Event, None, Verdict]:
    search = _Search(task, settings, Stages(task), random.Random(task.params.seed))
    beams = [Beam()]
    steps = 0
    while steps < settings.depth and any(beam.ended is None for beam in beams):
        try:
            stepped = yield from _step(search, beams, steps)
        except DoesNotFit:
            if not steps:
                raise
            beams = _without_longest(beams)
            continue
        if stepped is None:
            break
        beams, agreed = stepped
        steps += 1
        if agreed:
            break
    legs, beams = yield from _completed(search, beams)
    return _judge(search, beams, legs, steps)


def _step(search: _Search, beams: Sequence[Beam], steps: int) -> Generator[Event, None, tuple[list[Beam], bool] | None]:
    """The next beams, and whether they agree so far that no more looking ahead is needed; None when stopped."""
    settings, stages = search.settings, search.stages
    live = [beam for beam in beams if beam.ended is None]
    done = [beam for beam in beams if beam.ended is not None]
    wanted = settings.beams - len(done)
    parents = [beam for beam in live for _ in range(settings.rollouts * (1 if steps else settings.beams))]
    asked = [next_piece(search.task, beam, settings.lookahead) for beam in parents]
    drawn = yield from stages.draw(asked, f"step {steps + 1}", _whole_step(search.task))
    if stages.stopped:
        return None
    made = [parent.stepped(each, settings.lookahead) for parent, each in zip(parents, drawn, strict=True)]
    sure = [mean_logprob(each.statistics) for each in drawn]
    kept = in_width(sure, wanted, sigma=settings.sigma, tau=settings.tau, rng=search.rng)
    ahead = [index for index in kept if made[index].ended is None]
    asked = [next_piece(search.task, made[index], settings.lookahead) for index in ahead]
    replies = yield from stages.draw(asked, f"foresight of step {steps + 1}")
    if stages.stopped:
        return None
    foreseen = dict(zip(ahead, replies, strict=True))
    for index, reply in foreseen.items():
        made[index] = replace(made[index], foreseen=made[index].stepped(reply, settings.lookahead))
    seen = [foreseen.get(index, drawn[index]) for index in kept]
    scored = scored_by_foresight([made[index] for index in kept], seen)
    chosen, in_one_cluster = select(
        scored, [each.answer for each in seen], wanted, k=settings.clusters, tau=settings.tau,
        agreement=settings.agreement, rng=search.rng,
    )  # fmt: skip
    all_the_same = len({scored[index].step for index in chosen}) == 1
    agreed = all_the_same or (in_one_cluster and steps + 1 >= settings.min_depth)
    return done + [scored[index] for index in chosen], agreed


def _without_longest(beams: Sequence[Beam]) -> list[Beam]:
    """The context is full: the longest beam that could go on ends here."""
    longest = max((beam for beam in beams if beam.ended is None), key=lambda beam: len(beam.tokens))
    return [replace(beam, ended="length") if beam is longest else beam for beam in beams]


def _whole_step(task: Task) -> Whole:
    """Whether a text holds a whole line; the tags around a thought do not count as text."""
    tags = task.markers.texts if task.markers else ()

    def is_whole(text: str) -> bool:
        for tag in tags:
            text = text.replace(tag, "")
        return "\n" in text.lstrip()

    return is_whole


def _completed(search: _Search, beams: list[Beam]) -> Generator[Event, None, tuple[dict[int, Completion], list[Beam]]]:
    """The last completions by beam index, and the beams; when stopped, the foresight of a beam replaces the beam."""
    legs: dict[int, Completion] = {}
    while not search.stages.stopped:
        live = [index for index, beam in enumerate(beams) if beam.ended is None]
        asked = [last_piece(search.task, beams[index]) for index in live]
        try:
            legs = dict(zip(live, (yield from search.stages.draw(asked, "completing")), strict=True))
        except DoesNotFit:
            beams = _without_longest(beams)
            continue
        break
    if search.stages.stopped:
        legs = {index: leg for index, leg in legs.items() if leg.finish_reason != "cancelled"}
        beams = [beam if index in legs else beam.foreseen or beam for index, beam in enumerate(beams)]
    return legs, beams


def _judge(search: _Search, beams: Sequence[Beam], legs: Mapping[int, Completion], steps: int) -> Verdict:
    completions, scores, texts = [], [], []
    for index, beam in enumerate(beams):
        leg = legs.get(index)
        scores.append(mean_logprob(leg.statistics) - (beam.foresight or 0.0) if leg else beam.gain)
        texts.append(leg.thinking + "\n" + leg.answer if leg else beam.step)
        completions.append(joined(search.task, beam, leg))
    ended = [index for index, each in enumerate(completions) if each.finish_reason in ("stop", "length")]
    samples = [Sample.of(each, 0.0, f"beam {number}") for number, each in enumerate(completions, 1)]
    if not ended:
        rule = f"stopped after step {steps}" if steps else "stopped before the first step was chosen"
        return search.stages.verdict("phi", samples, rule, "beam")
    best = choose([scores[index] for index in ended], [texts[index] for index in ended], tau=search.settings.tau,
                  rng=search.rng)  # fmt: skip
    chosen = ended[best]
    samples[chosen] = replace(samples[chosen], weight=1.0)
    if samples[chosen].answer is None:
        # The choice is the text; that no answer was found in it must not make another beam the winner.
        samples = [replace(each, answer=None) for each in samples]
    rule = f"beam {chosen + 1} of {len(beams)}, chosen by foresight after step {steps}"
    return search.stages.verdict("phi", samples, rule, "beam", completions[chosen])
