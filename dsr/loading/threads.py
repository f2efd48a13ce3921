"""The number of CPU threads that draws a token fastest, measured once and remembered."""

from __future__ import annotations

from dsr.store import paths
from runtime.base.keyed_cache import KeyedCache
from runtime.gguf.card import ModelCard
from runtime.machine import threads
from runtime.machine.host import Host

# A remembered count is measured again when a token takes this many times its remembered time.
_TOO_SLOW = 3


def best_threads(backend: threads.Threaded, card: ModelCard, host: Host, busy: int, elsewhere: str) -> int:
    """The fastest number of threads, once per model, computer, number of `busy` cores, and work done `elsewhere`.

    `elsewhere` says which part of the work the CPU does not do; "" where it does everything.
    """
    # A thread on a busy core makes all others wait at every step, so such counts are not tried.
    free = max(1, host.cores - busy)
    key = f"{card.header_digest[:16]} {host.cpu} {host.cores} {free}{elsewhere}"
    cache = KeyedCache(paths.cache_folder() / "threads.json", dict)
    match cache.get(key):
        case {"threads": int(count), "seconds": float(seconds)} if 1 <= count <= host.threads:
            # Other work on the same cores can make each token a hundred times slower than with one thread less.
            backend.set_threads(count, count)
            if threads.seconds_per_token(backend) <= seconds * _TOO_SLOW:
                return count
    count = threads.measure(backend, threads.candidates(free))
    cache.put({key: {"threads": count, "seconds": threads.seconds_per_token(backend)}})
    return count
