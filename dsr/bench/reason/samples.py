"""A sample as it is saved and as it is judged: everything that a judgement may look at is in its row.

The statistics of its tokens are packed: three 32-bit floats for each token, little-endian, in base 64. The ids of its
tokens are not kept, since no judgement reads them, only how many there were.
"""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Sequence
from typing import Any

from dsr.suites.suites import Problem
from runtime.base.types import Completion, TokenStatistics
from runtime.engine import confidence
from runtime.strategies.verdict import Sample


def row_of(problem: Problem, completion: Completion, sample: int, **more: Any) -> dict[str, Any]:
    """`sample` is its number within the problem. `lowest_group` is DeepConf's, by the sample's own length."""
    found = Sample.of(completion).answer
    statistics = completion.statistics
    return {
        "id": problem.id,
        "sample": sample,
        **more,
        "found": found,
        "correct": problem.is_solved_by(found),
        "tokens": len(completion.tokens),
        "thinking_tokens": completion.thinking_tokens,
        "finish_reason": completion.finish_reason,
        "seconds": round(completion.seconds, 4),
        "slots": completion.slots,
        "thought_closed_by": completion.thought_closed_by,
        "probability": confidence.probability(statistics),
        "confidence": confidence.mean_confidence(statistics),
        "lowest_group": confidence.lowest_group(statistics, confidence.window_for([len(statistics)])),
        "self_certainty": confidence.self_certainty(statistics),
        "thinking": completion.thinking,
        "answer": completion.answer,
        "statistics": packed(statistics),
    }


def completion_of(row: dict[str, Any]) -> Completion:
    """The sample of a row. Raises KeyError, ValueError for what is none."""
    return Completion(
        sample=row["sample"],
        thinking=row["thinking"],
        answer=row["answer"],
        tokens=(0,) * row["tokens"],
        thinking_tokens=row["thinking_tokens"],
        finish_reason=row["finish_reason"],
        seconds=row["seconds"],
        slots=row["slots"],
        thought_closed_by=row["thought_closed_by"],
        statistics=unpacked(row["statistics"]),
    )


def packed(statistics: Sequence[TokenStatistics]) -> str:
    numbers = array("f", (number for each in statistics for number in each))
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")


def unpacked(text: str) -> tuple[TokenStatistics, ...]:
    numbers = array("f", base64.b64decode(text))
    if sys.byteorder == "big":
        numbers.byteswap()
    return tuple(TokenStatistics(*numbers[at : at + 3]) for at in range(0, len(numbers), 3))
