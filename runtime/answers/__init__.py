"""Final answers: found in replies, compared, grouped, and held against a key.

`finding` reads a reply, `numbers` reads numbers, `sameness` compares two answers, `symbolic` asks math-verify about
formulas. Published practice that this follows: the last `\\boxed{}` of a reply is its answer (MATH), `#### 72` ends a
solution of GSM8K, and a percent sign or a unit that one side leaves out does not make two answers different.
"""

from __future__ import annotations

from runtime.answers.equal import equivalent, groups, is_correct
from runtime.answers.extract import find

__all__ = ["equivalent", "find", "groups", "is_correct"]
