"""Measures the KL divergences of `dsr bench experts`, and finds the automatic numbers of experts with them.

It goes task by task, so that the output of the unpruned model for a task's text is computed once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dsr.bench.experts.cases import Automatic, Cases, digest
from dsr.experts.keep import kld_folder
from dsr.loading.options import AUTO
from quant.experts.profile import Profile
from quant.experts.prune_search import KldMeter, MaskedModel, bisect_keep, smallest_keep
from quant.measure.divergence import Estimate
from runtime.base.events import Event, Listener, Progress, ignore
from runtime.base.run import Run


@dataclass(frozen=True, slots=True)
class Divergences:
    """`automatic`: the numbers of experts that "auto" means. `divergences`: by task and plan."""

    automatic: Automatic
    divergences: Mapping[tuple[str, str], Estimate]


def measure_divergences(cases: Cases, router: str, run: Run) -> Divergences:
    """Measures the divergences that are not cached. `router` is the router digest. Raises as `KldMeter.measure`."""
    has_auto, folder = AUTO in cases.keeps, kld_folder(router)
    automatic = dict.fromkeys(((score, "") for score in cases.scores), cases.card.experts)
    found: dict[tuple[str, str], Estimate] = {}
    counting = False

    def hear(event: Event) -> None:
        """Forwards events until the divergences themselves are measured."""
        if not counting:
            run.listen(event)

    with MaskedModel(cases.card, replace(run, listen=hear)) as model:
        if has_auto and "merged" in cases.kinds:
            profiles = [*cases.profiles.values()]
            with KldMeter(model, profiles, folder) as meter:
                for score in cases.scores:
                    automatic[score, ""] = _smallest_number(meter, cases, profiles, score, run.listen)
        counting = True
        for number, (task, profile) in enumerate(cases.profiles.items()):
            with KldMeter(model, [profile], folder) as meter:
                for score in cases.scores if has_auto else ():
                    automatic[score, task] = _smallest_number(meter, cases, [profile], score)
                every = list(cases.of_task(task, automatic))
                for done, case in enumerate(every, number * len(every) + 1):
                    found[task, digest(case.plan)] = meter.measure(case.plan).kld
                    run.listen(Progress("measuring", "divergences", done, len(every) * len(cases.profiles), "steps"))
    return Divergences(automatic, found)


def _smallest_number(
    meter: KldMeter, cases: Cases, profiles: Sequence[Profile], score: str, listen: Listener = ignore
) -> int:
    """Returns the smallest number of experts that does no harm."""
    found = bisect_keep(meter, cases.card, profiles, score, listen=listen)
    return (smallest_keep(found) or found[-1]).keep
