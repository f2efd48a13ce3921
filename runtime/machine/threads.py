"""Measures how many threads decode fastest now. On a busy machine one thread too many can cost most of the speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from runtime.base.run import MOST_THREADS
from runtime.engine.backend import Backend, Batch

# Long enough for the noise of timer and scheduler, short enough not to be noticed at the start.
_SECONDS_PER_TRIAL = 0.02
_ROUNDS = 3
# More threads must be this much faster; otherwise fewer leave more for other programs.
_WORTH_IT = 1.05


class Threaded(Backend, Protocol):
    def set_threads(self, threads: int, batch_threads: int) -> None: ...


def candidates(cores: int) -> tuple[int, ...]:
    """Thread counts worth trying on `cores` physical cores, ascending: powers of two and the counts around all."""
    cores = min(cores, MOST_THREADS)
    if cores <= 4:
        return tuple(range(1, cores + 1))
    powers = {2**n for n in range(1, cores.bit_length())}
    return tuple(sorted(n for n in powers | {cores - 1, cores, cores * 3 // 4} if n <= cores))


def measure(backend: Threaded, counts: tuple[int, ...], now: Callable[[], float] = time.perf_counter) -> int:
    """The thread count of `counts` that decodes single tokens fastest. Leaves slot 0 empty and that count set.

    The counts take turns, so that a burst of other load affects all of them alike. The best round of each counts.
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
                # More threads than free cores: still more would be slower.
                trying = trying[: trying.index(count)]
                break
    winner = counts[0]
    for count in counts[1:]:
        if best[winner] > best[count] * _WORTH_IT:
            winner = count
    backend.set_threads(winner, winner)
    return winner


def seconds_per_token(backend: Backend, now: Callable[[], float] = time.perf_counter) -> float:
    """The mean time to decode one token after a warm-up. Leaves slot 0 empty."""
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
