"""A task profile: the statistics of a model's routers on one task, its GGUF file, and the store of all profiles.

The file holds the router statistics in tensors `blk.<layer>.router.<statistic>`, as an importance matrix does
(quant.measure.imatrix), the keys to match questions with the task, and the text that the model read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

from quant.experts.expert_tensors import ROUTER_WEIGHT, routed_layers
from quant.gguf import writer
from quant.measure.imatrix import Routing, Stored, pieces, read_tensors, routing_in, stored_routing
from quant.measure.routers import check_tcess
from runtime.base.disk_errors import disk_errors
from runtime.base.errors import BadModelFile, Incompatible, NotFound, UsageError
from runtime.base.files import write_atomically
from runtime.gguf.metadata import Metadata

if TYPE_CHECKING:
    from runtime.gguf.card import ModelCard

PROFILE_AGAIN = "make it again: dsr experts profile MODEL --task NAME --force"
_KIND = "expert-profile"
_KEYS = "keys"
_MAX_NAME = 200  # bytes of a file name; file systems allow 255


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """The router statistics of one task.

    `routing` by layer, summed over `tokens` tokens, of a model that sends each token to `active` experts. `keys` are
    (questions, features), one `quant.experts.task_match.question_key` per question; (0, features) for plain text.
    `origin` describes the text in words. `text` is the text that the model read; the loss from pruning is measured on
    it. `top` and `threshold` are the settings of TCESS (quant.measure.routers.RouterCollector).
    """

    task: str
    routing: Mapping[int, Routing]
    tokens: int
    active: int
    keys: NDArray[np.float32]
    origin: str
    text: str
    top: int = 1
    threshold: float | None = None

    def __post_init__(self) -> None:
        check_task(self.task)
        check_tcess(self.top, self.threshold)
        sizes = {each.selected.size for each in self.routing.values()}
        if len(sizes) != 1 or not 1 <= self.active <= max(sizes):
            raise ValueError(f"{self.active} active of {sizes} experts")
        if self.keys.ndim != 2 or self.tokens < 1:
            raise ValueError(f"{self.keys.shape} keys, {self.tokens} tokens")

    @property
    def experts(self) -> int:
        """The number of experts in each layer."""
        return next(iter(self.routing.values())).selected.size

    @property
    def unreached(self) -> Mapping[int, tuple[int, ...]]:
        """The experts by layer that no token was sent to, without layers where there are none."""
        found = {layer: np.flatnonzero(each.selected == 0) for layer, each in self.routing.items()}
        return {layer: tuple(map(int, experts)) for layer, experts in found.items() if experts.size}

    @property
    def digest(self) -> str:
        """SHA-256 of the statistics, which names the profile in the file of a pruned model."""
        out = hashlib.sha256(f"{self.task}\0{self.tokens}\0{self.active}\0".encode())
        for layer, routing in sorted(self.routing.items()):
            out.update(b"%d\0" % layer)
            for _, values in routing.items():
                out.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
        return out.hexdigest()


def check_task(task: str) -> None:
    """Raises UsageError for a name that cannot be stored."""
    if not task.strip() or task != task.strip() or not task.isprintable() or task.startswith("."):
        raise UsageError(f"{task!r} is not a valid task name", hint="use a word: --task mathematics")
    if len(quote(task, safe="")) > _MAX_NAME:
        raise UsageError(f"a task name has at most {_MAX_NAME} characters: {task[:40]!r}...")


def encode_profile(profile: Profile, model: str) -> bytes:
    """The bytes of a profile's file; `model` is the router digest."""
    stored = stored_routing(profile.routing)
    if profile.keys.size:
        stored.append(Stored(_KEYS, profile.keys.astype("<f4")))
    metadata = [
        writer.text("general.type", _KIND),
        writer.text("dsr.profile.task", profile.task),
        writer.text("dsr.profile.model", model),
        writer.text("dsr.profile.origin", profile.origin),
        writer.text("dsr.profile.text", profile.text),
        writer.u32("dsr.profile.tokens", profile.tokens),
        writer.u32("dsr.profile.active", profile.active),
        writer.u32("dsr.profile.features", profile.keys.shape[1]),
        writer.u32("dsr.profile.top", profile.top),
    ]
    if profile.threshold is not None:
        metadata.append(writer.f32("dsr.profile.threshold", profile.threshold))
    return b"".join(pieces(metadata, stored))


def read_profile(path: Path) -> tuple[Profile, str]:
    """Returns a profile and the router digest of its model.

    Raises NotFound, BadModelFile, Incompatible (the file is no profile).
    """
    from runtime.gguf.reader import read_header

    try:
        header = read_header(path)
    except BadModelFile as error:
        raise BadModelFile(path, error.problem, hint=PROFILE_AGAIN) from None
    metadata = Metadata(path, header.metadata, "")
    if metadata.text("general.type") != _KIND:
        raise Incompatible(f"{path}: not an expert profile", hint=PROFILE_AGAIN)
    tensors = read_tensors(path, header)
    features = metadata.integer("dsr.profile.features", least=1, most=2**20)
    keys = tensors.get(_KEYS, np.zeros((0, features), np.float32))
    if keys.dtype != np.float32 or keys.ndim != 2 or keys.shape[1] != features or not np.isfinite(keys).all():
        raise BadModelFile(path, "its keys are not valid", hint=PROFILE_AGAIN)
    threshold = metadata.number("dsr.profile.threshold")
    try:
        profile = Profile(
            task=metadata.text("dsr.profile.task") or "",
            routing=routing_in(path, tensors, PROFILE_AGAIN),
            tokens=metadata.integer("dsr.profile.tokens", least=1, most=2**32 - 1),
            active=metadata.integer("dsr.profile.active", least=1),
            keys=cast("NDArray[np.float32]", keys),
            origin=metadata.text("dsr.profile.origin") or "",
            text=metadata.text("dsr.profile.text") or "",
            top=metadata.integer("dsr.profile.top", least=1),
            threshold=None if threshold is None else round(threshold, 6),
        )
    except (ValueError, UsageError) as error:
        raise BadModelFile(path, f"is not a valid profile: {error}", hint=PROFILE_AGAIN) from None
    return profile, metadata.text("dsr.profile.model") or ""


def router_digest(model: ModelCard | Path) -> str:
    """SHA-256 of the first router's weights and of the numbers of experts, active experts and layers with experts.

    Routers are never quantized, so all quantizations of a model have the same digest, and other models another one.
    Raises Incompatible for a dense model, and what quant.sources.source.GgufSource raises.
    """
    from quant.sources.source import GgufSource
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
