"""Where a repository's files lie in the Hugging Face cache. Every path that is built from a remote word is
built here.

The layout is huggingface_hub's own, so other hub tools find what dsr fetched and dsr finds what they fetched
(https://huggingface.co/docs/huggingface_hub/guides/manage-cache):

    models--org--name/blobs/<digest>                      the bytes, once
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

from dsr.models.gguf_names import check_file_name
from dsr.models.references import check_repo
from runtime.base.errors import VerificationFailed
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
            raise VerificationFailed(f"{self.path!r}: the hub gives no size")
        if not isinstance(self.digest, str) or not _DIGEST.fullmatch(self.digest):
            raise VerificationFailed(f"{self.path!r}: the hub gives no digest, so the file could not be verified")

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def check_names(paths: Sequence[str]) -> None:
    """Refuse names that are unsafe anywhere, or that would be one file where case and Unicode forms do not
    count.
    """
    seen: dict[str, str] = {}
    for path in paths:
        check_file_name(path)
        if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in path):
            raise VerificationFailed(f"the repository lists a file name with invisible characters: {path!r}")
        same = unicodedata.normalize("NFKC", path).casefold()
        if same in seen:
            raise VerificationFailed(
                f"the repository lists two files that one name could mean: {seen[same]!r}, {path!r}"
            )
        seen[same] = path


@dataclass(frozen=True, slots=True)
class RepoCache:
    """One repository's folder in the cache `root`. Raises UsageError when `repo` is no repository name."""

    root: Path
    repo: str
    kind: Kind = "model"

    def __post_init__(self) -> None:
        check_repo(self.repo)

    @property
    def folder(self) -> Path:
        return self.root / (f"{self.kind}s--" + self.repo.replace("/", "--"))

    def blob(self, file: RemoteFile) -> Path:
        return self.folder / "blobs" / file.digest

    def partial(self, file: RemoteFile) -> Path:
        """What has come of the file so far; the next pull continues it."""
        return self.folder / "blobs" / f"{file.digest}.incomplete"

    def lock(self, file: RemoteFile) -> Path:
        return self.root / ".locks" / self.folder.name / f"{file.digest}.lock"

    def snapshot(self, commit: str) -> Path:
        if not _COMMIT.fullmatch(commit):
            raise VerificationFailed(f"the hub gives {commit[:80]!r} as the commit")
        return self.folder / "snapshots" / commit

    def pointer(self, commit: str, path: str) -> Path:
        """The place of a file in a snapshot; refused when it would lie outside, by its name or by a link on
        the way.
        """
        check_names([path])
        base = self.snapshot(commit)
        place = base.joinpath(*path.split("/"))
        if not place.parent.resolve().is_relative_to(base.resolve()):
            raise VerificationFailed(f"{place}: a link on the way leads out of the cache")
        return place

    def reference(self, revision: str) -> Path:
        check_names([revision])
        return self.folder / "refs" / revision

    def commit_of(self, revision: str) -> str | None:
        """The commit a revision meant when it was last fetched; itself when it is one."""
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
        """How much of a file needs no fetching."""
        return file.size if self.is_cached(file, commit) else min(_size(self.partial(file)) or 0, file.size)

    def keep(self, file: RemoteFile) -> None:
        """The partial is complete and verified: give it its name."""
        os.replace(self.partial(file), self.blob(file))

    def link(self, file: RemoteFile, commit: str) -> Path:
        """Make the file appear in the snapshot, in place of whatever was there. Without links the blob moves there.

        Making a link is one step, so that no temporary name is needed, which a kill would leave behind.
        """
        place, blob = self.pointer(commit, file.path), self.blob(file)
        if not blob.exists() or (place.exists() and place.samefile(blob)):
            return place
        place.parent.mkdir(parents=True, exist_ok=True)
        place = self.pointer(commit, file.path)  # looked at again: the folders exist only now
        if place.is_dir() and not place.is_symlink():
            raise VerificationFailed(f"{place}: a folder is in the way")
        place.unlink(missing_ok=True)
        try:
            place.symlink_to(os.path.relpath(blob, place.parent))
        except FileExistsError:  # another pull was faster
            return place
        except (OSError, NotImplementedError):
            os.replace(blob, place)
        return place

    def remember(self, revision: str, commit: str) -> None:
        """Note what a branch or tag means now. A commit needs no note."""
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
