"""What one rendering of a chat template may cost: the meter, the sizes of values, and the prices of operations.

A price is work, known from the sizes of the operands before an operation runs. One unit is about a nanosecond on the
machines that the prices were measured on. Prices are for the worst operands of a size, so most operations take less.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.utils import Namespace

from runtime.base.errors import Aborted
from runtime.base.run import Stop

MAX_SOURCE = 256 << 10  # characters; the longest template in common use has about 30 thousand
MAX_TOKENS = 20_000  # of the source; common templates have at most about 2,500
MAX_CODE = (
    1 << 20
)  # characters of Python that jinja makes of the source; common templates have at most about 60 thousand
MAX_SIZE = 4 << 20  # characters of one value or of the whole prompt: about a million tokens
MAX_ITEMS = 1 << 19  # of one value, nested ones included
MAX_NESTING = 100  # of one value: as deep as `repr` and comparisons go without trouble
MAX_MADE = 160 << 20  # bytes of all values that one rendering makes, without large texts that it dropped
MAX_WORK = 1 << 30
MAX_SECONDS = 5.0  # of processor time
MAX_ATTRIBUTE = 1000  # characters of a text that names attributes

STEP = 1024  # a call, a step of a loop, an attribute: what jinja and the meter take for it
ITEM = 64  # an item that native code walks over
_HUGE_BITS = 64  # of a whole number
_OBJECT = 64  # bytes of a value that is no text and no container
_LARGE = 64 << 10  # bytes of a text that is worth looking whether it was dropped


class LimitExceeded(SecurityError):
    """A template needs more time or space than an ordinary one does."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of one value; shared parts count as often as they would be printed. `nesting`: containers in containers."""

    items: int
    characters: int
    bytes: int
    nesting: int = 0

    @property
    def walk(self) -> int:
        """The price of touching all of it once."""
        return self.items * ITEM + self.characters


_NOTHING = Size(1, 0, 0)


