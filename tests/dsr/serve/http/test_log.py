"""The log: JSON for programs, a short line for a person at a terminal."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsr.serve.account import Account
from dsr.serve.http import log


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    known = [logging.getLogger(name) for name in ("dsr.serve", "asyncio", "uvicorn.error")]
    before = [(each, each.handlers, each.propagate, each.level) for each in known]
    yield
    for logger, handlers, propagate, level in before:
        for handler in logger.handlers:
            handler.close()
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
    logging.getLogger("dsr.serve.requests").disabled = False


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    log.start_log(None)
    return sys.stderr


ASKED = Account(route="/v1/chat/completions", model="nano", prompt_tokens=18, cached_tokens=17, tokens=85)


def told(terminal: Terminal) -> list[str]:
    return [line[len("00:00:00 ") :] for line in terminal.getvalue().splitlines()]


def test_at_a_terminal_an_answer_is_one_short_line(terminal: Terminal) -> None:
    log.request_ended("127.0.0.1", "POST", 200, 2.5849, ASKED)
    log.request_ended("192.168.1.7", "POST", 200, 0.15, ASKED)
    log.request_ended("::1", "POST", 200, 1, Account(route="/api/chat", model="/home/me/small.gguf", tokens=1))
    assert told(terminal) == [
        "200 /v1/chat/completions nano 85 tokens in 2.6 s",
        "200 /v1/chat/completions nano 85 tokens in 0.1 s for 192.168.1.7",
        "200 /api/chat small.gguf 1 token in 1.0 s",
    ]


def test_at_a_terminal_what_the_page_reads_is_left_out_but_refusals_are_not(terminal: Terminal) -> None:
    log.request_ended("127.0.0.1", "GET", 200, 0.001, Account(route="/api/dsr/models"))
    log.request_ended("127.0.0.1", "POST", 201, 0.001, Account(route="/api/dsr/conversations"))
    log.request_ended("127.0.0.1", "POST", 499, 6.0, Account(route="/api/dsr/plan"))
    log.request_ended("127.0.0.1", "GET", 403, 0.001, Account(route="/v1/models"))
    log.request_ended("127.0.0.1", "POST", 404, 0.001, Account())
    assert told(terminal) == ["403 Forbidden /v1/models in 0.0 s", "404 Not Found POST in 0.0 s"]


def test_at_a_terminal_a_fault_has_no_traceback_and_no_control_characters(terminal: Terminal) -> None:
    try:
        raise ValueError("bad \x1b[2J")
    except ValueError:
        logging.getLogger("dsr.serve").exception("a request failed")
    assert told(terminal)[0] == "error: a request failed"
    assert terminal.getvalue().splitlines()[1:] == ["ValueError: bad [2J", "hint: --log-file FILE keeps the traceback"]


@pytest.mark.parametrize("to_file", [True, False])
def test_elsewhere_every_request_is_a_line_of_json(
    to_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stderr = Terminal() if to_file else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    log.start_log(tmp_path / "log" if to_file else None)
    log.request_ended("127.0.0.1", "POST", 200, 2.5849, ASKED)
    log.request_ended("127.0.0.1", "GET", 200, 0.001, Account(route="/api/dsr/models"))
    text = (tmp_path / "log").read_text() if to_file else stderr.getvalue()
    asked, read = (json.loads(line) for line in text.splitlines())
    del asked["time"], read["time"]
    assert asked == {
        "client": "127.0.0.1",
        "method": "POST",
        "route": "/v1/chat/completions",
        "status": 200,
        "ms": 2584.9,
        "model": "nano",
        "prompt_tokens": 18,
        "cached_tokens": 17,
        "tokens": 85,
    }
    assert read == {"client": "127.0.0.1", "method": "GET", "route": "/api/dsr/models", "status": 200, "ms": 1.0}
