from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from dsr.serve.ask import Ask
from dsr.serve.pool import pool as module
from dsr.serve.pool.engine import ToldFailed
from dsr.serve.pool.pool import Pool, PoolOptions
from dsr.serve.pool.room import Memory
from dsr.serve.told import Done, Failed
from runtime.base.errors import Busy
from runtime.base.events import Notice, Progress
from runtime.base.types import Message
from tests.dsr.serve.fake_engine import FakeEngine, FakeEngines

HELLO = Ask(messages=(Message("user", "hello"),))
ROOMY = Memory(1000, 1000)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK", 0.01)
    monkeypatch.setattr(module, "_PROCESS", 0)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Case:
    """A pool over scripted engines, with a clock and a memory that a test sets."""

    def __init__(self, memory: Memory = ROOMY, **options: Any) -> None:
        self.engines = FakeEngines()
        self.engines.need = dict.fromkeys("abcd", 300)
        self.memory = memory
        self.clock = Clock()
        self.reports: list[str] = []
        self.pool = Pool(
            PoolOptions(**options), lambda: self.memory, self.clock, self.engines, self.reports.append
        )  # fmt: skip

    def made(self, model: str) -> list[FakeEngine]:
        return [each for each in self.engines.made if each.opened is not None and each.opened.model == model]

    @property
    def open(self) -> list[str]:
        return sorted(seat.name for seat in self.pool.seats if seat.state == "open")

    async def use(self, model: str) -> None:
        async with self.pool.engine(model) as engine:
            async for _ in engine.ask(HELLO):
                pass


def run(work: Callable[[Case], Coroutine[Any, Any, None]], case: Case | None = None) -> None:
    case = case or Case()

    async def all_of_it() -> None:
        await case.pool.start()
        try:
            async with asyncio.timeout(20):
                await work(case)
        finally:
            await case.pool.close()
        assert all(each.closed for each in case.engines.made), "a process was left behind"

    asyncio.run(all_of_it())


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.001)


def test_requests_for_one_model_share_its_process() -> None:
    async def work(case: Case) -> None:
        await asyncio.gather(*(case.use("a") for _ in range(5)))
        assert (len(case.engines.made), case.open, case.pool.counts.loaded) == (1, ["a"], 1)

    run(work)


def test_an_idle_model_leaves_after_its_time_and_not_before() -> None:
    async def work(case: Case) -> None:
        await case.use("a")
        case.clock.now += 59
        await asyncio.sleep(0.05)
        assert case.open == ["a"]
        case.clock.now += 2
        await until(lambda: case.engines.made[0].closed)
        assert case.open == []

    run(work, Case(keep_alive=60.0))


def test_a_model_that_answers_does_not_leave() -> None:
    async def work(case: Case) -> None:
        async with case.pool.engine("a"):
            case.clock.now += 1000
            await asyncio.sleep(0.05)
            assert case.open == ["a"]
            assert await case.pool.unload("a") is False
        assert await case.pool.unload("a") is True
        assert case.open == []

    run(work, Case(keep_alive=60.0))


def test_without_keep_alive_a_model_leaves_at_once_and_with_never_it_stays() -> None:
    async def work(case: Case) -> None:
        await case.use("a")
        await until(lambda: case.engines.made[0].closed)
        async with case.pool.engine("a"):
            case.pool.keep("a", -1)
        case.clock.now += 1e9
        await asyncio.sleep(0.05)
        assert case.open == ["a"]

    run(work, Case(keep_alive=0.0))


def test_the_least_used_model_leaves_for_one_that_needs_its_memory() -> None:
    async def work(case: Case) -> None:
        for model in "abc":
            case.clock.now += 1
            await case.use(model)
        case.clock.now += 1
        await case.use("a")
        await case.use("d")
        assert case.open == ["a", "c", "d"]
        assert case.made("b")[0].closed

    run(work, Case(most_models=9))


