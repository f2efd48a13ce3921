"""A client that does not read its answer: what waits for it is bounded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dsr.serve.ask import Ask
from dsr.serve.pool import engine as engines
from dsr.serve.pool.engine import EngineProcess
from dsr.serve.told import Done, Failed, Told
from runtime.base.events import TextDrawn
from runtime.base.types import Message


class Piped(EngineProcess):
    """An engine process without a process."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Any] = []

    def _send(self, value: Any) -> None:
        self.sent.append(value)

    def tell(self, number: int, told: Told) -> None:
        self._hand_out(number, self._told[number], told)


def test_an_answer_that_nobody_reads_is_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_MOST_UNREAD", 3)

    async def read() -> list[Told]:
        engine = Piped()
        coming = engine.ask(Ask((Message("user", "?"),)))
        reading = asyncio.ensure_future(anext(coming))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        for _ in range(4):
            engine.tell(1, TextDrawn(0, "answer", "a"))
        assert engine.sent[1:] == [{"number": 1}]
        assert engine.answering == 0
        return await reading

    [told] = asyncio.run(read())
    assert isinstance(told, Failed)
    assert told.kind == "SlowClient"


def test_the_last_word_always_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_MOST_UNREAD", 1)

    async def read() -> list[Told]:
        engine = Piped()
        coming = engine.ask(Ask((Message("user", "?"),)))
        reading = asyncio.ensure_future(anext(coming))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        engine.tell(1, TextDrawn(0, "answer", "a"))
        engine.tell(1, Done())
        return await reading

    assert asyncio.run(read()) == [TextDrawn(0, "answer", "a"), Done()]
