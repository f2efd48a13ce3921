"""Where a thought is closed by force: at the end of a sentence near its limit, never inside of a character."""

from __future__ import annotations

import re

# A thought may end so many tokens before its limit: sentences of thoughts are seldom longer.
_GRACE = 32
# A mark behind a digit may go on as a number: "3." and "14".
_SENTENCE_END = re.compile(r"(?:\n|(?<!\d)[.!?]|[。！？])[ \"')\]]*$")


def grace(limit: int) -> int:
    """How many tokens before its limit a thought may be closed; a quarter of a short one."""
    return min(_GRACE, limit // 4)


def may_end(used: int, limit: int, text: str) -> bool:
    """Whether a thought of `used` tokens, whose latest text is `text`, should be closed for its limit."""
    return used >= limit or (used >= limit - grace(limit) and _SENTENCE_END.search(text) is not None)
