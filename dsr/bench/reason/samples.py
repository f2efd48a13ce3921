"""Samples as entries of a ledger. An entry has all that a judgement needs.

The statistics of the tokens are packed: three 32-bit floats for each token, little-endian, in base 64. The entry has
the number of tokens but not their ids, since no judgement reads them.
"""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Sequence
from typing import Any

from dsr.suites.judging import Judging
from dsr.suites.problem import SuiteProblem
from runtime.base.types import Completion, TokenStatistics
from runtime.engine import confidence
from runtime.strategies.verdict import Sample


def sample_entry(
    problem: SuiteProblem, completion: Completion, sample: int, judging: Judging, **more: Any
) -> dict[str, Any]:
    """Returns the entry of a sample, whose number within the problem is `sample`.

    `lowest_group` is DeepConf's lowest group confidence, with a window for the sample's own length.
    """
    found = Sample.of(completion).answer
    statistics = completion.statistics
    return {
        "id": problem.id,
        "sample": sample,
        **more,
        "found": found,
        "correct": judging.is_right(problem, found, completion.answer),
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
        "statistics": pack(statistics),
    }


def saved_completion(entry: dict[str, Any]) -> Completion:
    """Returns the sample of an entry. Raises KeyError, ValueError for an entry of something else."""
    return Completion(
        sample=entry["sample"],
        thinking=entry["thinking"],
        answer=entry["answer"],
        tokens=(0,) * entry["tokens"],
        thinking_tokens=entry["thinking_tokens"],
        finish_reason=entry["finish_reason"],
        seconds=entry["seconds"],
        slots=entry["slots"],
        thought_closed_by=entry["thought_closed_by"],
        statistics=unpack(entry["statistics"]),
    )


def pack(statistics: Sequence[TokenStatistics]) -> str:
    numbers = array("f", (number for each in statistics for number in each))
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")


def unpack(text: str) -> tuple[TokenStatistics, ...]:
    numbers = array("f", base64.b64decode(text))
    if sys.byteorder == "big":
        numbers.byteswap()
    return tuple(TokenStatistics(*numbers[at : at + 3]) for at in range(0, len(numbers), 3))
