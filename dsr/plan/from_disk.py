"""Predicts the speed of a model that runs from the disk. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dsr.loading.from_disk import DiskPlan, Picks
from runtime.from_disk.forecast import SHOWN, Forecast
from runtime.placement.place import Placement

EQUAL_USE = "equal use of all experts"
_PROMPT = 512  # tokens, for the time to the first token


@dataclass(frozen=True, slots=True)
class DiskSpeed:
    """How fast a model runs from the disk.

    `plan` divides the memory. `step` draws one token of each sample; `use` says which use of the experts is expected.
    `equal_use` is the same step if the use is equal, and `twice` the one with twice the memory. `first_token_seconds`:
    for a prompt of 512 tokens.
    """

    plan: DiskPlan
    step: Forecast
    use: str
    equal_use: Forecast
    twice: Forecast
    first_token_seconds: float
    disk_read: float

    @property
    def binding(self) -> str:
        return "disk" if self.step.disk_seconds > self.step.compute_seconds else "compute"

    @property
    def reasons(self) -> tuple[str, ...]:
        """The division of the memory, and the assumptions of the forecast."""
        found = list(self.plan.reasons)
        if self.plan.routed:
            found += [
                f"the experts of a layer are read once for up to {self.plan.chunk} tokens of a prompt",
                f"assumed: {self.use}, each token independent of earlier ones; real routers repeat themselves, so it "
                "should be faster",
            ]
        return (*found, f"assumed: {1 - SHOWN:.0%} of the shorter one of reading and computing is hidden by the other")

    def json(self) -> dict[str, Any]:
        return {
            "resident_bytes": int(self.plan.resident),
            "cache_bytes": int(self.plan.memory),
            "smallest_cache_bytes": int(self.plan.smallest),
            "on_disk_bytes": int(self.plan.on_disk),
            "layers_on_disk": list(self.plan.opened.layers),
            "hit_rate": round(self.step.hit_rate, 4),
            "use": self.use,
            "equal_use_hit_rate": round(self.equal_use.hit_rate, 4),
            "bytes_per_token": round(self.step.read / self.step.tokens),
            "disk_bytes_per_second": round(self.disk_read),
            "disk_tokens_per_second": _figure(self.step.disk_bound),
            "compute_tokens_per_second": _figure(self.step.compute_bound),
            "twice_the_memory_tokens_per_second": _figure(self.twice.tokens_per_second),
            "prompt_chunk": self.plan.chunk,
        }


def disk_speed(
    plan: DiskPlan, placement: Placement, disk_read: float, memory: int, profiles: Mapping[str, Picks]
) -> DiskSpeed:
    """The speed where the model may take `memory` bytes.

    `placement` has the speeds with all weights in memory. Of several `profiles` of tasks, the least favourable counts.
    """
    samples, computing = placement.request.samples, placement.seconds_per_step
    equal = plan.forecast(disk_read, computing, samples)
    use, chosen, step = EQUAL_USE, plan, equal
    for task, picks in profiles.items():
        with_picks = plan.with_picks(picks)
        found = with_picks.forecast(disk_read, computing, samples)
        if use == EQUAL_USE or found.read > step.read:
            use, chosen, step = f"the profile of {task}", with_picks, found
    more = replace(chosen, opened=replace(plan.opened, memory=plan.opened.memory + memory))
    together = min(plan.chunk, _PROMPT)
    reading = placement.first_token_seconds(_PROMPT) * together / _PROMPT
    passes = -(-_PROMPT // together)
    return DiskSpeed(
        plan=plan,
        step=step,
        use=use,
        equal_use=equal,
        twice=more.forecast(disk_read, computing, samples),
        first_token_seconds=passes * chosen.forecast(disk_read, reading, together).seconds,
        disk_read=disk_read,
    )


def _figure(value: float) -> float | None:
    """None without a bound."""
    return round(value, 3) if value < float("inf") else None
