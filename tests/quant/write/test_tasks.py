"""Pieces of work in threads: settled in order, ended by a stop or an error, their shares reported."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Event

import pytest

from quant.round.watch import Watch, part
from quant.write.tasks import do_pieces
from runtime.base.errors import Aborted
from runtime.base.run import Run, Stop


def unreported(under_way: Iterable[tuple[int, float]]) -> None:
    pass


def test_pieces_are_settled_in_order() -> None:
    first_may_end, settled = Event(), list[int]()

    def work(piece: int, watch: Watch) -> None:
        if piece == 0:
            assert first_may_end.wait(10)
        if piece == 3:
            first_may_end.set()

    do_pieces(range(20), work, Run(threads=2), settled.append, unreported)
    assert settled == list(range(20))


def test_a_stop_ends_a_piece_that_watches() -> None:
    stop, ended = Stop(), list[float]()

    def work(piece: int, watch: Watch) -> None:
        stop.set()
        try:
            while True:
                watch(0.5)
        except Aborted:
            ended.append(piece)
            raise

    with pytest.raises(Aborted, match="the same command continues"):
        do_pieces(range(3), work, Run(stop, threads=2), lambda piece: None, unreported)
    assert ended  # a piece that had not begun is never begun


def test_an_error_ends_the_pieces_beside_it() -> None:
    ended, other_runs = list[int](), Event()

    def work(piece: int, watch: Watch) -> None:
        if piece == 0:
            assert other_runs.wait(10)
            raise OSError("the disk is gone")
        other_runs.set()
        try:
            while True:
                watch(0.1)
        except Aborted:
            ended.append(piece)
            raise

    with pytest.raises(OSError, match="the disk is gone"):
        do_pieces(range(2), work, Run(threads=2), lambda piece: None, unreported)
    assert ended == [1]


def test_the_shares_of_pieces_under_way_are_reported() -> None:
    seen, found = Event(), list[dict[int, float]]()

    def work(piece: int, watch: Watch) -> None:
        part(watch, 0.5, 1)(0.5)
        assert seen.wait(10)

    def report(under_way: Iterable[tuple[int, float]]) -> None:
        found.append(dict(under_way))
        if found[-1] == {7: 0.75}:
            seen.set()

    do_pieces([7], work, Run(threads=1), lambda piece: None, report)
    assert {7: 0.75} in found
    assert found[-1] == {}