def test_a_model_waits_for_one_that_answers_and_gets_its_memory_then() -> None:
    async def work(case: Case) -> None:
        async with case.pool.engine("a"):
            waiting = asyncio.create_task(case.use("b"))
            await until(lambda: any(seat.reason for seat in case.pool.seats))
            assert [seat.reason for seat in case.pool.seats if seat.name == "b"] == [
                "it needs 300 B, and 150 B are free"
            ]
            assert not waiting.done() and not case.made("a")[0].closed
        await waiting
        assert case.made("a")[0].closed and case.open == ["b"]

    run(work, Case(Memory(500, 500)))


def test_models_wait_in_line() -> None:
    """b came first, so c does not overtake it, although c alone would fit."""

    async def work(case: Case) -> None:
        case.engines.need = {"a": 300, "b": 800, "c": 10}
        order: list[str] = []

        async def use(model: str) -> None:
            await case.use(model)
            order.append(model)

        async with case.pool.engine("a"):
            first = asyncio.create_task(use("b"))
            await until(lambda: any(seat.reason for seat in case.pool.seats))
            second = asyncio.create_task(use("c"))
            await until(lambda: sum(bool(seat.reason) for seat in case.pool.seats) == 2)
            assert [seat.reason for seat in case.pool.seats if seat.name == "c"] == ["b comes first"]
        await asyncio.gather(first, second)
        assert order[0] == "b"

    run(work)


def test_a_model_in_constant_use_gives_way_to_one_that_has_waited() -> None:
    async def work(case: Case) -> None:
        async with case.pool.engine("a"):
            waiting = asyncio.create_task(case.use("b"))
            await until(lambda: any(seat.reason for seat in case.pool.seats))
            await asyncio.wait_for(case.use("a"), 5)  # at first, requests for a go on
            case.clock.now += 11
            late = asyncio.create_task(case.use("a"))
            await asyncio.sleep(0.05)
            assert not late.done()
        await asyncio.gather(waiting, late)
        assert len(case.made("a")) == 2

    run(work, Case(Memory(500, 500)))


def test_two_models_that_want_the_same_victim_do_not_both_count_its_memory() -> None:
    async def work(case: Case) -> None:
        await case.use("a")
        case.memory = Memory(800, 200)
        await asyncio.gather(case.use("b"), case.use("c"))
        assert len(case.made("a")) == 1 and case.made("a")[0].closed

    run(work, Case(Memory(800, 800)))


def test_a_model_waits_until_the_process_of_one_that_leaves_has_ended() -> None:
    async def work(case: Case) -> None:
        await case.use("a")
        await case.use("b")
        case.engines.made[0].ends_slowly = case.engines.may_open
        case.engines.may_open.clear()
        leaving = asyncio.create_task(case.pool.unload("a"))
        coming = asyncio.create_task(case.use("c"))
        await until(
            lambda: [seat.reason for seat in case.pool.seats if seat.name == "c"] == ["another model is leaving"]
        )
        case.engines.may_open.set()
        await asyncio.gather(leaving, coming)
        assert case.open == ["b", "c"]

    run(work, Case(Memory(1000, 310)))


def test_a_request_in_the_moment_in_which_its_model_leaves_opens_it_again() -> None:
    async def work(case: Case) -> None:
        await case.use("a")
        leaving = asyncio.create_task(case.pool.unload("a"))
        await asyncio.sleep(0)
        assert not case.made("a")[0].closed
        await asyncio.gather(case.use("a"), leaving)
        assert len(case.made("a")) == 2 and case.open == ["a"]

    run(work)


def test_a_dead_process_is_replaced_and_counted() -> None:
    async def work(case: Case) -> None:
        case.engines.script = lambda ask: [30.0, Done()]
        async with case.pool.engine("a") as engine:
            asking = engine.ask(HELLO)
            told = asyncio.create_task(anext(asking))
            await asyncio.sleep(0.01)
            case.engines.made[0].die()
            assert [type(each) for each in await told] == [Failed]
        case.engines.script = lambda ask: [Done()]
        await case.use("a")
        assert (len(case.made("a")), case.pool.counts.died, len(case.reports)) == (2, 1, 1)

    run(work)


