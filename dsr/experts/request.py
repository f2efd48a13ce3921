"""What the options `--experts` and `--keep` of a conversation say."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.base.errors import UsageError

AUTO, OFF = "auto", "off"


@dataclass(frozen=True, slots=True)
class ExpertsRequest:
    """`task` is "auto" (the question decides) or the name of one. `keep` is "auto" (as few as the measured damage
    allows), a number of experts of each layer, or a share as in "50%"."""

    task: str = AUTO
    keep: str = AUTO


def experts_wanted(task: str | None, keep: str | None) -> ExpertsRequest | None:
    """None for all experts. Raises UsageError for a number to keep of which nobody knows for what."""
    if task is None or task == OFF:
        if keep is not None:
            raise UsageError("--keep says how many experts of a task to keep", hint="add --experts auto, or a task")
        return None
    return ExpertsRequest(task, keep or AUTO)
