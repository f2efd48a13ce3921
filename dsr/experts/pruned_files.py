"""Files made from a model for a conversation with some of its experts: kept for the next one, as long as there is room.

They stand in the cache folder. What was used longest ago goes first.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dsr.store import paths
from quant.experts.prune import PrunePlan
from quant.experts.pruned_source import PrunedSource
from quant.experts.router_probe import ScoutSource
from quant.sources.gguf_source import GgufSource
from quant.write.execute import quantize
from runtime.base.errors import DoesNotFit
from runtime.base.events import Listener, ignore
from runtime.base.run import Run, Stop
from runtime.base.types import ByteCount
from runtime.gguf.card import ModelCard

# Of the disk's room that is free or taken by these files, the share they may take.
MOST_OF_THE_DISK = 0.5


@dataclass(frozen=True, slots=True)
class Held:
    """A file of the cache: bytes, and when it was last used, in seconds."""

    path: Path
    size: int
    used: float


def in_the_way(held: Sequence[Held], needed: int, free: int) -> tuple[Path, ...] | None:
    """What must go for a file of `needed` bytes, where `free` are free on the disk; None where even all is not enough.

    The files used longest ago go first.
    """
    taken = sum(each.size for each in held)
    allowed = int((free + taken) * MOST_OF_THE_DISK)
    if needed > allowed:
        return None
    gone = []
    for each in sorted(held, key=lambda each: each.used):
        if taken + needed <= allowed:
            break
        gone.append(each.path)
        taken -= each.size
    return tuple(gone)


def pruned_file(
    card: ModelCard,
    plan: PrunePlan,
    digest: str,
    *,
    stop: Stop | None = None,
    listen: Listener = ignore,
) -> tuple[Path, bool]:
    """The model with the experts that `plan` keeps, and whether it was written just now. `digest` is the router digest.

    Raises DoesNotFit (disk), Aborted.
    """
    with GgufSource(card.path) as source:
        return _made(PrunedSource(source, plan), _name(card, digest, plan), stop, listen)


def scout_file(
    card: ModelCard, digest: str, *, stop: Stop | None = None, listen: Listener = ignore
) -> tuple[Path, bool]:
    """The model up to its first router, and whether it was written just now. Raises what `pruned_file` does."""
    with GgufSource(card.path) as source:
        return _made(ScoutSource(source), _name(card, digest), stop, listen)


def _name(card: ModelCard, digest: str, plan: PrunePlan | None = None) -> str:
    """The router's weights tell apart what has the same header, two finetunes of one model."""
    key = hashlib.sha256(f"{card.header_digest} {digest}".encode())
    if plan is None:
        return f"{key.hexdigest()[:16]}-scout.gguf"
    key.update(f"{sorted(plan.kept.items())} {plan.active} {plan.groups} {plan.profiles} {plan.score}".encode())
    return f"{key.hexdigest()[:16]}.gguf"


def _made(source: PrunedSource | ScoutSource, name: str, stop: Stop | None, listen: Listener) -> tuple[Path, bool]:
    folder = paths.cache_folder() / "experts"
    path = folder / name
    if path.is_file():
        with suppress(OSError):  # a cache that cannot be written is still good to read
            os.utime(path)
        return path, False
    plan = source.file_plan()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise DoesNotFit(f"{folder}: {error.strerror or error}") from None
    gone = in_the_way(_held(folder), plan.bytes, free)
    if gone is None:
        raise DoesNotFit(f"{ByteCount(plan.bytes)} are needed in {folder}, where {ByteCount(free)} are free")
    for old in gone:
        with suppress(OSError):
            old.unlink()
    quantize(source, plan, path, Run(stop or Stop(), listen, threads=1))
    return path, True


def _held(folder: Path) -> list[Held]:
    found = []
    for path in folder.iterdir():
        with suppress(OSError):
            facts = path.stat()
            found.append(Held(path, facts.st_size, facts.st_mtime))
    return found
