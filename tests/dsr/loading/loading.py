"""Hosts, models and loads that the tests of loading share."""

from __future__ import annotations

from pathlib import Path

from dsr.loading.load import load
from dsr.loading.options import LoadOptions
from dsr.models.model import Model
from runtime.base.run import Run
from runtime.base.types import ByteCount
from runtime.machine.host import Host

MIB = 1 << 20
DEFAULTS, ONE_THREAD = LoadOptions(), Run(threads=1)


def host(available: int, cores: int = 2) -> Host:
    return Host(
        platform="Test",
        cpu="Test CPU",
        cores=cores,
        threads=cores,
        features=(),
        memory_total=ByteCount(64 << 30),
        memory_available=ByteCount(available),
        memory_limited_by="the machine",
        disk_free=ByteCount(0),
    )


def file_model(path: Path) -> Model:
    return Model(path, (path,), path.name, str(path), ByteCount(path.stat().st_size))


def never(*_: object, **__: object) -> None:
    raise AssertionError("this must not happen")


def load_and_close(model: Model, options: LoadOptions = DEFAULTS, threads: int | None = None) -> int:
    """The number of threads chosen."""
    with load(model, options, Run(threads=threads)) as loaded:
        return loaded.threads
