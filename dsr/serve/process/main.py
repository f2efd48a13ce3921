"""An engine process from its first frame to the end of its server.

First frame in: `OpenAsk` as JSON. Out: number 0 tells of the opening: progress, then "result" with `need` (bytes). When
the server says "open", the model is opened, and "result" with its properties follows, or "failed" and the end.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, BinaryIO

from dsr.loading.load import LoadedModel, load
from dsr.loading.options import LoadOptions
from dsr.models import library
from dsr.serve import frames
from dsr.serve.ask import ask_of
from dsr.serve.process import queries
from dsr.serve.process.answering import Answering, broken, failed
from dsr.serve.process.channel import Channel, send
from dsr.serve.process.opening import memory_need
from dsr.serve.process.turns import Turn
from dsr.serve.told import Result, Told, wire
from runtime.base.errors import DsrError
from runtime.base.events import Event, Notice, Progress
from runtime.base.run import Run, Stop
from runtime.engine.engine import Engine

OPENING = 0  # the number under which an opening is told; asks and queries count from 1


def main() -> None:
    """Serve until stdin ends."""
    outgoing, incoming = _take_pipes()
    asked = frames.read_frame(incoming)
    if asked is None:
        return

    def tell(told: Told) -> None:
        send(outgoing, [[OPENING, *wire(told)]])

    def listen(event: Event) -> None:
        if isinstance(event, (Notice, Progress)):
            tell(event)

    try:
        model = library.find(asked["model"])
        options = LoadOptions(**asked["load"]).for_samples(asked["slots"])
        tell(Result({"need": memory_need(model, options)}))
        if frames.read_frame(incoming) is None:
            return
        stop = Stop()
        with load(model, options, Run(stop, listen, asked["threads"])) as loaded:
            tell(Result(queries.answer(loaded, "props", {})))
            _Loop(loaded, asked["most_waiting"], stop).run(incoming, outgoing)
    except DsrError as error:
        tell(failed(error))
    except Exception as error:
        tell(broken(error))


def _take_pipes() -> tuple[int, BinaryIO]:
    """The pipes to the server; what native code prints goes to stderr."""
    outgoing = os.dup(1)
    os.dup2(2, 1)
    return outgoing, sys.stdin.buffer


class _Loop:
    """Steps the engine, and between two steps does what the server wants."""

    def __init__(self, loaded: LoadedModel, most_waiting: int, stop: Stop) -> None:
        self._loaded = loaded
        self._stop = stop
        self._engine = Engine(loaded.backend, drafter=loaded.drafter, reports=loaded.reports, most_waiting=most_waiting)
        self._turns: dict[int, Turn] = {}
        self._preparing = ThreadPoolExecutor(1)  # renders and tokenizes while the engine computes
        self._ended = False

    def run(self, incoming: BinaryIO, outgoing: int) -> None:
        channel = self._channel = Channel(incoming, outgoing, self._handle, self._end)
        self._answering = Answering(self._loaded, self._engine, channel.do)
        channel.start()
        while not self._ended:
            while (action := channel.next_action(wait=not self._engine.busy)) is not None:
                action()
                channel.flush()
                if self._ended:
                    return
            self._engine.step()
            channel.flush()

    def _end(self) -> None:
        """The server is gone, so nobody wants an answer any more."""
        self._stop.set()

        def end() -> None:
            self._ended = True

        self._channel.do(end)

    def _handle(self, message: dict[str, Any]) -> None:
        """One frame from the server, in the thread that reads."""
        number = message["number"]
        if "ask" in message:
            turn = self._turns[number] = Turn(self._engine, message["ask"].get("client", ""))
            self._preparing.submit(self._answer, number, message["ask"], turn)
        elif "query" in message:
            self._preparing.submit(self._query, number, message["query"], message["given"])
        else:
            if (asked := self._turns.get(number)) is not None:
                self._channel.do(asked.withdraw)

    def _answer(self, number: int, wired: dict[str, Any], turn: Turn) -> None:
        tell = partial(self._tell, number)
        try:
            self._answering.answer(ask_of(wired), turn, tell)
        except DsrError as error:
            tell(failed(error))
        except Exception as error:
            tell(broken(error))
        self._channel.do(_nothing)

    def _query(self, number: int, kind: str, given: dict[str, Any]) -> None:
        tell = partial(self._tell, number)
        try:
            tell(Result(self._answering.query(kind, given)))
        except DsrError as error:
            tell(failed(error))
        except Exception as error:
            tell(broken(error))
        self._channel.do(_nothing)

    def _tell(self, number: int, told: Told) -> None:
        from dsr.serve.told import LAST

        if isinstance(told, LAST):
            self._turns.pop(number, None)
        self._channel.tell(number, told)


def _nothing() -> None:
    """What makes the loop look up, and send."""
