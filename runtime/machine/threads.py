"""How many threads decode fastest on this machine right now.

Measured, because on a busy machine a thread too many can cost most of the speed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from runtime.engine.backend import Backend, Batch

# Long enough to outlast the timer's and the scheduler's noise, short enough not to be noticed at start.
_SECONDS_PER_TRIAL = 0.02
_ROUNDS = 3
# Another thread count must win by this much: below it, fewer threads are kinder to everything else that runs.
_WORTH_IT = 1.05


class Threaded(Backend, Protocol):
    def set_threads(self, threads: int, batch_threads: int) -> None: ...


def candidates(cores: int) -> tuple[int, ...]:
    """Thread counts worth trying on `cores` physical cores, ascending: powers of two and the counts around all."""
    if cores <= 4:
        return tuple(range(1, cores + 1))
    powers = {2**n for n in range(1, cores.bit_length())}
    return tuple(sorted(n for n in powers | {cores - 1, cores, cores * 3 // 4} if n <= cores))


def measure(backend: Threaded, counts: tuple[int, ...], now: Callable[[], float] = time.perf_counter) -> int:
    """The count of `counts` that decodes single tokens fastest. Leaves slot 0 empty and the winner set.

    The candidates take turns, so that a burst of other load hits all of them alike; each is judged by its best round.
    """
    if len(counts) == 1:
        backend.set_threads(counts[0], counts[0])
        return counts[0]
    best = dict.fromkeys(counts, float("inf"))
    trying = counts
    for _ in range(_ROUNDS):
        for count in trying:
            backend.set_threads(count, count)
            best[count] = min(best[count], seconds_per_token(backend, now))
            if best[count] > 3 * min(best.values()):
                # Oversubscribed: more threads would only be slower still, and one look was dear enough.
                trying = trying[: trying.index(count)]
                break
    winner = counts[0]
    for count in counts[1:]:
        if best[winner] > best[count] * _WORTH_IT:
            winner = count
    backend.set_threads(winner, winner)
    return winner


def seconds_per_token(backend: Backend, now: Callable[[], float] = time.perf_counter) -> float:
    """Mean time of decoding one token, after one that warms the threads up. Leaves slot 0 empty."""
    started, tokens, position = 0.0, 0, 0
    last = backend.context - 1
    while position <= min(last, 64):
        batch = Batch()
        batch.add([0], position, 0, output=True)
        backend.decode(batch)
        if position == 0:
            started = now()
        else:
            tokens += 1
            if now() - started >= _SECONDS_PER_TRIAL:
                break
        position += 1
    seconds = now() - started
    backend.trim(0, 0)
    return seconds / max(tokens, 1)
