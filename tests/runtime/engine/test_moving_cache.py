"""Idle texts leave the cache for host memory when one text runs alone, and come back when a prompt begins with them."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from runtime.base.events import ignore
from runtime.base.types import SamplingParams
from runtime.engine import prefix_plan
from runtime.engine.engine import Engine
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.llama import LlamaBackend, OpenOptions
from runtime.llama.graph import GraphNode
from tests.fakes import FakeBackend, saying


def asked(text: str, number: int = 0) -> Request:
    return Request(Prompt(tokens=tuple(text.encode())), SamplingParams(), None, number, keep_reply=True)


def engine_of(backend: FakeBackend, host_bytes: int = 1_000_000) -> Engine:
    return Engine(backend, host_bytes=host_bytes)


def test_idle_texts_leave_for_a_text_that_runs_alone_and_its_answer_attends_to_itself_only() -> None:
    backend = FakeBackend(saying("yes", after="? "), context=2000, batch_size=512)
    engine = engine_of(backend)
    engine.generate([asked("a" * 300 + "? ")])
    engine.generate([asked("b" * 300 + "? ")])
    assert backend.cells() == 302 + 3
    assert engine.standing.moved == 302 + 3


def test_few_idle_cells_stay() -> None:
    backend = FakeBackend(saying("yes", after="? "), context=2000, batch_size=512)
    engine = engine_of(backend)
    engine.generate([asked("a" * 200 + "? ")])
    engine.generate([asked("b" * 300 + "? ")])
    assert engine.standing.moved == 0
    assert backend.cells() == 205 + 305


def test_a_text_comes_back_and_is_not_read_again() -> None:
    backend = FakeBackend(saying("yes", after="? "), context=2000, batch_size=512)
    engine = engine_of(backend)
    for letter in "abcdef":
        engine.generate([asked(letter * 300 + "? ")])
    before = backend.decoded
    for letter in "abcdef":
        [answer] = engine.generate([asked(letter * 300 + "? yes and? ")])
        assert answer.answer == "yes"
    assert backend.decoded - before == 6 * (len(" and? ") + len("yes"))


def test_the_beginning_that_a_text_shares_with_others_stays() -> None:
    backend = FakeBackend(saying("yes", after="? "), context=2000, batch_size=512)
    engine = engine_of(backend)
    engine.generate([asked("system: be kind. " + "a" * 300 + "? ")])
    before = backend.decoded
    engine.generate([asked("system: be kind. " + "b" * 300 + "? ")])
    assert backend.decoded - before == 302 + 3
    assert backend.cells() == len("system: be kind. ") + 302 + 3


def test_texts_come_back_next_to_others_that_run_where_they_have_room() -> None:
    backend = FakeBackend(saying("yes", after="? "), slots=2, context=2000, batch_size=512)
    engine = engine_of(backend)
    engine.generate([asked("a" * 300 + "? ")])
    engine.generate([asked("b" * 300 + "? ")])
    assert engine.standing.moved == 305
    before = backend.decoded
    engine.generate([asked("c" * 300 + "? "), asked("a" * 300 + "? yes and? ", 1)])
    assert backend.decoded - before == (302 + 3) + len(" and? ") + len("yes")


def test_in_the_time_between_two_requests_all_texts_but_the_last_used_leave() -> None:
    backend = FakeBackend(saying("yes", after="? "), slots=3, context=2000, batch_size=512)
    engine = engine_of(backend)
    engine.generate([asked(letter * 300 + "? ", number) for number, letter in enumerate("abc")])
    assert backend.cells() == 3 * 305
    moved = 0
    while engine.rest():
        moved += 1
    assert moved >= 2
    assert backend.cells() == 305
    assert engine.standing.moved == 2 * 305
    before = backend.decoded
    for letter in "abc":
        engine.generate([asked(letter * 300 + "? yes and? ")])
    assert backend.decoded - before == 3 * (len(" and? ") + len("yes"))


def test_few_texts_stay_between_two_requests_and_so_do_those_of_a_request_in_progress() -> None:
    backend = FakeBackend(saying("yes", after="? "), context=2000, batch_size=512)
    engine = engine_of(backend)
    engine.generate([asked("a" * 200 + "? ")])
    engine.generate([asked("b" * 300 + "? ")])
    assert not engine.rest()
    assert engine.standing.moved == 0
    engine.generate([asked("c" * 200 + "? ")])
    engine.submit(asked("d" * 300 + "? "), ignore)
    assert not engine.rest()


def test_nothing_leaves_while_others_run() -> None:
    backend = FakeBackend(saying("yes", after="? "), slots=2, context=2000, batch_size=512)
    engine = engine_of(backend)
    engine.generate([asked("a" * 200 + "? "), asked("b" * 200 + "? ", 1)])
    assert engine.standing.moved == 0


def test_the_limit_is_kept_and_the_least_recently_used_text_is_read_again() -> None:
    backend = FakeBackend(saying("yes", after="? "), context=2000, batch_size=512)
    engine = engine_of(backend, host_bytes=3100)  # a state has four or five bytes for each of 305 tokens
    for letter in "abcd":
        engine.generate([asked(letter * 300 + "? ")])
    assert engine.standing.moved == 2 * 305
    before = backend.decoded
    engine.generate([asked("c" * 300 + "? ")])
    assert backend.decoded - before == 1 + 3
    before = backend.decoded
    engine.generate([asked("a" * 300 + "? ")])
    assert backend.decoded - before == 302 + 3


def test_without_host_memory_everything_stays() -> None:
    backend = FakeBackend(saying("yes", after="? "), context=2000, batch_size=512)
    engine = engine_of(backend, host_bytes=0)
    for letter in "abc":
        engine.generate([asked(letter * 300 + "? ")])
    assert backend.cells() == 3 * 305


def test_texts_whose_state_cannot_be_saved_stay() -> None:
    class Remote(FakeBackend):
        def save(self, slot: int) -> bytes | None:
            return None

    backend = Remote(saying("yes", after="? "), context=2000, batch_size=512)
    engine = engine_of(backend)
    for letter in "abc":
        engine.generate([asked(letter * 300 + "? ")])
    assert backend.cells() == 3 * 305


def test_without_memory_for_a_state_the_text_stays() -> None:
    class Scarce(FakeBackend):
        def save(self, slot: int) -> bytes | None:
            raise MemoryError

    backend = Scarce(saying("yes", after="? "), context=2000, batch_size=512)
    engine = engine_of(backend)
    for letter in "ab":
        engine.generate([asked(letter * 300 + "? ")])
    assert backend.cells() == 2 * 305


def test_a_state_that_the_backend_refuses_is_read_again_and_forgotten() -> None:
    class Refusing(FakeBackend):
        def load(self, slot: int, data: bytes) -> bool:
            self.trim(slot, 0)
            return False

    backend = Refusing(saying("yes", after="? "), context=2000, batch_size=512)
    engine = engine_of(backend)
    engine.generate([asked("a" * 300 + "? ")])
    engine.generate([asked("b" * 300 + "? ")])
    before = backend.decoded
    engine.generate([asked("a" * 300 + "? ")])
    assert backend.decoded - before == 302 + 3


@pytest.mark.parametrize("goes_back", [0, 12])
def test_recurrent_states_and_windows_come_back_whole(goes_back: int) -> None:
    backend = FakeBackend(saying("yes", after="? "), context=2000, batch_size=512, goes_back=goes_back, sequences=4)
    engine = engine_of(backend)
    for letter in "abc":
        engine.generate([asked(letter * 300 + "? ")])
    assert engine.standing.moved > 0
    before = backend.decoded
    engine.generate([asked("a" * 300 + "? yes and? ")])
    assert backend.decoded - before == len(" and? ") + len("yes")


# The real engine


class Watched(LlamaBackend):
    """Knows over how many cells the attention of the last batch went: a multiple of 256."""

    cells = 0

    def _context_params(self) -> Any:
        def visit(address: int, asking: bool, _: object) -> bool:
            node = GraphNode(address)
            if asking and node.operation == "FLASH_ATTN_EXT":
                self.cells = node.source(1).shape[1]
            return False

        params = super()._context_params()
        callback = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_bool, ctypes.c_void_p)(visit)
        self._visits = [*getattr(self, "_visits", ()), callback]  # asked for twice; a context may have either
        params.cb_eval = ctypes.cast(callback, type(params.cb_eval))
        return params


def test_the_engine_attends_to_few_cells_again_and_says_the_same(nano_path: Path) -> None:
    beginning = [5, 6, 7, 8] * 16

    def params(number: int) -> SamplingParams:
        """The first answer is shorter, so that the others do not end two by two."""
        return SamplingParams(temperature=0, max_tokens=2 if number == 10 else 4)

    with Watched(nano_path, OpenOptions(context=4096, slots=2, threads=1)) as backend:
        engine = Engine(backend, host_bytes=1 << 30)

        def ask(*numbers: int) -> list[tuple[int, ...]]:
            """Each text shares its first 64 tokens with the others, and has 400."""
            prompts = {number: [*beginning, *[number, 20, 21] * 112] for number in numbers}
            return [
                done.tokens
                for done in engine.generate(
                    [
                        Request(Prompt(tokens=tuple(each)), params(number), None, at, plain=True, keep_reply=True)
                        for at, (number, each) in enumerate(prompts.items())
                    ]
                )
            ]

        together = ask(10, 11, 12, 13, 14, 15)
        assert backend.cells == 2304
        while engine.rest():
            pass
        assert ask(15) == together[-1:]
        assert backend.cells == 512
        ask(10, 11, 12, 13, 14)
        alone = []
        for number in (10, 11, 12, 13, 14, 15):
            before = engine.standing.cached
            alone += ask(number)
            assert backend.cells == 512, before
        assert alone == together
        assert engine.standing.cached < 512
        assert engine.standing.moved > 5 * 300


# The rule


@pytest.mark.parametrize(
    ("idle", "running", "crowded"),
    [(0, 10, False), (256, 10, False), (257, 10, True), (1000, 8000, False), (1001, 8000, True)],
)
def test_idle_texts_crowd_a_text_once_they_are_more_than_a_step_and_an_eighth_of_it(
    idle: int, running: int, crowded: bool
) -> None:
    assert prefix_plan.is_crowded(idle, running) is crowded


def test_a_text_is_worth_loading_if_it_saves_much_of_itself() -> None:
    backend = FakeBackend(saying("yes", after="? "), context=2000, batch_size=512)
    engine = engine_of(backend)
    engine.generate([asked("a" * 1000 + "? ")])
    engine.generate([asked("b" * 300 + "? ")])
    before = backend.decoded
    engine.generate([asked("a" * 124 + "? ")])
    assert backend.decoded - before == 126 + 3  # 124 of 1,002 tokens are less than an eighth
    engine.generate([asked("b" * 300 + "? ")])
    before = backend.decoded
    engine.generate([asked("a" * 130 + "? ")])
    assert backend.decoded - before == 6 + 2 + 3
