"""What a task asks of a model's experts, kept on the disk: one small GGUF file for each task of each model.

A file holds the router statistics in tensors `blk.<layer>.router.<statistic>`, as an importance matrix does
(quant.measure.imatrix), the keys by which a question finds its task, and the text that was read.
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

from quant.gguf import keyvalue
from quant.measure.imatrix import Routing, Stored, pieces, read_tensors, routing_in, stored_routing
from quant.measure.routers import check_tcess
from runtime.base.disk_errors import disk_errors
from runtime.base.errors import BadModelFile, Incompatible, NotFound, UsageError
from runtime.base.files import write_atomically
from runtime.gguf.layers import layer_count
from runtime.gguf.metadata import Metadata
from runtime.gguf.tensor_name import parse_name

if TYPE_CHECKING:
    from runtime.gguf.card import ModelCard

_KIND = "expert-profile"
_KEYS = "keys"
_ROUTER = "ffn_gate_inp.weight"
_MAKE_ONE = "make one: dsr experts profile MODEL --task NAME"
_MAKE_AGAIN = "make it again: dsr experts profile MODEL --task NAME --force"
_LONGEST_NAME = 200  # of a file; 255 bytes is what file systems take


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """What one task asks of the experts.

    `routing` by layer, summed over `tokens` tokens, of a model that sends each to `active` experts. `keys` are
    (questions, features), of each question what quant.experts.retrieval.key makes of it; (0, features) where plain text
    was read. `origin` says in words what was read, `text` is what was read: the damage of pruning is measured on it.
    `top` and `threshold` are the settings of TCESS (quant.measure.routers.RouterCollector).
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
        """How many there are in each layer."""
        return next(iter(self.routing.values())).selected.size

    @property
    def unreached(self) -> Mapping[int, tuple[int, ...]]:
        """By layer, the experts that no token was sent to; layers without any are left out."""
        found = {layer: np.flatnonzero(each.selected == 0) for layer, each in self.routing.items()}
        return {layer: tuple(map(int, experts)) for layer, experts in found.items() if experts.size}

    @property
    def digest(self) -> str:
        """SHA-256 of the statistics: what was decided from this profile can name it."""
        out = hashlib.sha256(f"{self.task}\0{self.tokens}\0{self.active}\0".encode())
        for layer, routing in sorted(self.routing.items()):
            out.update(b"%d\0" % layer)
            for _, values in routing.items():
                out.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
        return out.hexdigest()


def check_task(task: str) -> None:
    """Raises UsageError for a name that cannot be kept."""
    if not task.strip() or task != task.strip() or not task.isprintable() or task.startswith("."):
        raise UsageError(f"{task!r} is no name of a task", hint="give it a word: --task mathematics")
    if len(quote(task, safe="")) > _LONGEST_NAME:
        raise UsageError(f"the name of a task has at most {_LONGEST_NAME} characters: {task[:40]!r}...")


def routed_layers(card: ModelCard) -> tuple[int, ...]:
    """The layers with routed experts that every token passes. Raises Incompatible for a dense model."""
    names = [parse_name(tensor.name) for tensor in card.tensors]
    found = [name.layer for name in names if name.layer is not None and name.part == _ROUTER]
    layers = tuple(sorted(layer for layer in found if layer < layer_count(card)))
    if not layers or not card.experts:
        raise Incompatible(
            f"{card.name} is a dense model: it has no experts to choose from",
            hint="a mixture of experts is needed, as nano or qwen3:30b-a3b",
        )
    return layers


