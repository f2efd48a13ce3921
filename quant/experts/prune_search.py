"""How many experts a task needs: the smallest number with a KL divergence below a limit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quant.experts.kld_meter import KldMeter, KldPoint, MaskedModel
from quant.experts.prune_plan import min_keep, plan_prune
from quant.experts.scores import DEFAULT_SCORE
from quant.experts.task_profile import Profile
from runtime.base.events import Listener, Progress, ignore
from runtime.base.run import Run
from runtime.gguf.card import ModelCard

# The largest KL divergence, in nats per token, of `--keep auto`. It is the cost of 5 bits per weight (Q5_K_M of an 8B
# model: 0.011, Q4_K_M 0.031, Q3_K_M 0.10: llama.cpp tools/perplexity/README.md), which counts as harmless. The cost of
# 4 bits would be too much, because the experts were chosen on the same text that is measured: other questions lose
# more. On the embedded model's profile questions, no task lost more than one of 40 answers below 0.03. With 0.01, it
# solved 363 of the 400 development problems with 39 % of the experts, and 365 with all of them; the worst task solved
# 96 % as many (docs/log.md).
KLD_LIMIT = 0.01


def kld_curve(
    card: ModelCard,
    profiles: Sequence[Profile],
    keeps: Sequence[int],
    score: str = DEFAULT_SCORE,
    active: int | None = None,
    *,
    cache: Path,
    run: Run,
) -> tuple[KldPoint, ...]:
    """The divergence with each number of experts in `keeps`, in their order.

    Results in the folder `cache` are not measured again. Raises what `plan_prune` and `KldMeter.measure` raise.
    """
    plans = [plan_prune(card, profiles, keep, score, active) for keep in keeps]
    with MaskedModel(card, run) as model, KldMeter(model, profiles, cache) as meter:
        return tuple(map(meter.measure, plans))


def search_keep(
    card: ModelCard,
    profiles: Sequence[Profile],
    score: str = DEFAULT_SCORE,
    active: int | None = None,
    limit: float = KLD_LIMIT,
    *,
    cache: Path,
    run: Run,
) -> tuple[KldPoint, ...]:
    """The points that a search for the smallest number of experts measured, ascending; `smallest_keep` picks from them.

    Raises what `kld_curve` raises.
    """
    with MaskedModel(card, run) as model, KldMeter(model, profiles, cache) as meter:
        return bisect_keep(meter, card, profiles, score, active, limit)


def bisect_keep(
    meter: KldMeter,
    card: ModelCard,
    profiles: Sequence[Profile],
    score: str = DEFAULT_SCORE,
    active: int | None = None,
    limit: float = KLD_LIMIT,
    listen: Listener = ignore,
) -> tuple[KldPoint, ...]:
    """`search_keep` with an open meter for these profiles.

    The search is a bisection: it assumes that the divergence shrinks with every expert. Groups of experts stay groups.
    The last point is always the one with all experts.
    """
    plans = [
        plan_prune(card, profiles, keep, score, active) for keep in range(min_keep(card, active), card.experts + 1)
    ]
    plans = [each for each in plans if each.groups == plans[-1].groups]
    found: dict[int, KldPoint] = {}
    low, high = 0, len(plans) - 1
    most = high.bit_length()
    while low < high:
        listen(Progress("measuring", "the fewest experts", len(found), most, "steps"))
        middle = (low + high) // 2
        point = found[middle] = meter.measure(plans[middle])
        low, high = (low, middle) if point.kld.value <= limit else (middle + 1, high)
    listen(Progress("measuring", "the fewest experts", most, most, "steps"))
    found.setdefault(len(plans) - 1, meter.measure(plans[-1]))
    return tuple(found[number] for number in sorted(found))


def smallest_keep(points: Sequence[KldPoint], limit: float = KLD_LIMIT) -> KldPoint | None:
    """The smallest number of experts below the limit, if all larger numbers are below it too; None without any."""
    chosen = None
    for point in sorted(points, key=lambda each: -each.keep):
        if point.kld.value > limit:
            break
        chosen = point
    return chosen
