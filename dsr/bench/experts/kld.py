"""The divergences that a bench of experts needs, and the automatic numbers of experts, which are found by divergences.

Both are measured on the same texts, so task after task: what the whole model says to a text is recorded once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dsr.bench.experts.cases import Automatic, Cases, digest
from dsr.experts import damage
from quant.experts.profiles import Profile
from quant.experts.prune_search import Meter, Subject, halved, smallest
from quant.measure.divergence import Estimate
from runtime.base.events import Event, Listener, Progress, ignore
from runtime.base.run import Run


@dataclass(frozen=True, slots=True)
class Divergences:
    """`automatic` as the grid wants it; `divergences` by task and plan."""

    automatic: Automatic
    divergences: Mapping[tuple[str, str], Estimate]


def measured(cases: Cases, router: str, run: Run) -> Divergences:
    """Measure what is not kept. `router` is the model's router digest. Raises as `Meter.damage` does."""
    asks, where = damage.AUTO in cases.keeps, damage.folder(router)
    automatic = dict.fromkeys(((score, "") for score in cases.scores), cases.card.experts)
    found: dict[tuple[str, str], Estimate] = {}
    counting = False

    def hear(event: Event) -> None:
        """Each reading is told of until there is something to count."""
        if not counting:
            run.listen(event)

    with Subject(cases.card, threads=run.threads, stop=run.stop, listen=hear) as subject:
        if asks and "merged" in cases.kinds:
            profiles = [*cases.profiles.values()]
            with Meter(subject, profiles, where) as meter:
                for score in cases.scores:
                    automatic[score, ""] = _fewest(meter, cases, profiles, score, run.listen)
        counting = True
        for number, (task, profile) in enumerate(cases.profiles.items()):
            with Meter(subject, [profile], where) as meter:
                for score in cases.scores if asks else ():
                    automatic[score, task] = _fewest(meter, cases, [profile], score)
                every = list(cases.of_task(task, automatic))
                for done, case in enumerate(every, number * len(every) + 1):
                    found[task, digest(case.plan)] = meter.damage(case.plan).kld
                    run.listen(Progress("measuring", "divergences", done, len(every) * len(cases.profiles), "steps"))
    return Divergences(automatic, found)


def _fewest(meter: Meter, cases: Cases, profiles: Sequence[Profile], score: str, listen: Listener = ignore) -> int:
    """How many experts are harmless."""
    found = halved(meter, cases.card, profiles, score, listen=listen)
    return (smallest(found) or found[-1]).keep
