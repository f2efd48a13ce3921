"""Times that people write: 10m, 1.5h, 30s, 300, and Go's 1h30m."""

from __future__ import annotations

import re

from runtime.base.errors import UsageError

_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
_DURATION = re.compile(rf"(?:{_NUMBER}(?:ms|s|m|h)){{1,4}}|{_NUMBER}", re.ASCII)
_STEP = re.compile(rf"({_NUMBER})(ms|s|m|h)?", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def seconds_in(text: str) -> float | None:
    """The seconds of a time without a sign; None for other text."""
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in _STEP.findall(text))


def keep_alive_seconds(text: str) -> float | None:
    """The value of `--keep-alive`: seconds, 0 for at once, None for never. Raises UsageError."""
    if text.strip().lower() in ("never", "-1"):
        return None
    return _seconds("--keep-alive", text)


def limit_seconds(text: str | None) -> float | None:
    """The value of `--timeout`; None for no limit. Raises UsageError."""
    seconds = _seconds("--timeout", text) if text is not None else None
    if seconds == 0:
        raise UsageError("--timeout 0 would end every answer", hint="leave it out for no limit")
    return seconds


def _seconds(option: str, text: str) -> float:
    seconds = seconds_in(text.strip())
    if seconds is None:
        raise UsageError(f"{option}: {text[:40]!r} is no time", hint="write it like 30s, 10m or 1h")
    return seconds
