"""The decisions of phi-Decoding, without a model: which steps to keep, which to go on from, which reply to take.

The letters are those of `runtime.strategies.phi`: f scores a step, F its foresight, and the advantage is the gain in F.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from runtime.base.types import Completion
from runtime.engine.confidence import mean_logprob
from runtime.strategies.clusters import clusters
from runtime.strategies.random_choice import softmax, without_replacement
from runtime.strategies.replies import Reply


@dataclass(frozen=True, slots=True)
class Beam(Reply):
    """A reply so far. `step`: the text of its last step. `foresight` is F of that step, None before the first; `gain`
    its advantage. `foreseen`: how it would go on, by its last foresight.
    """

    step: str = ""
    foresight: float | None = None
    gain: float = 0.0
    foreseen: Beam | None = None

    def stepped(self, drawn: Completion, lookahead: int) -> Beam:
        """The beam with one more step, which is a plain piece of at most `lookahead` tokens."""
        return replace(self.extended(drawn, lookahead), step=drawn.answer, foreseen=None)


def in_width(scores: Sequence[float], least: int, *, sigma: float, tau: float, rng: random.Random) -> list[int]:
    """The candidates that get a foresight, ascending: all that are not far below the mean, and at least `least`."""
    mean = math.fsum(scores) / len(scores)
    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / len(scores))
    kept = [index for index, score in enumerate(scores) if score > mean - sigma * deviation]
    dropped = [index for index in range(len(scores)) if index not in kept]
    if len(kept) < least:
        weights = softmax([scores[index] / tau for index in dropped])
        kept += [dropped[index] for index in without_replacement(weights, least - len(kept), rng)]
    return sorted(kept)


def scored_by_foresight(beams: Sequence[Beam], seen: Sequence[Completion]) -> list[Beam]:
    """The beams with F and the advantage over the F of the step before."""
    scores = [mean_logprob(each.statistics) for each in seen]
    mean = math.fsum(scores) / len(scores)
    return [
        replace(beam, foresight=score, gain=score - (mean if beam.foresight is None else beam.foresight))
        for beam, score in zip(beams, scores, strict=True)
    ]


def select(
    beams: Sequence[Beam],
    texts: Sequence[str],
    wanted: int,
    *,
    k: int,
    tau: float,
    agreement: float,
    rng: random.Random,
) -> tuple[list[int], bool]:
    """The beams that go on, at most `wanted`, and whether one cluster of their foresights holds most of them."""
    better = [index for index, beam in enumerate(beams) if beam.gain > 0 and texts[index].strip()]
    if len(better) < wanted:
        weights = softmax([beam.gain / tau for beam in beams])
        return without_replacement(weights, wanted, rng), False
    labels = clusters([texts[index] for index in better], k, rng.randrange(2**32))
    sizes = Counter(labels)
    by_gain = softmax([beams[index].gain / tau for index in better])
    by_share = softmax([sizes[label] / len(labels) for label in labels])
    weights = [(one + other) / 2 for one, other in zip(by_gain, by_share, strict=True)]
    chosen = [better[index] for index in without_replacement(weights, wanted, rng)]
    return chosen, max(sizes.values()) > agreement * len(labels)


def choose(scores: Sequence[float], texts: Sequence[str], *, tau: float, rng: random.Random) -> int:
    """The index of one text of the larger of two clusters, drawn by advantage. Needs at least one text."""
    labels = clusters(texts, 2, rng.randrange(2**32))
    [(largest, _), *_] = Counter(labels).most_common(1)
    members = [index for index, label in enumerate(labels) if label == largest]
    [index] = without_replacement(softmax([scores[index] / tau for index in members]), 1, rng)
    return members[index]
