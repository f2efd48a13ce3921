"""The paths of a repository's files in the Hugging Face cache. Every path from a remote name is built here.

The layout is huggingface_hub's own, so dsr and other hub tools find each other's downloads
(https://huggingface.co/docs/huggingface_hub/guides/manage-cache):

    models--org--name/blobs/<digest>                      the file itself, once
    models--org--name/blobs/<digest>.incomplete           the first bytes of it, left by another hub tool
    models--org--name/blobs/<digest>.ranges.incomplete    the bytes that dsr has received, maybe with holes
    models--org--name/blobs/<digest>.ranges               which bytes are missing there
    models--org--name/snapshots/<commit>/<path>           a symbolic link to them
    models--org--name/refs/<revision>                     the commit that a branch or tag meant last
    .locks/models--org--name/<digest>.lock                held while a blob is written
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dsr.hub.ranges import RECORD, Hole, newest
from dsr.models.gguf_names import check_file_name
from dsr.models.references import check_repo
from runtime.base.errors import VerificationFailed
from runtime.base.quoted import spelled
from runtime.base.types import ByteCount
from runtime.machine.host import free_disk

Kind = Literal["model", "dataset"]

_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40,64}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as the hub lists it. `digest` is the SHA-256 of the bytes (64 digits) or, for a small file kept
    in git itself, the id of its git blob (40 digits). `size` is in bytes.
    """

    path: str
    size: int
    digest: str

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < 0:
            raise VerificationFailed(f"the hub gives no size for {self.path!r}")
        if not isinstance(self.digest, str) or not _DIGEST.fullmatch(self.digest):
            raise VerificationFailed(f"the hub gives no checksum for {self.path!r}, so dsr cannot verify the file")

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class PartialPaths:
    """The files of an unfinished download: its bytes, the records of those that are missing, and the `plain` partial
    file of another hub tool, which has the first bytes."""

    data: Path
    records: Path
    plain: Path


def missing_of(paths: PartialPaths, size: int) -> tuple[int, list[Hole]]:
    """The number of the newest record and the missing bytes of a file of `size` bytes. Reads the records.

    Without a record, the bytes are the first ones of the file. More bytes than `size` are of another file.
    """
    place = paths.data if paths.data.is_file() else paths.plain
    here = _size(place) or 0
    if here > size or place.is_symlink():
        return 0, [(0, size)] if size else []
    found = None
    if place == paths.data and paths.records.is_file():
        with paths.records.open("rb") as file:
            found = newest((file.read(RECORD), file.read(RECORD)), size)
    number, holes = found or (0, [(here, size)] if here < size else [])
    end = holes[-1][0] if holes and holes[-1][1] == size else size
    return number, holes if end <= here else [(0, size)]


def check_names(paths: Sequence[str]) -> None:
    """Raise VerificationFailed for names that are unsafe, or that differ only in case or Unicode form."""
    seen: dict[str, str] = {}
    for path in paths:
        check_file_name(path)
        if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in path):
            raise VerificationFailed(f"the repository lists a file name with invisible characters: {path!r}")
        same = unicodedata.normalize("NFKC", path).casefold()
        if same in seen:
            raise VerificationFailed(
                f"the repository lists two files that some systems cannot tell apart: {seen[same]!r}, {path!r}"
            )
        seen[same] = path


