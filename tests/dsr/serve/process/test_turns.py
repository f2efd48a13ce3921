"""One engine for many clients: strategies that stop early, and what goes wrong while an ask is queued."""

from __future__ import annotations

from collections.abc import Callable, Generator

import pytest

from dsr.serve.process.answering import _Listener
from dsr.serve.process.turns import Turn, TurnDrawer
from dsr.serve.told import Done, Failed, Told
from runtime.base.errors import Busy, WeightsLost
from runtime.base.events import Interrupted, SampleFinished
from runtime.base.types import SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from tests.fakes import FakeBackend, saying


class Engines:
    """An engine that takes `steps` steps whenever it was given something to do. Tests have one thread."""

    def __init__(self, steps: int = 0, **options: int) -> None:
        self.backend = FakeBackend(saying("a" * 50, after="?"), slots=2)
        self.engine = Engine(self.backend, **options)
        self.turn = Turn(self.engine, "client")
        self.drawer = TurnDrawer(self.turn, self.engine.slots, self._do)
        self._steps = steps

    def _do(self, action: Callable[[], None]) -> None:
        action()
        for _ in range(self._steps):
            self.engine.step()


def request(sample: int) -> Request:
    return Request(Prompt(tokens=tuple(b"x?")), SamplingParams(max_tokens=40), None, sample=sample)


def test_a_strategy_that_closes_its_stream_gives_the_slots_back() -> None:
    engines = Engines(steps=3)
    running = engines.drawer.stream([request(0), request(1)])
    assert isinstance(running, Generator)
    next(running)
    assert engines.engine.busy
    running.close()
    engines.engine.step()
    assert not engines.engine.busy


def test_a_strategy_hears_behind_its_samples_that_the_weights_are_lost() -> None:
    engines = Engines(steps=20)
    engines.backend.abort_after, engines.backend.abort_with = 5, WeightsLost("the file changed")
    *_, first, second, last = engines.drawer.stream([request(0), request(1)])
    assert [type(each) for each in (first, second)] == [SampleFinished, SampleFinished]
    assert last == Interrupted(engines.backend.abort_with)


def test_an_answer_whose_weights_are_lost_has_failed() -> None:
    engines, told = Engines(), list[Told]()
    engines.backend.abort_after, engines.backend.abort_with = 5, WeightsLost("the file changed")
    listener = _Listener(told.append, 1, lambda: engines.engine.aborted is not None)
    engines.turn.submit([request(0)], listener.listen)
    while engines.engine.busy:
        engines.engine.step()
    assert Done() not in told
    assert told[-1] == Failed("WeightsLost", "the file changed")


def test_an_ask_of_which_one_sample_finds_no_place_leaves_no_sample() -> None:
    engines = Engines(most_waiting=1)
    with pytest.raises(Busy):
        engines.turn.submit([request(0), request(1), request(2)], lambda event: None)
    engines.engine.step()
    assert not engines.engine.busy


def test_a_fault_while_a_strategy_is_queued_reaches_the_strategy() -> None:
    engines = Engines()

    def broken(*given: object) -> None:
        raise ValueError("no seed")

    engines.backend.sampler = broken  # type: ignore[assignment, method-assign]
    with pytest.raises(ValueError, match="no seed"):
        next(engines.drawer.stream([request(0)]))
