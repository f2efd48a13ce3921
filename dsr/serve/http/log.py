"""The log of a server: one JSON object in a line, for each request and each fault. Never keys, texts or queries.

At a terminal: a short line for each request that used a model or was refused.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from http.client import responses
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from dsr.serve.account import Account
from dsr.serve.http.errors import CLIENT_LEFT
from dsr.ui.console import is_terminal, printable
from runtime.base.errors import DsrError
from runtime.base.types import counted

_requests = logging.getLogger("dsr.serve.requests")
_faults = logging.getLogger("dsr.serve")


def start_log(file: Path | None, *, requests: bool = True) -> None:
    """Write to `file`, or to stderr without one. A file that is moved away is begun again. Raises DsrError."""
    try:
        handler = WatchedFileHandler(file, encoding="utf-8") if file is not None else logging.StreamHandler()
    except OSError as error:
        raise DsrError(f"the log cannot be written to {file}: {error.strerror}") from None
    for_person = file is None and is_terminal(sys.stderr)
    handler.setFormatter(_ShortLines() if for_person else _Lines())
    if for_person:
        handler.addFilter(_interesting)
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


class _ShortLines(logging.Formatter):
    """Lines for a person, in local time and mostly under 60 columns."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        if isinstance(record.msg, dict):
            return printable(f"{at} {_short(record.msg)}")
        lines = [f"{at} {record.levelname.lower()}: {record.getMessage()}"]
        if record.exc_info and record.exc_info[0] is not None:
            lines += [
                f"{record.exc_info[0].__name__}: {record.exc_info[1]}",
                "hint: --log-file FILE keeps the traceback",
            ]
        return printable("\n".join(lines))


def _short(line: dict[str, Any]) -> str:
    status = line["status"]
    # A request that is refused at the door has no route yet.
    parts = [str(status), *([responses.get(status, "")] if status >= 400 else []), line["route"] or line["method"]]
    if "model" in line:
        parts += [line["model"].rpartition("/")[2], counted(line["tokens"], "token")]
    parts += ["in", f"{line['ms'] / 1000:.1f} s"]
    if line["client"] not in ("127.0.0.1", "::1"):
        parts += ["for", line["client"]]
    return " ".join(parts)


def _interesting(record: logging.LogRecord) -> bool:
    """Whether a model was used, or something failed: requests of the page for its files and lists would hide those."""
    line = record.msg
    return not isinstance(line, dict) or "model" in line or (line["status"] >= 400 and line["status"] != CLIENT_LEFT)