@dataclass(frozen=True, slots=True)
class RepoCache:
    """One repository's folder in the cache `root`. Raises UsageError if `repo` is not a repository name.

    Without `symlinks`, a file is moved into the snapshot.
    """

    root: Path
    repo: str
    kind: Kind = "model"
    symlinks: bool = True

    def __post_init__(self) -> None:
        check_repo(self.repo)

    @property
    def folder(self) -> Path:
        return self.root / (f"{self.kind}s--" + self.repo.replace("/", "--"))

    def blob(self, file: RemoteFile) -> Path:
        return self.folder / "blobs" / file.digest

    def partial(self, file: RemoteFile) -> PartialPaths:
        """The files that hold the received bytes; the next pull resumes them."""
        blobs = self.folder / "blobs"
        return PartialPaths(
            blobs / f"{file.digest}.ranges.incomplete",
            blobs / f"{file.digest}.ranges",
            blobs / f"{file.digest}.incomplete",
        )

    def lock(self, file: RemoteFile) -> Path:
        return self.root / ".locks" / self.folder.name / f"{file.digest}.lock"

    def snapshot(self, commit: str) -> Path:
        if not _COMMIT.fullmatch(commit):
            raise VerificationFailed(f"the hub gives an invalid commit: {spelled(commit)}")
        return self.folder / "snapshots" / commit

    def pointer(self, commit: str, path: str) -> Path:
        """The path of a file in a snapshot. Raises VerificationFailed if its name or a link leads out of it."""
        check_names([path])
        base = self.snapshot(commit)
        place = base.joinpath(*path.split("/"))
        if not place.parent.resolve().is_relative_to(base.resolve()):
            raise VerificationFailed(f"{place}: a symbolic link in this path leads out of the cache")
        return place

    def reference(self, revision: str) -> Path:
        check_names([revision])
        return self.folder / "refs" / revision

    def commit_of(self, revision: str) -> str | None:
        """The commit that a revision meant at the last pull; a commit is returned as it is."""
        if _COMMIT.fullmatch(revision):
            return revision
        try:
            text = self.reference(revision).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
        return text if _COMMIT.fullmatch(text) else None

    def is_cached(self, file: RemoteFile, commit: str) -> bool:
        """Whether the whole file is in the cache already, as a blob or, without symbolic links, as itself."""
        return any(_size(place) == file.size for place in (self.blob(file), self.pointer(commit, file.path)))

    def cached_bytes(self, file: RemoteFile, commit: str) -> int:
        """How many bytes of a file are in the cache."""
        if self.is_cached(file, commit):
            return file.size
        try:
            _, holes = missing_of(self.partial(file), file.size)
        except OSError:
            return 0
        return file.size - sum(stop - start for start, stop in holes)

    def keep(self, file: RemoteFile) -> None:
        """Give the complete and verified partial file its final name."""
        os.replace(self.partial(file).data, self.blob(file))

    def link(self, file: RemoteFile, commit: str) -> Path:
        """Link the file into the snapshot and replace an older file there. Without symbolic links the blob is moved.

        A link is made in one step, so no temporary name is needed that a kill would leave behind.
        """
        place, blob = self.pointer(commit, file.path), self.blob(file)
        if not blob.exists() or (place.exists() and place.samefile(blob)):
            return place
        place.parent.mkdir(parents=True, exist_ok=True)
        place = self.pointer(commit, file.path)  # checked again, because the folders exist only now
        if place.is_dir() and not place.is_symlink():
            raise VerificationFailed(f"{place} is a folder, and dsr needs this name for a file")
        place.unlink(missing_ok=True)
        try:
            if self.symlinks:
                place.symlink_to(os.path.relpath(blob, place.parent))
                return place
        except FileExistsError:  # another pull was faster
            return place
        except (OSError, NotImplementedError):
            pass  # this folder cannot hold symbolic links
        os.replace(blob, place)
        return place

    def remember(self, revision: str, commit: str) -> None:
        """Write down the commit of a branch or tag. Does nothing for a commit."""
        if _COMMIT.fullmatch(revision) or self.commit_of(revision) == commit:
            return
        place = self.reference(revision)
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".ref.{os.getpid()}"  # not in refs/, where a kill would leave it as a branch
        temporary.write_text(commit, encoding="ascii")
        os.replace(temporary, place)

    def free(self) -> ByteCount:
        """Free bytes on the disk that holds the cache, or will hold it."""
        return free_disk(self.folder)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None
