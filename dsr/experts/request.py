"""The options `--experts` and `--keep` of a conversation."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.base.errors import UsageError

AUTO, OFF = "auto", "off"


@dataclass(frozen=True, slots=True)
class ExpertsRequest:
    """`task` is a profiled task, or "auto": the first question decides.

    `keep` is "auto" (the fewest experts below the limit of the KL divergence), a number of experts per layer, or a
    share such as "50%".
    """

    task: str = AUTO
    keep: str = AUTO


def experts_request(task: str | None, keep: str | None) -> ExpertsRequest | None:
    """None for all experts. Raises UsageError for `--keep` without `--experts`."""
    if task is None or task == OFF:
        if keep is not None:
            raise UsageError("--keep needs a task: it sets how many of its experts to keep", hint="add --experts auto")
        return None
    return ExpertsRequest(task, keep or AUTO)
