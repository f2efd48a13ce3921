"""Errors as HTTP statuses. Each API writes them in its own form."""

from __future__ import annotations

from dataclasses import dataclass

from dsr.serve.pool.engine import ToldFailed
from dsr.serve.told import Failed
from runtime.base.errors import DsrError

# The names of errors' classes, here and in an engine process, and their status. What is missing is a 500.
_STATUS = {
    "UsageError": 400,
    "BadForm": 400,
    "Incompatible": 400,
    "DoesNotFit": 400,
    "TooLong": 400,
    "NotFound": 404,
    "Gated": 403,
    "Busy": 429,
    "Aborted": 503,
    "EngineDied": 503,
    "NodeLost": 503,
    "WeightsLost": 503,
    "DiskFailed": 503,
    "SlowClient": 408,
    "TimedOut": 504,
    "EngineFailed": 500,
    "BadModelFile": 500,
}
RETRY_AFTER = 2  # seconds
CLIENT_LEFT = 499  # as nginx logs it; nobody reads the answer


class Refused(Exception):
    """A request that is answered with a status and a sentence. `place`: the field that is wrong."""

    def __init__(self, status: int, message: str, *, hint: str | None = None, place: str = "", kind: str = "") -> None:
        super().__init__(message)
        self.fault = Fault(status, message, hint, place, kind)


@dataclass(frozen=True, slots=True)
class Fault:
    """What went wrong, for any API. `kind` is the name of the error's class; `tokens`, `longest`: see `TooLong`."""

    status: int
    message: str
    hint: str | None = None
    place: str = ""
    kind: str = ""
    tokens: int = 0
    longest: int = 0

    @property
    def text(self) -> str:
        """The sentence with what to do."""
        return f"{self.message}; {self.hint}" if self.hint else self.message

    @property
    def headers(self) -> dict[str, str]:
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {"Retry-After": str(RETRY_AFTER)} if self.status in (429, 503) else {}


def fault_of(error: Exception | Failed) -> Fault:
    """The fault of an error, or of what an engine process said."""
    if isinstance(error, Refused):
        return error.fault
    if isinstance(error, ToldFailed):
        error = error.failed
    if isinstance(error, Failed):
        status = _STATUS.get(error.kind, 500)
        return Fault(status, error.message, error.hint, error.place, error.kind, error.tokens, error.longest)
    if isinstance(error, DsrError):
        kind = type(error).__name__
        return Fault(_STATUS.get(kind, 500), error.message, error.hint, kind=kind)
    return Fault(500, "dsr failed; its log has the traceback", kind="Exception")
