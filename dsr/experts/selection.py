"""The experts of a conversation, and why they were chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dsr.models.model import Model
from runtime.base.types import ByteCount


@dataclass(frozen=True, slots=True)
class Selection:
    """`local` is the file to open: `kept` experts in each layer, `of` the `of` experts of the model.

    `task` is None when no task matches, so that all experts are kept. `certainty` is None when nothing was compared.
    `lost_weight` is the share of the gate weight that the removed experts have in the task's profile; `kld` the
    measured divergence from the whole model; `exceeds_limit`: it is above the limit; `saved` is in bytes.
    """

    local: Model
    task: str | None
    certainty: float | None
    kept: int
    of: int
    why: str = ""
    lost_weight: float = 0.0
    saved: int = 0
    kld: float | None = None
    exceeds_limit: bool = False

    def line(self) -> str:
        """'experts: addsub (sure: 0.98), 5 of 16 kept, 6.1 MiB less, 1% of the gate's weight lost, KLD 0.01 ...'"""
        named = "" if self.task is None else self.task
        if self.task is not None and self.certainty is not None:
            named += f" (sure: {self.certainty:.2f})"
        parts = [named] if named else []
        if self.kept == self.of:
            parts.append(f"all {self.of} kept")
        else:
            parts += [
                f"{self.kept} of {self.of} kept",
                f"{ByteCount(self.saved)} less",
                f"{self.lost_weight:.1%} of the gate's weight lost",
            ]
            parts += [] if self.kld is None else [f"KLD {self.kld:.3f} measured"]
        return f"experts: {', '.join(parts)}{': ' if self.why else ''}{self.why}"

    def json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "certainty": None if self.certainty is None else round(self.certainty, 4),
            "kept": self.kept,
            "of": self.of,
            "lost": round(self.lost_weight, 6),
            "bytes_saved": self.saved,
            "kld": None if self.kld is None else round(self.kld, 6),
        }
