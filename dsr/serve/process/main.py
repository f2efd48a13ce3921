"""An engine process from its first frame to the end of its server.

First frame in: `OpenAsk` as JSON. Out: `frames.OPENING` tells of the opening: "result" with `need` (bytes). When the
server says "open", the model is opened: progress, then "result" with its properties, or "failed" and the end.

The process never outlives its server: when stdin ends, loading and answering stop.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from dsr.loading.embedder import embedder_beside, embedding_need, load_embedder, text_length
from dsr.loading.load import LoadedModel, load
from dsr.loading.options import LoadOptions
from dsr.models import library
from dsr.models.model import Model
from dsr.serve import frames
from dsr.serve.ask import ask_of
from dsr.serve.names import shown
from dsr.serve.process import queries
from dsr.serve.process.answering import Answering, broken, failed
from dsr.serve.process.channel import Channel
from dsr.serve.process.embedding import Embedding
from dsr.serve.process.opening import memory_need
from dsr.serve.process.turns import Turn
from dsr.serve.told import LAST, Failed, Result, Told
from runtime.base.errors import DsrError, Incompatible, WeightsLost
from runtime.base.events import Event, Notice, Progress, TextDrawn, ToolCallGrew
from runtime.base.run import Run, Stop
from runtime.engine.engine import Engine
from runtime.from_disk.use import DiskUse
from runtime.gguf.embedding import made_for_embeddings

_LONGEST_END = 10.0  # seconds after the end of the server: then native code that does not stop is left
# Of -1000 to 1000 (proc(5), oom_score_adj): without memory, the kernel ends a model before the server and its clients.
_OOM_SCORE = 500


def main() -> None:
    """Serve until stdin ends."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    outgoing, incoming = _take_pipes()
    asked = frames.read_frame(incoming)
    if asked is not None:
        _Process(incoming, outgoing).run(asked)


def _take_pipes() -> tuple[int, BinaryIO]:
    """The pipes to the server; what native code prints goes to stderr."""
    outgoing = os.dup(1)
    os.dup2(2, 1)
    # A file of its own: a process that ends while a thread reads sys.stdin crashes in Python's shutdown.
    return outgoing, os.fdopen(os.dup(0), "rb")


