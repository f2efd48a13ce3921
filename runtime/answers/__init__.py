"""Final answers: extracted from replies, compared, grouped, and checked against a key.

`extract` reads a reply, `numbers` reads numbers, `equal` compares two answers, `symbolic` asks math-verify about
formulas. Published practice that this follows: the last `\\boxed{}` of a reply is its answer (MATH), `#### 72` ends a
solution of GSM8K, and a percent sign or a unit that one side leaves out does not make two answers different.
"""

from __future__ import annotations

from runtime.answers.equal import are_equal, groups, is_correct
from runtime.answers.extract import extract

__all__ = ["are_equal", "extract", "groups", "is_correct"]
