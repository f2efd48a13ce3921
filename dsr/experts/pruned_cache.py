"""The cache of pruned files that conversations use. When the disk has too little room, the oldest files are deleted."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from dsr.store import paths
from dsr.store.disk_room import files_in, files_to_delete
from quant.experts.prune_plan import PrunePlan
from quant.experts.pruned_source import PrunedSource
from quant.experts.task_match import RouterProbe
from quant.sources.source import GgufSource
from quant.write.execute import quantize
from runtime.base.errors import DoesNotFit
from runtime.base.run import Run
from runtime.base.types import ByteCount
from runtime.gguf.card import ModelCard

# The largest share of the disk for these files, of the room that is free or taken by them.
MAX_DISK_SHARE = 0.5


def pruned_file(card: ModelCard, plan: PrunePlan, digest: str, *, run: Run) -> tuple[Path, bool]:
    """The model with the experts that `plan` keeps, and whether this call wrote it. `digest` is the router digest.

    Raises DoesNotFit (disk), Aborted.
    """
    with GgufSource(card.path) as source:
        return _cached(PrunedSource(source, plan), _name(card, digest, plan), run)


def probe_file(card: ModelCard, digest: str, *, run: Run) -> tuple[Path, bool]:
    """The model up to its first router, and whether this call wrote it. Raises what `pruned_file` raises."""
    with GgufSource(card.path) as source:
        return _cached(RouterProbe(source), _name(card, digest), run)


def _name(card: ModelCard, digest: str, plan: PrunePlan | None = None) -> str:
    """The router digest distinguishes models with the same header, such as two finetunes of one model."""
    key = hashlib.sha256(f"{card.header_digest} {digest}".encode())
    if plan is None:
        return f"{key.hexdigest()[:16]}-scout.gguf"
    key.update(f"{sorted(plan.kept.items())} {plan.active} {plan.groups} {plan.profiles} {plan.score}".encode())
    return f"{key.hexdigest()[:16]}.gguf"


def _cached(source: PrunedSource | RouterProbe, name: str, run: Run) -> tuple[Path, bool]:
    folder = paths.cache_folder() / "experts"
    path = folder / name
    if path.is_file():
        with suppress(OSError):  # a read-only cache is usable
            os.utime(path)
        return path, False
    plan = source.file_plan()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise DoesNotFit(f"{folder}: {error.strerror or error}") from None
    cached = files_in(folder)
    allowed = int((free + sum(each.size for each in cached)) * MAX_DISK_SHARE)
    old_files = files_to_delete(cached, plan.bytes, allowed)
    if old_files is None:
        raise DoesNotFit(f"{folder} needs {ByteCount(plan.bytes)}, and {ByteCount(free)} are free")
    for old in old_files:
        with suppress(OSError):
            old.unlink()
    quantize(source, plan, path, replace(run, threads=1))
    return path, True
