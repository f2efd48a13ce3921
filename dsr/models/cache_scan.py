"""Lists the models in the Hugging Face cache, complete and incomplete.

The cache is read directly, in the layout its makers document
(huggingface.co/docs/huggingface_hub/guides/manage-cache): models--org--name/{refs,blobs,snapshots}.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsr.models.catalog import load
from dsr.models.gguf_names import groups_in, is_model_file
from dsr.models.model import Model
from quant.sources.weight_files import other_weights
from runtime.base.errors import VerificationFailed
from runtime.base.shard_names import missing_shards
from runtime.base.types import ByteCount, listed

ORIGINAL = "safetensors"
PARTIAL = "incomplete"

_NEWS = 32 << 20  # bytes: larger than the tokenizer of any model
_SHA256 = re.compile(r"[0-9a-f]{64}")


def hub_cache_folder() -> Path:
    """HF_HUB_CACHE, else HF_HOME/hub, else XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub."""
    set_cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if set_cache:
        return _expanded(set_cache)
    home = os.environ.get("HF_HOME")
    if not home:
        home = str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return _expanded(home) / "hub"


def _expanded(text: str) -> Path:
    return Path(os.path.expandvars(os.path.expanduser(text)))


def cached_models() -> Iterator[Model]:
    """All models of the cache, by repository; none if it is empty or missing."""
    try:
        folders = sorted(hub_cache_folder().glob("models--*--*"))
    except OSError:
        return
    for folder in folders:
        _, *parts = folder.name.split("--")
        repo = "/".join(parts)
        if len(parts) == 2 and folder.is_dir():
            try:
                yield from list(_in_repository(folder, repo))
            except OSError as error:
                yield _model(folder, (), repo, None, PARTIAL, problem=f"cannot be read: {error.strerror}")


def _in_repository(folder: Path, repo: str) -> Iterator[Model]:
    """The models of one repository, those of refs/main first. A model in two revisions is listed once."""
    try:
        main = (folder / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        main = ""
    snapshots = [entry for entry in folder.glob("snapshots/*") if entry.is_dir()]
    seen: set[tuple[Path, ...]] = set()
    linked = {Path(root, name).resolve() for root, _, names in os.walk(folder / "snapshots") for name in names}
    for snapshot in sorted(snapshots, key=lambda entry: (entry.name != main, entry.name)):
        for model in _in_snapshot(snapshot, repo):
            targets = tuple(file.resolve() for file in model.files)
            if targets not in seen:
                seen.add(targets)
                yield model
    # A kill leaves a partial file, or a complete one without a link. Both take space until a pull uses them.
    partial = tuple(sorted(blob for blob in folder.glob("blobs/*") if blob.resolve() not in linked and blob.is_file()))
    if partial:
        yield _model(folder, partial, repo, None, PARTIAL, problem="its download is not complete")


def _in_snapshot(snapshot: Path, repo: str) -> Iterator[Model]:
    found = (Path(root, name) for root, _, names in os.walk(snapshot) for name in names)
    names = sorted(path.relative_to(snapshot).as_posix() for path in found)
    for label, parts in groups_in(names).items():
        files = tuple(snapshot / part for part in parts)
        yield _model(files[0], files, repo, snapshot.name, label, problem=_problem(parts, files))
    if any("/" not in name and name.endswith(".safetensors") for name in names):
        files = tuple(snapshot / name for name in names if not is_model_file(name))
        weights = [name for name in names if name.endswith(".safetensors") and not other_weights(name.split("/")[-1])]
        yield _model(snapshot, files, repo, snapshot.name, ORIGINAL, problem=_problem(weights, files))


@dataclass(frozen=True, slots=True)
class OtherFiles:
    """Files of a repository in the cache that belong to no model that dsr lists."""

    repo: str
    files: tuple[str, ...]
    size: ByteCount

    def describe(self) -> str:
        """'org/repo: 3 other files (a.bin, b.onnx, ...), 4.20 GiB'."""
        count = f"{len(self.files)} other file{'s' * (len(self.files) > 1)}"
        return f"{self.repo}: {count} ({listed(self.files, most=3)}), {self.size}"


def other_files() -> list[OtherFiles]:
    """What `cached_models` passes over: other formats, parts of models, repositories without an organisation.

    Small files (settings, cards) of a repository with a model are no news.
    """
    listed_files = {file.resolve() for model in cached_models() for file in model.files}
    others = []
    try:
        folders = sorted(hub_cache_folder().glob("models--*"))
    except OSError:
        return []
    for folder in folders:
        try:
            found = sorted(path for path in folder.glob("snapshots/*/**/*") if path.is_file())
        except OSError:  # `cached_models` says so
            continue
        has_model = any(path.resolve() in listed_files for path in found)
        unlisted = {path.resolve(): path for path in found if path.resolve() not in listed_files}
        kept = [path for path in unlisted.values() if not has_model or path.stat().st_size >= _NEWS]
        if kept:
            size = ByteCount(sum(path.stat().st_size for path in kept))
            repo = "/".join(folder.name.split("--")[1:])
            others.append(OtherFiles(repo, tuple(path.name for path in kept), size))
    return others


def _problem(names: Sequence[str], files: Sequence[Path]) -> str | None:
    broken = [file.name for file in files if not file.is_file()]
    if broken:
        return f"{broken[0]} is a broken link"
    try:
        missing = missing_shards(names)
    except VerificationFailed as error:
        return error.message
    return str(missing[0]) if missing else None


def _model(
    path: Path, files: tuple[Path, ...], repo: str, revision: str | None, label: str, *, problem: str | None
) -> Model:
    entry = load().entry_for_repo(repo)
    short = entry.name if entry and entry.gguf.casefold() == repo.casefold() else repo
    digests = tuple(_digest(file) for file in files)
    measure = size_on_disk if label == PARTIAL else _size
    return Model(
        path,
        files,
        name=f"{entry.describe() if entry else repo}, {label}",
        reference=f"{short}:{label}",
        size=ByteCount(sum(measure(file) for file in files if file.is_file())),
        kind="safetensors" if label == ORIGINAL else "gguf",
        repo=repo,
        revision=revision,
        quant=label,
        entry=entry,
        digests=digests if all(digests) else (),
        problem=problem,
    )


def size_on_disk(file: Path) -> int:
    """The bytes that a file takes; less than its size where it has holes, as a partial download may have."""
    found = file.stat()
    return min(found.st_size, getattr(found, "st_blocks", found.st_size) * 512)


def _size(file: Path) -> int:
    return file.stat().st_size


def _digest(file: Path) -> str:
    """The cache names the blob of a large file by its SHA-256; "" for a small file."""
    name = file.resolve().name if file.is_symlink() else ""
    return name if _SHA256.fullmatch(name) else ""
