"""Lists and ranges of numbers, spelt as llama-bench spells them (tools/llama-bench of llama.cpp)."""

from __future__ import annotations

import re

from runtime.base.errors import UsageError

_PART = re.compile(r"(\d+)(?:-(\d+)(?:([+*])(\d+))?)?", re.ASCII)
_MOST = 64  # values of one option; more is a typing error
_MOST_DIGITS = 9


def numbers(text: str, option: str, least: int = 0) -> tuple[int, ...]:
    """Returns the numbers of a list, each once: '128,512', '1-4', '512-2048+512' (steps), '1-8*2' (1, 2, 4, 8).

    Raises UsageError for other text, for numbers below `least`, and for more than 64 numbers.
    """
    found: dict[int, None] = {}
    for part in text.split(","):
        for number in _range(part.strip(), option):
            found[number] = None
            if len(found) > _MOST:
                raise UsageError(f"{option} {text}: more than {_MOST} numbers", hint="use larger steps: 1-4096*2")
    low = min(found)
    if low < least:
        raise UsageError(f"{option} {text}: {low} is less than {least}")
    return tuple(found)


def _range(part: str, option: str) -> range | tuple[int, ...]:
    found = _PART.fullmatch(part)
    if found is None or any(len(group or "") > _MOST_DIGITS for group in found.groups()):
        raise UsageError(
            f"{option}: {part[:40]!r} is neither a number nor a range", hint="such as 512, 1-4, 512-2048+512 or 1-8*2"
        )
    first, last, step = int(found[1]), int(found[2] or found[1]), int(found[4] or 1)
    if last < first:
        raise UsageError(f"{option}: the range {part} goes backwards")
    if step < 1 or (found[3] == "*" and (step < 2 or first < 1)):
        raise UsageError(f"{option}: the range {part} never ends")
    if found[3] != "*":
        return range(first, last + 1, step)
    powers = [first]
    while powers[-1] * step <= last:
        powers.append(powers[-1] * step)
    return tuple(powers)