class Meter:
    """The work that one rendering may still do, and the space that it may still fill."""

    def __init__(self, stop: Stop | None = None) -> None:
        self._stop = stop or Stop()
        self._work = MAX_WORK
        self._bytes = MAX_MADE
        self._begun = time.thread_time()
        self._deadline = time.monotonic() + MAX_SECONDS
        self._large: dict[int, str] = {}  # by identity
        # Sizes of containers by identity. An entry keeps its container alive, and goes when a container changes.
        self._sizes: dict[int, tuple[object, Size]] = {}
        self._own: dict[int, list[Any]] = {}  # by identity

    def spend(self, work: int = STEP) -> None:
        """Called before the work is done. Raises Aborted after `Stop.set`."""
        if self._stop.wanted:
            self._stop.take()
            raise Aborted
        self._work -= work
        if self._work < 0:
            raise LimitExceeded("it does too much work")
        if time.monotonic() > self._deadline:
            self._look_at_the_clock()

    def _look_at_the_clock(self) -> None:
        """On a busy machine the seconds were not all ours. The clock that knows takes longer to read."""
        left = MAX_SECONDS - (time.thread_time() - self._begun)
        if left <= 0:
            raise LimitExceeded(f"it takes longer than {MAX_SECONDS:g} seconds")
        self._deadline = time.monotonic() + left

    def room_for(self, characters: int, items: int = 0) -> None:
        """Called before a value of that size comes into being."""
        if characters > MAX_SIZE:
            raise LimitExceeded(f"it makes a value of more than {MAX_SIZE} characters")
        if items > MAX_ITEMS:
            raise LimitExceeded(f"it makes a value of more than {MAX_ITEMS} items")
        if characters + items * _OBJECT > self._bytes:
            self._take_back()
        if characters + items * _OBJECT > self._bytes:
            raise LimitExceeded(f"it makes more than {MAX_MADE >> 20} MiB")

    def made(self, value: Any, *, all_new: bool = True) -> Any:
        """`value`, which has come into being: its bytes are paid for; those of its parts only if they are new too."""
        if id(value) in self._large:  # such as a text without white space at its ends after `trim`
            return value
        size = self.size(value)
        self.room_for(size.characters, size.items)
        self._bytes -= size.bytes if all_new else sys.getsizeof(value)
        if isinstance(value, str) and size.bytes >= _LARGE:
            self._large[id(value)] = value
        if self._bytes < 0:
            self._take_back()
        if self._bytes < 0:
            raise LimitExceeded(f"it makes more than {MAX_MADE >> 20} MiB")
        return value

    def _take_back(self) -> None:
        """Frees the large texts that the template dropped: adding to a text copies the whole text each time."""
        self.spend(ITEM * len(self._large))
        for key in list(self._large):
            text = self._large.pop(key)
            if sys.getrefcount(text) > 2:  # more than `text` and the argument
                self._large[key] = text
            else:
                self._bytes += sys.getsizeof(text)

    def size(self, value: Any) -> Size:
        """Raises LimitExceeded for what no operand may be: huge numbers, containers too large or nested too deeply."""
        if isinstance(value, str):
            return Size(1, len(value), sys.getsizeof(value))
        if isinstance(value, (list, tuple, dict)):
            known = self._sizes.get(id(value))
            if known is None:
                known = self._sizes[id(value)] = (value, self._walked(value))
            return known[1]
        if value is None or isinstance(value, bool):
            return _NOTHING
        if isinstance(value, int) and value.bit_length() > _HUGE_BITS:
            raise LimitExceeded("it computes with huge numbers")
        if isinstance(value, Namespace):
            raise SecurityError("it uses a namespace as a value")
        return Size(len(value) if isinstance(value, range) else 1, 0, _OBJECT)

    def owns(self, value: Any) -> Any:
        """`value`, which the template has written down; a list it may change."""
        if isinstance(value, list):
            self._own[id(value)] = value
        return value

    def changes(self, items: list[Any], value: Any = None) -> None:
        """Called before a list gets `value`, or loses one: sizes that were known may be wrong then.

        Raises SecurityError for a list that the template did not make, and for a value that could hold the list itself.
        """
        if id(items) not in self._own:
            raise SecurityError("it changes a list that is not its own")
        if not (value is None or isinstance(value, (str, int, float))):
            raise SecurityError(f"it appends a {type(value).__name__} to a list")
        self.room_for(0, len(items) + 1)
        self.spend(ITEM * (len(self._sizes) + 1) + len(items))
        self._sizes.clear()
        self._bytes -= 2 * sys.getsizeof(None)  # a list grows by an eighth, at least

    def _walked(self, value: list[Any] | tuple[Any, ...] | dict[Any, Any]) -> Size:
        self.spend(len(value) * ITEM)
        items, characters, size, nesting = 1, 0, sys.getsizeof(value), 0
        for part in (*value.keys(), *value.values()) if isinstance(value, dict) else value:
            inner = self.size(part)
            items, characters, size = items + inner.items, characters + inner.characters, size + inner.bytes
            nesting = max(nesting, inner.nesting)
        self.room_for(characters, items)
        if nesting >= MAX_NESTING:
            raise LimitExceeded(f"it nests values more than {MAX_NESTING} deep")
        return Size(items, characters, size, nesting + 1)

    def text(self, value: Any) -> str:
        """What is printed of a value."""
        if isinstance(value, str):
            return value
        size = self.size(value)
        self.spend(size.walk)
        return str(self.made(str(value)))

    def items(self, value: Any) -> list[Any] | tuple[Any, ...]:
        """The items of anything iterable."""
        if isinstance(value, (list, tuple)):
            return value
        if isinstance(value, (str, dict, range)):
            self.room_for(0, len(value))
            self.spend(len(value) * ITEM)
            return self.made(list(value))  # type: ignore[no-any-return]
        return list(Steps(self, value))


def meter_of(context: Context) -> Meter:
    """The meter of the rendering that `context` belongs to."""
    meter = getattr(context.environment, "meter", None)
    assert isinstance(meter, Meter)
    return meter


class Steps:
    """The items of something iterable; each step is counted."""

    def __init__(self, meter: Meter, items: Any) -> None:
        self._meter = meter
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self._meter.spend()
            yield item


# Prices that operations share. Each gets the meter and the operands.


