"""Requests that may move cached parts of a text: what is read, what stays exact, and what falls back to reading."""

from __future__ import annotations

from runtime.base.events import Event, SampleFinished
from runtime.base.types import Completion, SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.prefix_tree import PrefixTree
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from tests.fakes import FakeBackend, saying

BEGIN = "Be brief. "
OLD = "".join(f"{number} is a number. " for number in range(10))
REST = "".join(f"{chr(number)} is a letter. " for number in range(65, 90))
ASK = "Why? "


def engine(**fields: int | None) -> tuple[Engine, FakeBackend]:
    backend = FakeBackend(saying("So.", after="? "), context=2000, **fields)  # type: ignore[arg-type]
    return Engine(backend), backend


def run(engine: Engine, text: str, *, approximate: bool = True) -> Completion:
    request = Request(Prompt(tuple(text.encode())), SamplingParams(), keep_reply=True, approximate=approximate)
    [done] = [event.completion for event in engine.stream([request]) if isinstance(event, SampleFinished)]
    return done


def test_what_stays_behind_a_change_is_not_read_again() -> None:
    drawing, backend = engine()
    run(drawing, BEGIN + OLD + REST + ASK)
    before = backend.decoded
    done = run(drawing, BEGIN + "New:" + REST + "And " + ASK)
    assert done.answer == "So."
    assert backend.decoded - before == len("New:And " + ASK) + len("So.")
    assert done.cached == len(BEGIN + REST)
    assert backend.grafted == len(REST)


def test_what_left_the_beginning_leaves_only_the_question_to_read() -> None:
    drawing, backend = engine()
    run(drawing, BEGIN + OLD + REST + ASK)
    before = backend.decoded
    assert run(drawing, BEGIN + REST + ASK).answer == "So."
    assert backend.decoded - before == 1 + len("So.")  # the last token of a prompt is always read


def test_a_moved_text_goes_on_as_any_other() -> None:
    drawing, backend = engine()
    run(drawing, BEGIN + OLD + REST + ASK)
    run(drawing, BEGIN + REST + ASK)
    before = backend.decoded
    run(drawing, BEGIN + REST + ASK + "So. And " + ASK)
    assert backend.decoded - before == len(" And " + ASK) + len("So.")


def test_who_wants_it_exact_gets_nothing_that_was_moved() -> None:
    drawing, _ = engine()
    run(drawing, BEGIN + OLD + REST + ASK)
    run(drawing, BEGIN + REST + ASK)
    done = run(drawing, BEGIN + REST + ASK, approximate=False)
    assert done.cached == len(BEGIN)
    assert run(drawing, BEGIN + REST + ASK, approximate=False).cached == len(BEGIN + REST + ASK) - 1


def test_nothing_that_was_moved_leaves_the_process() -> None:
    drawing, _ = engine()
    run(drawing, BEGIN + OLD + REST + ASK)
    run(drawing, BEGIN + REST + ASK)
    kept = drawing.export(tuple((BEGIN + REST + ASK).encode()))
    assert kept is not None and bytes(kept.tokens).decode() == BEGIN


def test_nothing_moves_unasked_or_where_the_same_text_must_come_out() -> None:
    drawing, backend = engine()
    run(drawing, BEGIN + OLD + REST + ASK)
    run(drawing, BEGIN + REST + ASK, approximate=False)
    reproducible = Engine(backend, reproducible=True)
    run(reproducible, BEGIN + OLD + REST + ASK)
    run(reproducible, BEGIN + REST + ASK)
    assert backend.grafted == 0


def test_a_model_that_cannot_go_back_reads_again() -> None:
    drawing, backend = engine(goes_back=0)
    run(drawing, BEGIN + OLD + REST + ASK)
    assert run(drawing, BEGIN + REST + ASK).answer == "So."
    assert backend.grafted == 0


def test_a_few_tokens_are_not_worth_it() -> None:
    drawing, backend = engine()
    run(drawing, BEGIN + OLD + REST[:50] + ASK)
    run(drawing, BEGIN + REST[:50] + ASK)
    assert backend.grafted == 0


def test_cells_that_a_running_request_uses_stay_where_they_are() -> None:
    drawing, backend = engine(slots=2)
    events: list[Event] = []
    params = SamplingParams()
    whole, moved = (Prompt(tuple(text.encode())) for text in (BEGIN + OLD + REST + ASK, BEGIN + REST + ASK))
    drawing.submit(Request(whole, params), events.append)
    while not backend._rows:
        drawing.step()
    drawing.submit(Request(moved, params, approximate=True, sample=1), events.append)
    while drawing.busy:
        drawing.step()
    done = [event.completion.answer for event in events if isinstance(event, SampleFinished)]
    assert (done, backend.grafted) == (["So.", "So."], 0)


def test_a_part_that_was_dropped_meanwhile_is_read() -> None:
    drawing, backend = engine()
    run(drawing, BEGIN + OLD + REST + ASK)
    backend.refuse_above = len(BEGIN + OLD + REST + ASK) + 1  # nothing can be read while the old text is held
    assert run(drawing, BEGIN + "New. " * 4 + REST + ASK).answer == "So."
    assert backend.grafted == 0


def test_who_shares_a_part_of_a_sequence() -> None:
    tree = PrefixTree()
    tree.append(0, [1, 2, 3, 4])
    tree.fork(0, 1)
    tree.truncate(1, 2)
    tree.append(1, [5])
    tree.fork(0, 2)
    assert tree.holders(0, 0, 2) == {0, 1, 2}
    assert tree.holders(0, 2, 4) == {0, 2}
    assert tree.holders(1, 2, 3) == {1}
