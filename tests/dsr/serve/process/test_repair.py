"""Second tries for broken calls: in whose thread they are prepared, and who else draws meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from dsr.serve.process.answering import _Listener
from dsr.serve.process.repair import Repairing
from dsr.serve.process.turns import Turn
from dsr.serve.told import Done, Ended, Failed, Told
from runtime.base.errors import Aborted
from runtime.base.events import Event, Interrupted, TextDrawn, ToolCallGrew
from runtime.base.types import SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from tests.fakes import FakeBackend, saying
from tests.runtime.engine.test_call_repair import BROKEN, WHOLE, request


class Asked:
    """One ask of `count` samples whose replies take turns. `prepared` and `done` wait for the other threads."""

    def __init__(self, *replies: str, count: int = 1, slots: int = 2, most_waiting: int | None = None) -> None:
        self.backend = FakeBackend(saying(*replies, after="? "), slots=slots)
        self.engine = Engine(self.backend, most_waiting=most_waiting)
        self.turn = Turn(self.engine, "somebody")
        self.prepared: list[Callable[[], None]] = []
        self.done: list[Callable[[], None]] = []
        self.told: list[Told] = []
        self.listener = _Listener(self.told.append, count)
        requests = [replaced(request(), sample) for sample in range(count)]
        repairing = Repairing(requests, self.backend, self.turn, self.listener, self.done.append, self.prepared.append)
        self.turn.submit(requests, repairing.listen)

    def run(self) -> None:
        while self.engine.busy:
            self.engine.step()

    def repair(self) -> None:
        """What the other threads do."""
        while self.prepared or self.done:
            (self.prepared or self.done).pop(0)()

    @property
    def ended(self) -> list[tuple[int, str, list[str]]]:
        samples = [told for told in self.told if isinstance(told, Ended)]
        return [(each.sample, each.finish_reason, [call.arguments for call in each.calls]) for each in samples]


def replaced(request: Request, sample: int) -> Request:
    return Request(request.prompt, request.params, sample=sample, calling=request.calling)


def test_the_ask_ends_after_the_second_try() -> None:
    asked = Asked(BROKEN)
    asked.run()
    assert len(asked.prepared) == 1
    assert asked.ended == [] and Done() not in asked.told
    asked.repair()
    asked.run()
    assert asked.ended == [(0, "stop", ['{"type": "object"}'])]
    assert asked.told[-1] == Done()
    assert "".join(each.arguments for each in asked.told if isinstance(each, ToolCallGrew)) == '{"type": "object"}'


def test_other_samples_end_while_a_second_try_is_prepared() -> None:
    asked = Asked(BROKEN, WHOLE, "Four.", count=3, slots=3)
    asked.run()
    assert asked.ended == [(2, "stop", []), (1, "stop", ["{}"])]
    asked.repair()
    asked.run()
    assert asked.ended[2:] == [(0, "stop", ['{"type": "object"}'])]
    assert asked.told[-1] == Done()


def test_another_client_draws_during_the_second_try() -> None:
    asked = Asked(BROKEN, "Four.")
    asked.run()
    events: list[Event] = []
    other = Request(Prompt(tuple(b"Two? "), text="Two? "), SamplingParams(), sample=1)
    asked.engine.submit(other, events.append, "another")
    asked.repair()
    asked.run()
    assert asked.ended == [(0, "stop", ['{"type": "object"}'])]
    assert "".join(each.text for each in events if isinstance(each, TextDrawn)) == "Four."


def test_every_sample_has_its_own_second_try() -> None:
    asked = Asked(BROKEN, count=4)
    asked.run()
    assert len(asked.prepared) == 4
    asked.repair()
    asked.run()
    assert sorted(asked.ended) == [(sample, "stop", ['{"type": "object"}']) for sample in range(4)]


def test_a_client_that_is_gone_gets_no_second_try() -> None:
    asked = Asked(BROKEN)
    asked.run()
    asked.turn.withdraw()
    asked.repair()
    assert not asked.engine.busy
    assert asked.ended == [(0, "length", ['{"type": '])]


def test_a_client_that_leaves_during_the_second_try_ends_it() -> None:
    asked = Asked(BROKEN)
    asked.run()
    asked.repair()
    asked.engine.step()
    asked.turn.withdraw()
    asked.run()
    [(_, reason, _)] = asked.ended
    assert reason == "cancelled"


def test_a_sample_ends_as_it_is_when_the_queue_is_full() -> None:
    asked = Asked(BROKEN, slots=1, most_waiting=1)
    asked.run()
    for sample in range(2):
        asked.engine.submit(replaced(request(), sample), lambda event: None)
        asked.engine.step()
    asked.repair()
    assert asked.ended == [(0, "length", ['{"type": '])]


def test_after_an_abort_nothing_more_is_told() -> None:
    asked = Asked(BROKEN, WHOLE + "more " * 9, count=2)
    while not asked.prepared:
        asked.engine.step()
    asked.listener.listen(Interrupted(Aborted()))
    waiting = asked.engine.counts[2]
    asked.repair()
    assert asked.engine.counts[2] == waiting
    assert asked.ended == []
    assert isinstance(asked.told[-1], Failed)


def test_a_fault_while_preparing_ends_the_sample_as_it_is() -> None:
    asked = Asked(BROKEN)
    asked.run()
    asked.backend.tokenize = None  # type: ignore[assignment,method-assign]
    asked.repair()
    assert asked.ended == [(0, "length", ['{"type": '])]
