"""The log of a server: one JSON object in a line, for each request and each fault. Never keys, texts or queries."""

from __future__ import annotations

import json
import logging
import time
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from dsr.serve.account import Account
from runtime.base.errors import DsrError

_requests = logging.getLogger("dsr.serve.requests")
_faults = logging.getLogger("dsr.serve")


def start_log(file: Path | None, *, requests: bool = True) -> None:
    """Write to `file`, or to stderr without one. A file that is moved away is begun again. Raises DsrError."""
    try:
        handler = WatchedFileHandler(file, encoding="utf-8") if file is not None else logging.StreamHandler()
    except OSError as error:
        raise DsrError(f"the log cannot be written to {file}: {error.strerror}") from None
    handler.setFormatter(_Lines())
    for logger in (_faults, logging.getLogger("asyncio"), logging.getLogger("uvicorn.error")):
        logger.handlers = [handler]
        logger.propagate = False
    # Of uvicorn's own lines only faults: it says of each malformed request that it was one.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    _faults.setLevel(logging.INFO)
    _requests.disabled = not requests


def request_ended(client: str, method: str, status: int, seconds: float, account: Account) -> None:
    """A line for a request that ended."""
    if _requests.disabled:
        return
    line: dict[str, Any] = {
        "client": client,
        "method": method,
        "route": account.route,
        "status": status,
        "ms": round(seconds * 1000, 1),
    }
    if account.model:
        line |= {
            "model": account.model,
            "prompt_tokens": account.prompt_tokens,
            "cached_tokens": account.cached_tokens,
            "tokens": account.tokens,
        }
    _requests.info(line)


def note(text: str) -> None:
    """A line about the server itself."""
    _faults.warning(text)


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told = {"time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z"}
        if isinstance(record.msg, dict):
            return json.dumps({**told, **record.msg})
        line = {**told, "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)
