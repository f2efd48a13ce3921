"""Engine processes without processes: they obey the interface of `EngineProcess`, and tell what a test scripted."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

from dsr.serve import account
from dsr.serve import told as wires
from dsr.serve.ask import Ask, ask_of
from dsr.serve.pool.engine import OpenAsk, ToldFailed
from dsr.serve.told import LAST, Begun, Decided, Done, Ended, Failed, Told
from runtime.base.events import Notice, Progress, TextDrawn, ThoughtEnded, ToolCallGrew
from runtime.base.types import ToolCall
from runtime.engine.standing import Standing

# What is told of an ask, in order; a number is a pause of as many seconds.
Script = Callable[[Ask], Iterable[Told | float]]

PROPS: dict[str, Any] = {
    "context": 1024, "longest": 1024, "slots": 8, "threads": 1, "template": "{{ messages }}", "bos": "", "eos": "",
    "efforts": [], "thinks": True,
}  # fmt: skip
PROMPT_TOKENS = 7


def begun() -> Begun:
    return Begun(prompt_tokens=PROMPT_TOKENS, sampling={"temperature": 0.6}, seed=1)


def ended(answer: str, thinking: str = "", *, sample: int = 0, **other: Any) -> Ended:
    """A sample whose tokens are the words of its texts."""
    thought = len(thinking.split())
    tokens = thought + len(answer.split())
    given = {"finish_reason": "stop", "tokens": tokens, "thinking_tokens": thought, "cached": 3, "seconds": 0.5}
    return Ended(sample=sample, thinking=thinking, answer=answer, **{**given, **other})


def drawn(answer: str, thinking: str = "", *, sample: int = 0, **other: Any) -> list[Told]:
    """A sample, told word by word, and its end. `other` are fields of `Ended`."""
    told: list[Told] = [TextDrawn(sample, "thinking", text) for text in _words(thinking)]
    if thinking:
        told.append(ThoughtEnded(sample))
    told += [TextDrawn(sample, "answer", text) for text in _words(answer)]
    return [*told, ended(answer, thinking, sample=sample, **other)]


def saying(answer: str, thinking: str = "", **other: Any) -> Script:
    """Each sample of an ask says the same; a strategy decides for its first one, of two."""

    def script(ask: Ask) -> list[Told]:
        count = 2 if ask.strategy else ask.samples
        samples = [drawn(answer, thinking, sample=number, **other) for number in range(count)]
        told = [each for sample in samples for each in sample]
        decided = [Decided(verdict(answer, ask.strategy, count), 0)] if ask.strategy else []
        return [begun(), *told, *decided, Done()]

    return script


def calling(*calls: ToolCall, thinking: str = "", then: str = "Done.") -> Script:
    """Calls tools, their arguments in two pieces each; once a tool has answered, it says `then`."""

    def script(ask: Ask) -> list[Told]:
        if ask.messages[-1].role == "tool":
            return saying(then)(ask)
        told: list[Told] = [begun(), *(TextDrawn(0, "thinking", text) for text in _words(thinking))]
        for index, call in enumerate(calls):
            half = len(call.arguments) // 2
            told.append(ToolCallGrew(0, index, call.id, call.name, call.arguments[:half]))
            told.append(ToolCallGrew(0, index, call.id, call.name, call.arguments[half:]))
        return [*told, ended("", thinking, calls=calls), Done()]

    return script


def failing(kind: str, message: str = "it broke", after: Iterable[Told] = ()) -> Script:
    """`kind` is the name of an error's class; "EngineDied" for a process that died."""
    return lambda ask: [*after, Failed(kind, message)]


def verdict(answer: str, strategy: str = "vote", samples: int = 2) -> dict[str, Any]:
    """As `dsr chat --json` has it."""
    each = {
        "answer": answer, "tokens": 4, "finish_reason": "stop", "seconds": 0.5, "confidence": 0.9, "weight": 1.0,
        "note": "",
    }  # fmt: skip
    return {
        "strategy": strategy,
        "winner": answer,
        "confidence": 1.0,
        "tally": [{"answer": answer, "votes": samples, "weight": float(samples)}],
        "abstained": 0,
        "tied": False,
        "rule": f"{samples} of {samples} votes",
        "samples": [{**each, "seed": 1 + number} for number in range(samples)],
        "tokens": {"spent": 4 * samples, "saved": 0, "sequential": 4},
    }


def _words(text: str) -> list[str]:
    return [word if number == 0 else f" {word}" for number, word in enumerate(text.split(" "))] if text else []