def router_digest(model: ModelCard | Path) -> str:
    """SHA-256 of the first router's weights and of how many experts, active ones and layers with experts there are.

    Routers are never quantized, so it is the same for all quantizations of a model, and another for any other model.
    Raises Incompatible for a dense model, and as quant.sources.gguf_source.GgufSource does.
    """
    from quant.sources.gguf_source import GgufSource
    from runtime.gguf.reader import read_card

    card = read_card(model) if isinstance(model, Path) else model
    layers = routed_layers(card)
    with GgufSource(card.path) as source:
        [router] = [each for each in source.tensors if each.name == f"blk.{layers[0]}.{_ROUTER}"]
        rows = source.read(router, 0, router.rows).astype("<f4")
    shape = f"\0{card.experts}\0{card.experts_used}\0{len(layers)}"
    return hashlib.sha256(rows.tobytes() + shape.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Store:
    """The profiles of all models: `folder`/<router digest>/<task>.gguf."""

    folder: Path

    def path(self, digest: str, task: str) -> Path:
        """Where a profile stands, or would."""
        check_task(task)
        return self.folder / digest / f"{quote(task, safe='')}.gguf"

    def tasks(self, digest: str) -> tuple[str, ...]:
        """The tasks that a model has profiles of, sorted."""
        found = {path.stem: unquote(path.stem) for path in (self.folder / digest).glob("[!.]*.gguf")}
        return tuple(sorted(task for stem, task in found.items() if quote(task, safe="") == stem))

    def get(self, digest: str, task: str) -> Profile:
        """Read a profile. Raises NotFound, BadModelFile, Incompatible (of another model)."""
        path = self.path(digest, task)
        if not path.exists():
            known = ", ".join(self.tasks(digest))
            raise NotFound(
                f"this model has no profile of the task {task!r}", hint=f"there is: {known}" if known else _MAKE_ONE
            )
        found, model = read(path)
        if model != digest:
            raise Incompatible(f"{path}: a profile of another model", hint=_MAKE_AGAIN)
        if found.task != task:
            raise BadModelFile(path, f"is a profile of the task {found.task!r}", hint=_MAKE_AGAIN)
        return found

    def put(self, digest: str, profile: Profile) -> Path:
        """Keep a profile in the place of an earlier one of its task. Raises DoesNotFit (disk), DsrError."""
        path = self.path(digest, profile.task)
        with disk_errors(path):
            write_atomically(path, encoded(profile, digest))
        return path

    def remove(self, digest: str, task: str) -> None:
        """Forget a profile, if there is one. Raises DsrError."""
        path = self.path(digest, task)
        with disk_errors(path):
            path.unlink(missing_ok=True)


def encoded(profile: Profile, model: str) -> bytes:
    """The bytes of a profile's file; `model` is the router digest."""
    stored = stored_routing(profile.routing)
    if profile.keys.size:
        stored.append(Stored(_KEYS, profile.keys.astype("<f4")))
    metadata = [
        keyvalue.text("general.type", _KIND),
        keyvalue.text("dsr.profile.task", profile.task),
        keyvalue.text("dsr.profile.model", model),
        keyvalue.text("dsr.profile.origin", profile.origin),
        keyvalue.text("dsr.profile.text", profile.text),
        keyvalue.u32("dsr.profile.tokens", profile.tokens),
        keyvalue.u32("dsr.profile.active", profile.active),
        keyvalue.u32("dsr.profile.features", profile.keys.shape[1]),
        keyvalue.u32("dsr.profile.top", profile.top),
    ]
    if profile.threshold is not None:
        metadata.append(keyvalue.f32("dsr.profile.threshold", profile.threshold))
    return b"".join(pieces(metadata, stored))


def read(path: Path) -> tuple[Profile, str]:
    """A profile and the router digest of its model. Raises NotFound, BadModelFile, Incompatible (something else)."""
    from runtime.gguf.reader import read_header

    try:
        header = read_header(path)
    except BadModelFile as error:
        raise BadModelFile(path, error.problem, hint=_MAKE_AGAIN) from None
    metadata = Metadata(path, header.metadata, "")
    if metadata.text("general.type") != _KIND:
        raise Incompatible(f"{path}: not a profile of experts", hint=_MAKE_AGAIN)
    tensors = read_tensors(path, header)
    features = metadata.integer("dsr.profile.features", least=1, most=2**20)
    keys = tensors.get(_KEYS, np.zeros((0, features), np.float32))
    if keys.dtype != np.float32 or keys.ndim != 2 or keys.shape[1] != features or not np.isfinite(keys).all():
        raise BadModelFile(path, "has keys that are none", hint=_MAKE_AGAIN)
    threshold = metadata.number("dsr.profile.threshold")
    try:
        profile = Profile(
            task=metadata.text("dsr.profile.task") or "",
            routing=routing_in(path, tensors, _MAKE_AGAIN),
            tokens=metadata.integer("dsr.profile.tokens", least=1, most=2**32 - 1),
            active=metadata.integer("dsr.profile.active", least=1),
            keys=cast("NDArray[np.float32]", keys),
            origin=metadata.text("dsr.profile.origin") or "",
            text=metadata.text("dsr.profile.text") or "",
            top=metadata.integer("dsr.profile.top", least=1),
            threshold=None if threshold is None else round(threshold, 6),
        )
    except (ValueError, UsageError) as error:
        raise BadModelFile(path, f"holds no profile: {error}", hint=_MAKE_AGAIN) from None
    return profile, metadata.text("dsr.profile.model") or ""
