"""The machine to plan for: this one with measured speeds, or one described in a file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsr.models import library
from dsr.store import paths
from runtime.base.errors import DsrError, NotFound, UsageError
from runtime.base.events import Listener, ignore
from runtime.base.keyed_cache import KeyedCache
from runtime.base.texts import read_text
from runtime.gguf.card import ModelCard
from runtime.machine import gpus
from runtime.machine.host import Host
from runtime.machine.machine import Machine, from_json

if TYPE_CHECKING:
    from runtime.llama import EngineInfo


def measure_this_machine(card: ModelCard | None = None, listen: Listener = ignore, *, again: bool = False) -> Machine:
    """This machine with the speeds that `card` needs, from the cache or measured now. `again` measures all of them.

    Raises EngineFailed where nothing can be measured.
    """
    from runtime.machine.host import busy_cores, probe

    return measured_machine(probe(), card, busy_cores(), listen, again=again)


def measured_machine(
    host: Host,
    card: ModelCard | None,
    busy: int,
    listen: Listener = ignore,
    *,
    threads: int | None = None,
    again: bool = False,
) -> Machine:
    """`host` with its speeds for `threads`, or for the fastest number of threads. Other programs use `busy` cores."""
    from runtime.machine.measure import fingerprint, measure_machine

    engine = _engine()
    key = fingerprint(host, engine.version if engine else "", busy)
    cache = _cache()
    figures = {} if again else cache.get(key) or {}
    before = len(figures)
    file = _file_to_time(card)
    found = measure_machine(host, engine, card, file=file, busy=busy, threads=threads, figures=figures, listen=listen)
    if len(figures) > before:
        cache.put({key: figures})
    return found


def cached_machine(host: Host, card: ModelCard | None, busy: int, *, threads: int | None = None) -> Machine | None:
    """The same from the cache alone; None if a measurement is missing."""
    from runtime.machine.measure import fingerprint, measure_machine

    engine = _engine()
    figures = _CachedFigures(_cache().get(fingerprint(host, engine.version if engine else "", busy)) or {})
    try:
        return measure_machine(
            host, engine, card, file=_file_to_time(card), busy=busy, threads=threads, figures=figures
        )
    except _NotMeasuredError:
        return None


def has_gpus() -> bool:
    """Whether the engine sees any GPU of this machine."""
    engine = _engine()
    return engine is not None and bool(gpus.local_gpus(engine.devices))


class _NotMeasuredError(Exception):
    pass


class _CachedFigures(dict[str, list[float]]):
    """The cached figures. Reading a missing one raises `_NotMeasuredError`."""

    def get(self, key: str, default: object = None) -> Any:
        if key not in self:
            raise _NotMeasuredError(key)
        return self[key]


def read_machine(file: Path) -> Machine:
    """The machine that a JSON file describes. Raises NotFound, UsageError."""
    try:
        text = read_text(file)
    except NotFound as error:
        raise NotFound(error.message, hint="to create it, run on that machine: dsr doctor --json > FILE") from None
    machine = from_json(text, str(file))
    ends = list(dict.fromkeys(name for each in machine.devices for name in (each.node, each.name) if name))
    for number, link in enumerate(machine.links):
        if link.to not in ends:  # a misspelt name would leave the device without its link
            raise UsageError(
                f"{file}: links[{number}].to: {link.to!r} is not a device or a node of this machine",
                hint=f"known: {', '.join(ends)}",
            )
    return machine


def _engine() -> EngineInfo | None:
    from runtime.llama import engine_info

    with suppress(DsrError, OSError, RuntimeError):
        return engine_info()
    return None


def _cache() -> KeyedCache[dict[str, list[float]]]:
    """The measured figures by the fingerprint of machine and load."""
    return KeyedCache(paths.cache_folder() / "speeds.json", dict)


def _file_to_time(card: ModelCard | None) -> Path | None:
    """The file whose reading is timed: the model's own, or the largest installed one."""
    if card is not None and card.path.is_file():
        return card.path
    return max(library.installed(), key=lambda model: model.size).path
