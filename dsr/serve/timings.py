"""How long an answer took, in llama-server's form, which many clients show (server-common.cpp, server_slot_stats)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dsr.serve.answers import Answer
from dsr.serve.told import Begun, Ended, Told
from runtime.base.events import Progress, TextDrawn, TokenDrawn, ToolCallGrew


def timings(prompt_tokens: int, sample: Ended) -> dict[str, Any]:
    """The times of a sample that ended, in ms."""
    read = max(0, prompt_tokens - sample.cached)
    return timings_of(sample.cached, read, sample.first_token_seconds, sample.tokens, sample.latency)


def timings_json(*answers: Answer) -> dict[str, Any]:
    """{"timings": ...} for a reply with one sample. Of several samples, the times would be those of none.

    Also {"disk_use": ...} for an answer of a model that runs from the disk."""
    found = [(answer.prompt_tokens, sample) for answer in answers for sample in answer.ended]
    disk = [answer.disk_use for answer in answers if answer.disk_use is not None]
    return {
        **({"timings": timings(*found[0])} if len(found) == 1 else {}),
        **({"disk_use": disk[0]} if len(disk) == 1 else {}),
    }


def timings_of(cached: int, read: int, first: float, drawn: int, latency: float) -> dict[str, Any]:
    """`first` and `latency`: seconds to the first token, and to the last.

    The first token comes with the prompt, so that the speed counts the others.
    """
    after, steps = max(0.0, latency - first), max(0, drawn - 1)
    return {
        "cache_n": cached,
        "prompt_n": read,
        "prompt_ms": first * 1e3,
        "prompt_per_token_ms": _ratio(first * 1e3, read),
        "prompt_per_second": _ratio(read, first),
        "predicted_n": drawn,
        "predicted_ms": after * 1e3,
        "predicted_per_token_ms": _ratio(after * 1e3, steps),
        "predicted_per_second": _ratio(steps, after),
    }


def _ratio(one: float, other: float) -> float:
    return one / other if other else 0.0


@dataclass(slots=True)
class RunningTimes:
    """The times of one sample while it is drawn, as the server sees them: `now` is a clock in seconds."""

    _since: float | None = None
    _first: float | None = None
    _now: float = 0.0
    _start: int = 0
    _read: int = 0
    _total: int = 0
    _prompt: int = 0
    _drawn: int = 0

    def add(self, told: Told, now: float) -> None:
        if isinstance(told, Begun):
            self._prompt = told.prompt_tokens
        elif isinstance(told, Progress) and told.job == "reading the prompt":
            if self._since is None:
                self._since, self._start = now, told.done
            self._read, self._total = told.done, told.total
        elif isinstance(told, TokenDrawn):
            self._drawn += 1
        if self._first is None and isinstance(told, (TokenDrawn, TextDrawn, ToolCallGrew)):
            self._first, self._read = now, self._prompt
        self._now = now

    @property
    def progress(self) -> dict[str, Any]:
        """How much of the prompt is read. All but its last token are, before the first token is drawn."""
        elapsed = 0 if self._since is None else int((self._now - self._since) * 1e3)
        return {"total": self._total, "cache": self._start, "processed": self._read, "time_ms": elapsed}

    @property
    def json(self) -> dict[str, Any]:
        since = self._since if self._since is not None else self._now
        first = (self._first if self._first is not None else self._now) - since
        latency = self._now - since
        return timings_of(self._start, max(0, self._read - self._start), first, self._drawn, latency)
