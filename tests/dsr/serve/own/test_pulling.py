"""A pull over HTTP ends with the server."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import psutil
import pytest

from dsr.serve.own import models


def test_a_pull_ends_at_once_when_the_server_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = tmp_path / "number"
    script = (
        f"import os, time; open({str(number)!r}, 'w').write(str(os.getpid()))\n"
        "print('begun', flush=True); time.sleep(60)"
    )
    monkeypatch.setattr(models, "child_command", lambda *_: (sys.executable, "-c", script))

    async def pull() -> list[str]:
        ending, told = asyncio.Event(), []
        async for line in models._pulling("a/b", ending):
            told.append(line)
            ending.set()
        return told

    told = asyncio.run(asyncio.wait_for(pull(), 30))
    assert told == [
        "data: begun\n\n",
        'data: {"type":"failed","message":"dsr serve is ending","hint":"pull again: what came is kept"}\n\n',
    ]
    assert not psutil.pid_exists(int(number.read_text()))


def test_what_a_pull_tells_is_passed_on_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "print('one'); print('two'); exit(3)"
    monkeypatch.setattr(models, "child_command", lambda *_: (sys.executable, "-c", script))

    async def pull() -> list[str]:
        return [line async for line in models._pulling("a/b", asyncio.Event())]

    assert asyncio.run(pull()) == [
        "data: one\n\n",
        "data: two\n\n",
        'data: {"type":"failed","message":"the pull ended without a word","hint":null}\n\n',
    ]
