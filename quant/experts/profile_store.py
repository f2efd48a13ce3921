"""The stored task profiles of all models: one small GGUF file for each task of each model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from quant.experts.expert_tensors import ROUTER_WEIGHT, routed_layers
from quant.experts.task_profile import PROFILE_AGAIN, Profile, check_task, encode_profile, read_profile
from runtime.base.disk_errors import disk_errors
from runtime.base.errors import BadModelFile, Incompatible, NotFound
from runtime.base.files import write_atomically

if TYPE_CHECKING:
    from runtime.gguf.card import ModelCard


def router_digest(model: ModelCard | Path) -> str:
    """SHA-256 of the first router's weights and of the numbers of experts, active experts and layers with experts.

    Routers are never quantized, so all quantizations of a model have the same digest, and other models another one.
    Raises Incompatible for a dense model, and what quant.sources.gguf_source.GgufSource raises.
    """
    from quant.sources.gguf_source import GgufSource
    from runtime.gguf.reader import read_card

    card = read_card(model) if isinstance(model, Path) else model
    layers = routed_layers(card)
    with GgufSource(card.path) as source:
        [router] = [each for each in source.tensors if each.name == f"blk.{layers[0]}.{ROUTER_WEIGHT}"]
        rows = source.read(router, 0, router.rows).astype("<f4")
    shape = f"\0{card.experts}\0{card.experts_used}\0{len(layers)}"
    return hashlib.sha256(rows.tobytes() + shape.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ProfileStore:
    """The profiles in `folder`/<router digest>/<task>.gguf."""

    folder: Path

    def path(self, digest: str, task: str) -> Path:
        """The file of a profile, which may not exist."""
        check_task(task)
        return self.folder / digest / f"{quote(task, safe='')}.gguf"

    def tasks(self, digest: str) -> tuple[str, ...]:
        """The profiled tasks of a model, sorted."""
        found = {path.stem: unquote(path.stem) for path in (self.folder / digest).glob("[!.]*.gguf")}
        return tuple(sorted(task for stem, task in found.items() if quote(task, safe="") == stem))

    def get(self, digest: str, task: str) -> Profile:
        """Reads a profile. Raises NotFound, BadModelFile, Incompatible (a profile of another model)."""
        path = self.path(digest, task)
        if not path.exists():
            known = ", ".join(self.tasks(digest))
            raise NotFound(
                f"this model has no profile of the task {task!r}",
                hint=f"it has: {known}" if known else "make one: dsr experts profile MODEL --task NAME",
            )
        found, model = read_profile(path)
        if model != digest:
            raise Incompatible(f"{path}: a profile of another model", hint=PROFILE_AGAIN)
        if found.task != task:
            raise BadModelFile(path, f"is a profile of the task {found.task!r}", hint=PROFILE_AGAIN)
        return found

    def put(self, digest: str, profile: Profile) -> Path:
        """Stores a profile and replaces an earlier one of its task. Raises DoesNotFit (disk), DsrError."""
        path = self.path(digest, profile.task)
        with disk_errors(path):
            write_atomically(path, encode_profile(profile, digest))
        return path

    def remove(self, digest: str, task: str) -> None:
        """Deletes a profile, if it exists. Raises DsrError."""
        path = self.path(digest, task)
        with disk_errors(path):
            path.unlink(missing_ok=True)