class _Process:
    """Opens a model, steps its engine, and between two steps does what the server wants."""

    def __init__(self, incoming: BinaryIO, outgoing: int) -> None:
        self._stop = Stop()
        self._channel = Channel(incoming, outgoing, self._handle, self._end)
        self._turns: dict[int, Turn] = {}
        self._preparing = ThreadPoolExecutor(1)  # renders and tokenizes while the engine computes
        self._may_open = threading.Event()
        self._engine: Engine | None = None  # None while the model opens, and for a model that only embeds
        self._embedding: Embedding | None = None
        self._model = ""
        self._private: dict[str, str] = {}  # what no client sees, and what it sees instead: where the model lies
        self._ended = False
        self._counts = (0, 0, 0)
        self._disk_use: Callable[[], DiskUse] | None = None  # of a model that runs from the disk

    def run(self, asked: dict[str, Any]) -> None:
        self._channel.start()
        try:
            self._open(asked)
        except DsrError as error:
            self._fail(failed(error))
        except Exception as error:
            self._fail(broken(error))
        self._channel.close()

    def _open(self, asked: dict[str, Any]) -> None:
        model = library.find(asked["model"])
        self._model = model.short_name
        self._private = {model.reference: shown(model)}
        if model.path.parent != Path():
            self._private[f"{model.path.parent}{os.sep}"] = ""
        if made_for_embeddings(model.card):
            self._open_embedder(model, asked)
            return
        options = LoadOptions(**asked["load"]).for_samples(asked["slots"])
        need = memory_need(model, options)
        self._tell_opening(Result({"need": need.total}))
        self._may_open.wait()
        if self._ended:
            return
        run = Run(self._stop, self._listen, asked["threads"])
        with load(model, options, run) as loaded, ExitStack() as stack:
            stack.callback(self._close_beside)
            self._engine = Engine(
                loaded.backend,
                drafter=loaded.drafter,
                reports=loaded.reports,
                pass_progress=loaded.pass_progress,
                meanwhile=lambda _: self._channel.flush(),
                host_bytes=need.host_cache,
                most_waiting=asked["most_waiting"],
            )
            self._answering = Answering(loaded, self._engine, self._channel.do, self._prepare, asked["usual"])
            self._disk_use = loaded.disk_use
            self._tell_opening(Result(_props(loaded)))
            self._answer_until_the_end()

    def _open_embedder(self, model: Model, asked: dict[str, Any]) -> None:
        longest = text_length(model.card, asked["load"].get("context"))
        self._tell_opening(Result({"need": embedding_need(model, longest)}))
        self._may_open.wait()
        if self._ended:
            return
        with load_embedder(model, longest, Run(self._stop, self._listen, asked["threads"])) as loaded:
            self._embedding = Embedding(loaded.embedder)
            self._tell_opening(Result(self._embedding.props()))
            self._answer_until_the_end()

    def _answer_until_the_end(self) -> None:
        channel = self._channel
        while not self._ended:
            while (action := channel.next_action(wait=not self._busy and not self._rest())) is not None:
                action()
                channel.flush()
                if self._ended:
                    return
            if self._embedding is not None and self._embedding.busy:
                self._embedding.step()
            if self._engine is not None and self._engine.busy:
                self._engine.step()
                if isinstance(self._engine.aborted, WeightsLost):
                    raise self._engine.aborted  # the next request opens the model again, in another process
                if self._counts != self._engine.counts:
                    self._counts = self._engine.counts
                    channel.tell_standing(self._engine.standing)
                    if self._disk_use is not None:
                        channel.tell_disk(self._disk_use())
            channel.flush()

    def _rest(self) -> bool:
        """Use the time until the next request. False if nothing is left to do."""
        if self._engine is None or not self._engine.rest():
            return False
        self._channel.tell_standing(self._engine.standing)
        return True

    @property
    def _busy(self) -> bool:
        return any(each is not None and each.busy for each in (self._engine, self._embedding))

    def _close_beside(self) -> None:
        """Close the embedder that shares the model's weights, before the model."""
        self._preparing.shutdown(cancel_futures=True)
        if self._embedding is not None:
            self._embedding.embedder.close()

    def _fail(self, last: Failed) -> None:
        """The last words of this process, on all that is open."""
        for number in [frames.OPENING, *self._turns]:
            self._send(number, last)
        self._channel.flush()

    def _listen(self, event: Event) -> None:
        if isinstance(event, (Notice, Progress)):
            self._tell_opening(event)

    def _tell_opening(self, told: Told) -> None:
        self._send(frames.OPENING, told)
        self._channel.flush()

    # In the thread that reads

    def _end(self) -> None:
        """The server is gone, so nobody wants an answer any more."""
        self._ended = True
        self._stop.set()
        self._may_open.set()
        self._channel.do(_nothing)
        last = threading.Timer(_LONGEST_END, os._exit, (1,))
        last.daemon = True
        last.start()

    def _handle(self, message: dict[str, Any]) -> None:
        """One frame from the server."""
        if "open" in message:
            self._may_open.set()
            return
        number = message["number"]
        if "ask" in message:
            if self._engine is None:
                self._tell(number, failed(_no_answers(self._model)))
                self._channel.do(_nothing)
                return
            turn = self._turns[number] = Turn(self._engine, message["ask"].get("client", ""))
            self._preparing.submit(self._answer, number, message["ask"], turn)
        elif "query" in message:
            self._preparing.submit(self._query, number, message["query"], message["given"])
        elif (asked := self._turns.get(number)) is not None:
            asked.withdrawn = True
            self._channel.do(asked.withdraw)
        elif self._embedding is not None:
            self._embedding.withdraw(number)

    # In the thread that prepares

    def _answer(self, number: int, wired: dict[str, Any], turn: Turn) -> None:
        tell = partial(self._tell, number)
        if turn.withdrawn:
            self._turns.pop(number, None)
            return
        try:
            ask = ask_of(wired)
            self._answering.answer(ask, turn, tell if ask.streams else partial(_tell_ends, tell))
        except DsrError as error:
            tell(failed(error))
        except Exception as error:
            tell(broken(error))
        self._channel.do(_nothing)

    def _prepare(self, action: Callable[[], None]) -> None:
        self._preparing.submit(action)

    def _query(self, number: int, kind: str, given: dict[str, Any]) -> None:
        tell = partial(self._tell, number)
        try:
            if kind == "embed":
                self._open_embedding().begin(number, given, tell)
            elif self._engine is None:
                raise _no_answers(self._model)
            else:
                tell(Result(self._answering.query(kind, given)))
        except DsrError as error:
            tell(failed(error))
        except Exception as error:
            tell(broken(error))
        self._channel.do(_nothing)

    def _open_embedding(self) -> Embedding:
        if self._embedding is None:
            self._embedding = Embedding(embedder_beside(self._answering.loaded, Run(self._stop)))
        return self._embedding

    def _tell(self, number: int, told: Told) -> None:
        if isinstance(told, LAST):
            self._turns.pop(number, None)
        self._send(number, told)

    def _send(self, number: int, told: Told) -> None:
        if isinstance(told, Failed):
            told = replace(told, message=self._public(told.message), hint=told.hint and self._public(told.hint))
        elif isinstance(told, Notice):
            told = replace(told, text=self._public(told.text))
        self._channel.tell(number, told)

    def _public(self, text: str) -> str:
        for private, public in self._private.items():
            text = text.replace(private, public)
        return text


def _tell_ends(tell: Callable[[Told], None], told: Told) -> None:
    """Leave out what the end of a sample repeats."""
    if not isinstance(told, (TextDrawn, ToolCallGrew, Progress)):
        tell(told)


def _no_answers(model: str) -> Incompatible:
    return Incompatible(f"{model} is open for embeddings, and writes no text", hint="ask it for embeddings")


def _props(loaded: LoadedModel) -> Any:
    return queries.answer(loaded, "props", {})


def _nothing() -> None:
    """What makes the loop look up, and send."""
