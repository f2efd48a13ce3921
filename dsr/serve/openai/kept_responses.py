"""Responses that later ones continue by their id. They live as long as the server, the latest of them."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from runtime.base.errors import NotFound
from runtime.base.quoted import quoted
from runtime.base.types import Message

_MOST = 1000
_MOST_CHARACTERS = 16_000_000  # of all conversations together


@dataclass(frozen=True, slots=True)
class KeptResponse:
    """A response as it was answered, and the conversation up to its answer."""

    body: dict[str, Any]
    said: tuple[Message, ...]

    @property
    def size(self) -> int:
        """Characters, about."""
        return sum(len(each.content) + len(each.thinking) for each in self.said) + len(json.dumps(self.body))


class KeptResponses:
    """By id. The ones unused for longest are dropped."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, KeptResponse] = OrderedDict()
        self._size = 0

    def keep(self, response: KeptResponse) -> None:
        self._kept[response.body["id"]] = response
        self._size += response.size
        while len(self._kept) > 1 and (len(self._kept) > _MOST or self._size > _MOST_CHARACTERS):
            _, dropped = self._kept.popitem(last=False)
            self._size -= dropped.size

    def get(self, id: str) -> KeptResponse:
        """Raises NotFound."""
        found = self._kept.get(id)
        if found is None:
            raise NotFound(
                f"there is no response {quoted(id, 80)!r} here", hint="send the conversation again, as input items"
            )
        self._kept.move_to_end(id)
        return found

    def drop(self, id: str) -> None:
        """Raises NotFound."""
        self._size -= self.get(id).size
        del self._kept[id]
