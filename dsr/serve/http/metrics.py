"""Numbers for a monitor, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dsr.serve.account import Account
from dsr.serve.pool.pool import Pool, Seat

# Answers take from milliseconds to an hour.
_SECONDS = (0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
# A client may send any word as its method.
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Metrics:
    """The numbers of one server. They have no names but those of routes and of models."""

    def __init__(self, pool: Pool) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            "dsr_requests", "Requests that ended.", ["route", "method", "status"], registry=registry
        )
        self._seconds = Histogram(
            "dsr_request_seconds", "Time from a request to its end.", ["route"], buckets=_SECONDS, registry=registry
        )
        self._tokens = Counter(
            "dsr_tokens", "Tokens of requests that ended: read, of these cached, drawn, of these thought.",
            ["model", "kind"], registry=registry,
        )  # fmt: skip
        self.in_flight = Gauge("dsr_requests_in_flight", "Requests that are being answered.", registry=registry)
        ProcessCollector(registry=registry)
        registry.register(_PoolCollector(pool))

    def request_ended(self, method: str, status: int, seconds: float, account: Account) -> None:
        route = account.route or "none"
        self._requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if account.model and account.prompt_tokens:
            kinds = {
                "prompt": account.prompt_tokens,
                "cached": account.cached_tokens,
                "drawn": account.tokens,
                "thought": account.thinking_tokens,
            }
            for kind, count in kinds.items():
                self._tokens.labels(account.model, kind).inc(count)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _PoolCollector(Collector):
    """Reads the pool when the monitor asks."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        counts = self._pool.counts
        loads = CounterMetricFamily("dsr_model_loads", "Models that were loaded, or could not be.", labels=["result"])
        loads.add_metric(["loaded"], counts.loaded)
        loads.add_metric(["failed"], counts.failed)
        yield loads
        yield CounterMetricFamily("dsr_engine_deaths", "Engine processes that ended by themselves.", value=counts.died)
        seats = self._pool.seats
        states = GaugeMetricFamily("dsr_models", "Models by their state.", labels=["state"])
        for state in ("waiting", "loading", "open"):
            states.add_metric([state], sum(seat.state == state for seat in seats))
        yield states
        gauges: dict[str, tuple[str, Callable[[Seat], float]]] = {
            "memory_bytes": ("Memory that a model takes, as predicted.", lambda seat: seat.need),
            "requests": ("Requests that hold a model.", lambda seat: seat.users),
            "drawing": ("Samples that are drawn: slots in use.", lambda seat: seat.engine.standing.drawing),
            "reading": ("Prompts that are read.", lambda seat: seat.engine.standing.reading),
            "waiting": ("Samples in the queue.", lambda seat: seat.engine.standing.waiting),
            "held": ("Cells of the KV cache that requests hold.", lambda seat: seat.engine.standing.held),
            "cached": ("Cells of the KV cache that hold earlier texts.", lambda seat: seat.engine.standing.cached),
            "moved": (
                "Tokens of earlier texts that moved from the KV cache to host memory.",
                lambda seat: seat.engine.standing.moved,
            ),
            "slots": ("Samples that can be drawn at once.", lambda seat: seat.engine.props.get("slots", 0)),
        }
        for name, (what, value_of) in gauges.items():
            family = GaugeMetricFamily(f"dsr_model_{name}", what, labels=["model"])
            for seat in seats:
                family.add_metric([seat.shown], value_of(seat))
            yield family
        from_disk = {
            "passes": "Passes of a model that runs from the disk.",
            "needed": "Experts or layers that passes needed.",
            "in_memory": "Needed experts or layers that were in memory already.",
            "ahead_used": "Experts or layers that were read ahead and needed then.",
            "ahead_in_vain": "Experts or layers that were read ahead and not needed then.",
            "bytes_read": "Bytes of weights that were read from the disk.",
            "waited_seconds": "Time in which nothing was computed, for the disk.",
            "callback_seconds": "Time for the choice of what is read and dropped.",
        }
        for name, what in from_disk.items():
            counter = CounterMetricFamily(f"dsr_disk_{name}", what, labels=["model"])
            for seat in seats:
                if seat.engine.disk:
                    counter.add_metric([seat.shown], seat.engine.disk[name])
            yield counter