def flat(meter: Meter, /, *_: Any, **__: Any) -> int:
    """An operation that costs the same for operands of any size."""
    return 0


def per_character(meter: Meter, text: str, /, *_: Any, **__: Any) -> int:
    return 16 * len(text)


def per_piece(meter: Meter, text: str, *_: Any, **__: Any) -> int:
    """Every character may become a text of its own."""
    meter.room_for(0, len(text))
    return ITEM * len(text)


def cased(meter: Meter, text: str, *_: Any) -> int:
    """CPython takes 12 bytes for each character while it changes upper and lower case (`case_operation`)."""
    meter.room_for(len(text))
    return 32 * len(text)


def affix(meter: Meter, text: str, part: Any, *_: Any) -> int:
    return meter.size(part).walk


def searched(meter: Meter, text: str, part: str, *_: Any) -> int:
    """A search forward is linear (`fastsearch.h`: two-way search where the operands are long)."""
    return 8 * (len(text) + len(part))


def stripped(meter: Meter, text: str, chars: str | None = None) -> int:
    """Each character of the text is looked for among `chars`."""
    if chars is not None and len(chars) > 1000:
        raise LimitExceeded("it strips more than 1000 characters at once")
    return 4 * len(text) * max(1, len(set(chars or "")))


def replaced(meter: Meter, text: str, old: str, new: str, count: int | None = None) -> int:
    work = 2 * searched(meter, text, old)
    meter.spend(work)
    found = text.count(old) if count is None or count < 0 else min(count, text.count(old))
    meter.room_for(len(text) + found * (len(new) - len(old)))
    return work + found * (ITEM + len(new))


def split_up(meter: Meter, text: str, sep: str | None = None, maxsplit: int = -1) -> int:
    if sep is None:  # pieces are separated by at least one character
        pieces = (len(text) + 1) // 2 + 1
        if maxsplit < 0 and pieces > MAX_ITEMS:
            meter.spend(per_character(meter, text) + 32 * len(text))
            pieces = sum(1 for _ in re.finditer(r"\s+", text)) + 1
    else:
        meter.spend(searched(meter, text, sep))
        pieces = text.count(sep) + 1
    pieces = pieces if maxsplit < 0 else min(pieces, maxsplit + 1)
    meter.room_for(len(text), pieces)
    return 16 * len(text) + 2 * ITEM * pieces


def lines_of(meter: Meter, text: str, /, *_: Any, **__: Any) -> int:
    meter.spend(10 * len(text))
    lines = sum(text.count(end) for end in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029") + 1
    meter.room_for(len(text), lines)
    return 16 * len(text) + 2 * ITEM * lines


def walked(meter: Meter, /, *operands: Any, **named: Any) -> int:
    """All of the operands is touched once."""
    return sum(meter.size(operand).walk for operand in (*operands, *named.values()))


def compared(meter: Meter, left: Any, right: Any) -> int:
    return min(meter.size(left).walk, meter.size(right).walk)


def contained(meter: Meter, item: Any, container: Any) -> int:
    if isinstance(container, str):
        return searched(meter, container, item) if isinstance(item, str) else 0
    if isinstance(container, dict):
        return meter.size(item).walk
    return meter.size(container).walk


def sorted_by(meter: Meter, items: Any, /, *_: Any, **__: Any) -> int:
    """In each round of a merge, every item is compared once, and no comparison goes beyond the end of the item."""
    size = meter.size(items)
    meter.room_for(size.characters, size.items)
    return 32 * size.characters + (2 * ITEM * size.items + size.characters) * max(1, len(items).bit_length())


def sorted_by_keys(
    meter: Meter, items: Any, reverse: Any = False, case_sensitive: Any = False, attribute: Any = None
) -> int:
    """The attributes, with commas between them, of each item are copied: lower case is compared."""
    keys = attribute.count(",") + 1 if isinstance(attribute, str) else 1
    size = meter.size(items)
    meter.room_for(size.characters * keys, size.items * keys)
    return keys * sorted_by(meter, items)


def key_of(meter: Meter, container: Any, key: Any, *_: Any) -> int:
    return meter.size(key).walk
