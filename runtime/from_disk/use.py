"""What the weights on the disk cost: units that were needed, bytes that were read, seconds that were spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(slots=True)
class DiskUse:
    """Figures of a model that runs from the disk. A unit is one expert of a layer, or a layer of a dense model.

    In `passes` through the model `chosen` units were needed; `hits` of them were in memory at that moment. Of the units
    that were read before they were known to be needed, `ahead_used` were needed then, and `ahead_in_vain` were not.
    `bytes_read` are whole pages. Seconds: `waited` for the disk while nothing was computed, `callback` for the choice
    of what to read and drop.
    """

    passes: int = 0
    chosen: int = 0
    hits: int = 0
    ahead_used: int = 0
    ahead_in_vain: int = 0
    bytes_read: int = 0
    waited: float = 0.0
    callback: float = 0.0

    def since(self, before: DiskUse) -> DiskUse:
        """What came after `before`, a copy of an earlier moment."""
        return DiskUse(*(getattr(self, each.name) - getattr(before, each.name) for each in fields(self)))

    def copy(self) -> DiskUse:
        return self.since(DiskUse())

    def as_json(self) -> Mapping[str, float]:
        """The figures under the names that programs get."""
        return {
            "passes": self.passes,
            "needed": self.chosen,
            "in_memory": self.hits,
            "ahead_used": self.ahead_used,
            "ahead_in_vain": self.ahead_in_vain,
            "bytes_read": self.bytes_read,
            "waited_seconds": round(self.waited, 4),
            "callback_seconds": round(self.callback, 4),
        }

    @property
    def hit_share(self) -> float:
        """The share of the needed units that were in memory; 1 if none was needed."""
        return self.hits / self.chosen if self.chosen else 1.0
