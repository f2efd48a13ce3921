"""Does pieces of work in threads, settles them in order, and ends within a moment when a stop is wanted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Event
from typing import Generic, TypeVar

from quant.round.watch import Watch
from runtime.base.errors import Aborted
from runtime.base.run import Run
from runtime.machine.host import usable_threads

_AHEAD = 3  # pieces per thread that are under way, so that no thread waits for the one that is settled next
_LOOK = 0.2  # seconds between two looks at whether a stop is wanted, and at how far the pieces are

Piece = TypeVar("Piece")


@dataclass(slots=True, eq=False)
class _Task(Generic[Piece]):
    """A piece that a thread works on. `share` of it is done."""

    piece: Piece
    ended: Event
    share: float = 0.0
    future: Future[None] = field(default_factory=Future)

    def watch(self, share: float) -> None:
        self.share = share
        if self.ended.is_set():
            raise _stopped()


def do_pieces(
    pieces: Iterable[Piece],
    work: Callable[[Piece, Watch], None],
    run: Run,
    settled: Callable[[Piece], None],
    report: Callable[[Iterable[tuple[Piece, float]]], None],
) -> None:
    """Call `work` for each piece in one of `run.threads` threads, with a watch that ends it once the whole work ends.

    `settled` is called for each finished piece, in order; `report` now and then with the pieces under way and the
    share of each that is done. Raises Aborted when a stop is wanted, and the first error of a piece."""
    threads = run.threads or usable_threads()
    under_way: deque[_Task[Piece]] = deque()
    ended = Event()

    def look() -> None:
        if run.stop.take():
            raise _stopped()

    def settle() -> None:
        task = under_way[0]
        while not wait([task.future], _LOOK).done:
            look()
            report((task.piece, task.share) for task in under_way)
        task.future.result()
        under_way.popleft()
        settled(task.piece)
        report((task.piece, task.share) for task in under_way)

    with ThreadPoolExecutor(threads, "quantize") as pool:
        try:
            for piece in pieces:
                look()
                task = _Task(piece, ended)
                task.future = pool.submit(work, piece, task.watch)
                under_way.append(task)
                if len(under_way) >= threads * _AHEAD:
                    settle()
            while under_way:
                settle()
        except BaseException:
            ended.set()
            pool.shutdown(cancel_futures=True)
            raise


def _stopped() -> Aborted:
    return Aborted("stopped; the same command continues where it was")