class FakeEngine:
    """One of `FakeEngines`. What it gets and tells crosses the wire's form, so that only what can be sent is sent."""

    def __init__(self, all_of_them: FakeEngines) -> None:
        self._all = all_of_them
        self._told: dict[int, asyncio.Queue[Told]] = {}
        self._numbers = itertools.count(1)
        self.props: dict[str, Any] = {}
        self.opened: OpenAsk | None = None
        self.standing = Standing()
        self.disk: dict[str, float] = {}
        self.died = False
        self.closed = False
        self._gone = asyncio.Event()
        self.ends_slowly: asyncio.Event | None = None  # it ends once this is set
        self.withdrawn = 0  # asks that were given up before their end

    @property
    def pid(self) -> int:
        return 0

    @property
    def answering(self) -> int:
        return len(self._told)

    async def start(self, asked: OpenAsk) -> int:
        self.opened = asked
        await asyncio.sleep(0)
        if self.died:
            raise ToldFailed(DIED)
        if self._all.fails_to_start is not None:
            raise ToldFailed(self._all.fails_to_start)
        return self._all.need.get(asked.model, 1000)

    async def open(self) -> AsyncIterator[Progress | Notice]:
        await asyncio.sleep(0)
        for event in self._all.loading:
            yield event
        await self._all.may_open.wait()
        if self.died:
            raise ToldFailed(DIED)
        if self._all.fails_to_open is not None:
            raise ToldFailed(self._all.fails_to_open)
        self.props = dict(self._all.props)

    async def ask(self, ask: Ask) -> AsyncIterator[list[Told]]:
        self._all.asks.append(ask_of(json.loads(json.dumps(ask.wire()))))
        number = next(self._numbers)
        queue = self._told[number] = asyncio.Queue()
        spent = account.current()
        telling = asyncio.create_task(self._tell(self._all.script(ask), queue))
        done = False
        try:
            while not done:
                come = [await queue.get()]
                while not queue.empty():
                    come.append(queue.get_nowait())
                for told in come:
                    spent.add(told)
                done = isinstance(come[-1], LAST)
                yield come
        finally:
            telling.cancel()
            self._told.pop(number, None)
            self.withdrawn += not done

    async def _tell(self, script: Iterable[Told | float], queue: asyncio.Queue[Told]) -> None:
        for each in script:
            if isinstance(each, float):
                await asyncio.sleep(each)
            else:
                queue.put_nowait(wires.told_of(json.loads(json.dumps(wires.wire(each)))))

    async def query(self, kind: str, given: Mapping[str, Any]) -> Any:
        given = json.loads(json.dumps(dict(given)))
        self._all.queried.append((kind, given))
        if self.died:
            raise ToldFailed(DIED)
        found = self._all.answers[kind]
        if isinstance(found, Failed):
            raise ToldFailed(found)
        return found(given) if callable(found) else found

    def fail(self, failed: Failed) -> None:
        for queue in self._told.values():
            queue.put_nowait(failed)

    async def gone(self) -> Failed:
        await self._gone.wait()
        return DIED

    def die(self) -> None:
        """As when the process is killed: what is open fails."""
        self.died = True
        self._gone.set()
        self.fail(DIED)

    async def close(self) -> None:
        await asyncio.sleep(0)
        if self.ends_slowly is not None:
            await self.ends_slowly.wait()
        self.closed = True
        self.die()


DIED = Failed("EngineDied", "the engine process of this model ended while it answered", "ask again")


class FakeEngines:
    """Makes engines for a pool, and is what a test scripts and looks at.

    `script` says what an ask is told, `answers` what a query gets: a value, a function of what was given, or Failed.
    `asks` and `queried` are what came. An engine opens once `may_open` is set, as it is at the start.
    """

    def __init__(self) -> None:
        self.script: Script = saying("Four.", "Two and two.")
        self.answers: dict[str, Any] = {
            "tokenize": lambda given: [*given["text"].encode()],
            "detokenize": lambda given: bytes(given["tokens"]).decode("utf-8", "replace"),
            "prompt": lambda given: "".join(each["content"] for each in given["ask"]["messages"]),
            "count": PROMPT_TOKENS,
            "props": PROPS,
            "slots": [],
        }
        self.props = PROPS
        self.need: dict[str, int] = {}
        self.loading: tuple[Progress | Notice, ...] = ()
        self.may_open = asyncio.Event()
        self.may_open.set()
        self.fails_to_start: Failed | None = None
        self.fails_to_open: Failed | None = None
        self.made: list[FakeEngine] = []
        self.asks: list[Ask] = []
        self.queried: list[tuple[str, dict[str, Any]]] = []

    def __call__(self) -> FakeEngine:
        self.made.append(FakeEngine(self))
        return self.made[-1]

    @property
    def asked(self) -> Ask:
        """The last ask."""
        return self.asks[-1]
