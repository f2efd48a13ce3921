"""DeepConf online: cut samples whose confidence falls too low, and let the others vote by theirs (arXiv 2508.15260).

The confidence of a token is minus the mean log probability of the 20 likeliest ones; a group's is the mean over a
sliding window. `warmup` samples are drawn in full. The threshold is the percentile 100 - `keep` of their lowest groups,
so `keep` percent of such samples pass. The other samples, up to `n`, are cut as soon as a group falls below it. The
samples that passed vote with the weight of their lowest group. Drawing stops when the leader has the share `share` of
all weight; with 1, when all agree.

The paper: windows of 2048 tokens, 16 samples to warm up, 256 in all, `keep` 10 ("DeepConf-low") or 90 ("-high", the
default of github.com/facebookresearch/deepconf), share 0.95; up to 84.7 % fewer tokens than the full vote with 99.9 %
on AIME25 (GPT-OSS-120B, 512 samples). Ours are sized for a laptop: 8 of 16, and `window` 0 scales the window to the
warm-up, as many traces are shorter than 2048 tokens.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from runtime.base.errors import UsageError
from runtime.base.events import Event
from runtime.engine import confidence
from runtime.engine.sequence import Demand
from runtime.strategies.task import Task, check_samples, fate, was_stopped
from runtime.strategies.verdict import Sample, Verdict, count


@dataclass(frozen=True, slots=True)
class DeepConfSettings:
    """`n`: samples at most, `warmup` of them in full. `keep`: percent that pass. `window`: tokens of a group."""

    n: int = 16
    warmup: int = 8
    keep: int = 90
    window: int = 0
    share: float = 0.95

    def __post_init__(self) -> None:
        check_samples(self.n)
        if not 1 <= self.warmup <= self.n:
            raise UsageError(f"between 1 and {self.n} of {self.n} samples can warm up, not {self.warmup}")
        if not 1 <= self.keep <= 100:
            raise UsageError(f"between 1 and 100 percent can be kept, not {self.keep}")
        if self.window < 0:
            raise UsageError(f"a group cannot have {self.window} tokens")
        if not 0 < self.share <= 1:
            raise UsageError(f"the share must be above 0 and at most 1, not {self.share}")


def run(task: Task, settings: DeepConfSettings) -> Generator[Event, None, Verdict]:
    warm = yield from task.draw(task.requests(range(settings.warmup)))
    sequential = max(len(each.completion.tokens) for each in warm)
    demand, why = demanded(warm, settings), _agreed(warm, settings)
    if demand is None or why or was_stopped(warm):
        return judge(warm, settings, why or "", sequential)

    def enough(samples: Sequence[Sample]) -> str | None:
        return _agreed(samples, settings)

    others = task.requests(range(settings.warmup, settings.n), demand=demand)
    rest, stopped_why = yield from task.draw_until(others, enough, before=warm)
    sequential += max((len(each.completion.tokens) for each in rest), default=0)
    return judge([*warm, *rest], settings, stopped_why, sequential)


def judge(
    samples: Sequence[Sample], settings: DeepConfSettings, why: str = "", sequential: int | None = None
) -> Verdict:
    """The vote of these samples. Those numbered below `warmup` set the threshold."""
    ordered = sorted(samples, key=lambda each: each.number)
    demand = demanded(ordered, settings)
    weighted = [_weighed(each, settings, demand, why) for each in ordered]
    passed = sum(each.finished and each.weight > 0 for each in weighted)
    rule = f"votes of {passed} weighted by lowest group confidence" + (f", {why}" if why else "")
    return count("deepconf", weighted, rule, planned=settings.n, sequential=sequential)


def demanded(samples: Sequence[Sample], settings: DeepConfSettings) -> Demand | None:
    """The least confidence that the warm-up asks of the other samples; None where no sample of it finished."""
    warm = [each.completion for each in samples if each.number < settings.warmup and each.finished]
    if not warm:
        return None
    window = settings.window or confidence.window_for([len(each.tokens) for each in warm])
    return Demand(
        percentile([confidence.lowest_group(each.statistics, window) for each in warm], 100 - settings.keep), window
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Interpolated linearly between the two nearest values, as numpy.percentile does."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _weighed(sample: Sample, settings: DeepConfSettings, demand: Demand | None, why: str) -> Sample:
    sample = replace(sample, note=fate(sample.completion, why, demand))
    if demand is None or not sample.finished:
        return sample
    lowest = confidence.lowest_group(sample.completion.statistics, demand.window)
    if sample.number < settings.warmup and lowest < demand.confidence:
        return replace(sample, weight=0.0, note=f"confidence below {demand.confidence:.2f}")
    return replace(sample, weight=lowest)


def _agreed(samples: Sequence[Sample], settings: DeepConfSettings) -> str | None:
    """Why no more samples are needed: the leader has enough weight among all that ended, with any threshold."""
    demand = demanded(samples, settings)
    if demand is None or len(samples) == settings.n:
        return None
    weighted = [
        replace(each, weight=confidence.lowest_group(each.completion.statistics, demand.window)) for each in samples
    ]
    share = count("deepconf", weighted, "").confidence
    return f"the leader has {share:.0%} of the weight" if share >= settings.share else None
