"""Whether a text repeats itself without end."""

from __future__ import annotations

# A loop: the tail repeats with one period this many times, the first time included, and fills at least MIN_SPAN
# tokens. Ordinary text repeats too: rows of a table, dashes, zeros of a matrix, a line said twice. It rarely
# does so four times word for word over 320 tokens; a sampled model that did seldom finds its way out.
MIN_COPIES = 4
MIN_SPAN = 320
MAX_PERIOD = 256  # about two paragraphs; longer loops exist, and cost at most the thinking budget

_LOOP_STEP = 16  # tokens between two looks
# The n-gram that suggests a period. In any loop as defined above, at least this many tokens at the end occurred
# one period before: `span - period` is smallest where MIN_COPIES * period reaches MIN_SPAN.
_LOOP_NGRAM = MIN_SPAN - MIN_SPAN // MIN_COPIES
_LOOP_WINDOW = MIN_COPIES * MAX_PERIOD + _LOOP_STEP


class LoopDetector:
    """Fed with token ids, says when their tail repeats itself. About half a microsecond per token; near a loop a few.

    Tokens are kept as characters of a string, so that searching and comparing run in native code.
    """

    __slots__ = ("_fresh", "_tail")

    def __init__(self) -> None:
        self._tail = ""
        self._fresh: list[str] = []

    def feed(self, token: int) -> bool:
        """Whether the tokens so far end in a loop; answered at every 16th token, False in between."""
        self._fresh.append(chr(token))
        if len(self._fresh) < _LOOP_STEP:
            return False
        self._tail = (self._tail + "".join(self._fresh))[-_LOOP_WINDOW:]
        self._fresh.clear()
        return _loops(self._tail)


def _loops(tail: str) -> bool:
    """Try every period at which the last n-gram occurred before, the shortest first."""
    last = tail[-_LOOP_NGRAM:]
    earliest = max(0, len(tail) - _LOOP_NGRAM - MAX_PERIOD)
    start = tail.rfind(last, earliest, -1)
    while start >= 0:
        period = len(tail) - _LOOP_NGRAM - start
        span = max(MIN_SPAN, MIN_COPIES * period)
        if len(tail) < span:
            return False
        # A tail of `span` tokens has the period when it equals itself moved by it.
        if tail[period - span :] == tail[-span:-period]:
            return True
        start = tail.rfind(last, earliest, start + _LOOP_NGRAM - 1)
    return False
