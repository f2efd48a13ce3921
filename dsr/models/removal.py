"""Deletes a model from the Hugging Face cache: plans which files, then deletes them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dsr.models.cache_scan import hub_cache_folder, size_on_disk
from dsr.models.model import Model
from dsr.models.other_programs import PROGRAMS
from runtime.base.errors import DsrError, UsageError
from runtime.base.types import ByteCount


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """The paths to delete for a model, and the bytes that this frees."""

    model: Model
    paths: tuple[Path, ...]
    freed: ByteCount


def plan_removal(model: Model) -> RemovalPlan:
    """The files to delete: the model's links, and the blobs that nothing else in the repository links to.

    Raises UsageError for the embedded model and for files outside of the cache.
    """
    if model.embedded:
        raise UsageError("dsr cannot delete nano, because it is part of dsr")
    if model.program is not None:
        raise UsageError(
            f"{model.reference} is a file of another program, so dsr does not delete it",
            hint=f"delete it with {PROGRAMS[model.program]}",
        )
    if model.repo is None:
        raise UsageError(
            f"{model.path} is your own file outside of the cache, so dsr does not delete it",
            hint="delete it yourself",
        )
    cache = hub_cache_folder().resolve()
    repository = _folder(model)
    inside = cache / repository.name
    for place in (repository, *(file.parent for file in model.files)):
        if not place.resolve().is_relative_to(inside):
            raise UsageError(f"{place} leads out of the cache, and dsr deletes nothing there")
    links = [Path(root, name) for root, _, names in os.walk(repository / "snapshots") for name in names]
    still_used = {link.resolve() for link in links if link not in model.files}
    targets = {file.resolve() for file in model.files if file.is_symlink()} - still_used
    blobs = sorted(path for path in targets if path.parent == inside / "blobs" and path.is_file())
    plain = [file for file in model.files if not file.is_symlink() and file.is_file()]
    freed = ByteCount(sum(map(size_on_disk, (*blobs, *plain))))
    # Blobs first: a kill then leaves a broken link, which `dsr list` shows, and no hidden file that takes space.
    return RemovalPlan(model, (*blobs, *model.files), freed)


def remove(model: Model) -> ByteCount:
    """Delete a model from the cache and return the freed bytes. Raises the errors of `plan_removal`."""
    plan = plan_removal(model)
    try:
        for path in plan.paths:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise DsrError(f"cannot delete {error.filename}: {error.strerror}") from error
    _remove_empty_folders(_folder(model))
    return plan.freed


def _folder(model: Model) -> Path:
    return hub_cache_folder() / f"models--{str(model.repo).replace('/', '--')}"


def _remove_empty_folders(repository: Path) -> None:
    """Remove the folders that became empty, and the refs of a repository that has nothing left."""
    for root, _, _ in os.walk(repository / "snapshots", topdown=False):
        _remove_if_empty(Path(root))
    _remove_if_empty(repository / "blobs")
    if (repository / "snapshots").exists() or (repository / "blobs").exists():
        return
    for root, _, names in os.walk(repository / "refs", topdown=False):
        for name in names:
            Path(root, name).unlink(missing_ok=True)
        _remove_if_empty(Path(root))
    _remove_if_empty(repository)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