def test_a_process_that_dies_while_its_model_opens_fails_those_who_wait() -> None:
    async def work(case: Case) -> None:
        case.engines.may_open.clear()
        waiting = [asyncio.create_task(case.use("a")) for _ in range(3)]
        await until(lambda: any(seat.state == "loading" for seat in case.pool.seats))
        case.engines.made[0].die()
        case.engines.may_open.set()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in ends] == [ToldFailed] * 3

    run(work)


def test_a_process_that_died_while_it_opened_its_model_is_tried_once_more_at_once() -> None:
    async def work(case: Case) -> None:
        case.engines.fails_to_open = Failed("EngineDied", "it ended")
        ends = [await asyncio.gather(case.use("a"), return_exceptions=True) for _ in range(3)]
        assert [type(each) for end in ends for each in end] == [ToldFailed] * 3
        assert len(case.engines.made) == 2

    run(work)


def test_a_broken_file_fails_each_who_waits_and_is_not_tried_again_at_once() -> None:
    async def work(case: Case) -> None:
        case.engines.fails_to_open = Failed("BadModelFile", "a: the file ends too early")
        ends = await asyncio.gather(*(case.use("a") for _ in range(3)), return_exceptions=True)
        ends += await asyncio.gather(case.use("a"), return_exceptions=True)
        assert [each.failed.kind for each in ends] == ["BadModelFile"] * 4  # type: ignore[union-attr]
        assert (len(case.engines.made), case.pool.counts.failed) == (1, 1)
        case.clock.now += 6
        case.engines.fails_to_open = None
        await case.use("a")
        assert case.open == ["a"]

    run(work)


def test_closing_while_a_model_opens_fails_those_who_wait() -> None:
    async def work(case: Case) -> None:
        case.engines.may_open.clear()
        waiting = asyncio.create_task(case.use("a"))
        await until(lambda: any(seat.state == "loading" for seat in case.pool.seats))
        await case.pool.close()
        with pytest.raises(ToldFailed, match="dsr serve is ending"):
            await waiting
        with pytest.raises(ToldFailed, match="dsr serve is ending"):
            await case.use("b")

    run(work)


def test_ending_fails_the_answers_that_are_drawn() -> None:
    async def work(case: Case) -> None:
        case.engines.script = lambda ask: [30.0, Done()]
        async with case.pool.engine("a") as engine:
            told = asyncio.create_task(anext(engine.ask(HELLO)))
            await asyncio.sleep(0.01)
            case.pool.end_answers()
            assert await told == [module.ENDING]

    run(work)


def test_a_model_that_nobody_waits_for_any_more_leaves_the_line() -> None:
    async def work(case: Case) -> None:
        async with case.pool.engine("a"):
            waiting = asyncio.create_task(case.use("b"))
            await until(lambda: any(seat.reason for seat in case.pool.seats))
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await until(lambda: all(each.closed for each in case.made("b")))
            assert [seat.name for seat in case.pool.seats] == ["a"]

    run(work, Case(Memory(500, 500)))


def test_too_many_who_wait_for_one_model_are_refused() -> None:
    async def work(case: Case) -> None:
        case.engines.may_open.clear()
        waiting = [asyncio.create_task(case.use("a")) for _ in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(Busy, match="2 requests wait for a already"):
            await case.use("a")
        case.engines.may_open.set()
        await asyncio.gather(*waiting)

    run(work, Case(most_waiting=2))


def test_without_memory_for_a_process_a_model_leaves_before_another_one_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_PROCESS", 50)

    async def work(case: Case) -> None:
        case.engines.need["a"] = 1000  # it runs from the disk
        async with case.pool.engine("a"):
            case.memory = Memory(1000, 40)
            second = asyncio.create_task(case.use("b"))
            await asyncio.sleep(0.05)
            assert [each.opened is not None for each in case.engines.made] == [True, False]
        await until(lambda: not case.made("a") or case.made("a")[0].closed)
        case.memory = Memory(1000, 900)
        await second
        assert case.open == ["b"] and not case.reports

    run(work)


def test_what_an_engine_says_while_it_loads_is_reported() -> None:
    async def work(case: Case) -> None:
        case.engines.loading = (Notice("runs from the disk"), Progress("loading", "a", 1, 2, "percent"))
        await case.use("a")
        assert case.reports == ["a: runs from the disk"]

    run(work)
