"""Reads the JSON answers of the hub's API. Every type and size in them is checked here, and nowhere else. Pure.

The shapes are those of the hub's OpenAPI description (https://huggingface.co/.well-known/openapi.json) and of
huggingface_hub (hf_api.py: ModelInfo, RepoSibling).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from dsr.hub.limits import NotUnderstood
from runtime.base.quoted import spelled

# 100,000 files of 300 bytes each; the hub's advice is to have fewer (docs/hub/storage-limits.md).
MOST_BYTES = 32 << 20
_MOST_FILES = 100_000
# A listing has about ten values for a file. Python needs about 100 bytes for one, so this bounds the memory.
_MOST_VALUES = 1_000_000
_LONGEST_PATH = 4096  # PATH_MAX of Linux
_LARGEST_FILE = 1 << 60

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class RepoAnswer:
    """What the API says about a revision: its present name (None if it says none), commit, and files.

    `sizes` and `digests` have the same keys. A digest is None where the hub gives none.
    """

    name: str | None
    commit: str
    sizes: dict[str, int]
    digests: dict[str, str | None]


def read_repo(body: bytes) -> RepoAnswer:
    """The answer of /api/models/NAME/revision/REVISION?blobs=true. Raises NotUnderstood."""
    answer = _object(_json(body), "it")
    siblings = answer.get("siblings") or []
    if not isinstance(siblings, list):
        raise NotUnderstood(f"its files are {_kind(siblings)}, not a list")
    sizes: dict[str, int] = {}
    digests: dict[str, str | None] = {}
    for sibling in siblings:
        entry = _object(sibling, "a file")
        path = _new_path(entry.get("rfilename"), sizes)
        sizes[path], digests[path] = _facts(entry, path, "blobId", "sha256")
        _check_number(sizes)
    name = answer.get("id")
    if name is not None and not isinstance(name, str):
        raise NotUnderstood(f"the repository's name is {_kind(name)}, not text")
    return RepoAnswer(name or None, _digest(answer.get("sha"), _COMMIT, "the commit"), sizes, digests)


def add_tree(body: bytes, sizes: dict[str, int], digests: dict[str, str | None]) -> None:
    """Add the files of a page of /api/models/NAME/tree/REVISION?recursive=true. Raises NotUnderstood, also for a file
    that is there already: a page that comes again.
    """
    entries = _json(body)
    if not isinstance(entries, list):
        raise NotUnderstood(f"it is {_kind(entries)}, not a list")
    for value in entries:
        entry = _object(value, "a file")
        if entry.get("type") == "file":
            path = _new_path(entry.get("path"), sizes)
            sizes[path], digests[path] = _facts(entry, path, "oid", "oid")
            _check_number(sizes)


def read_names(body: bytes) -> list[str]:
    """The names in an answer of /api/models?search=... Raises NotUnderstood."""
    answer = _json(body)
    if not isinstance(answer, list):
        raise NotUnderstood(f"it is {_kind(answer)}, not a list")
    return [entry["id"] for entry in answer if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


def _new_path(value: object, sizes: dict[str, int]) -> str:
    path = _path(value)
    if path in sizes:
        raise NotUnderstood(f"it lists {spelled(path)} twice")
    return path


def _check_number(sizes: dict[str, int]) -> None:
    if len(sizes) > _MOST_FILES:
        raise NotUnderstood(f"it lists more than {_MOST_FILES} files")


def _facts(entry: dict[str, Any], path: str, blob_key: str, sha256_key: str) -> tuple[int, str | None]:
    """Size and digest of a file: those of the large file (LFS), not those of its pointer."""
    if entry.get("lfs") is None:
        blob = entry.get(blob_key)
        digest = None if blob is None else _digest(blob, _SHA1, f"the blob id of {spelled(path)}")
        return _size(entry.get("size"), path), digest
    lfs = _object(entry["lfs"], f"the LFS entry of {spelled(path)}")
    sha256 = lfs.get(sha256_key)
    digest = None if sha256 is None else _digest(sha256, _SHA256, f"the SHA-256 of {spelled(path)}")
    return _size(lfs.get("size"), path), digest


def _size(value: object, path: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise NotUnderstood(f"the size of {spelled(path)} is {_kind(value)}, not a whole number")
    if not 0 <= value <= _LARGEST_FILE:
        raise NotUnderstood(f"the size of {spelled(path)} is {spelled(value)}")
    return value


def _path(value: object) -> str:
    """A path that git can hold. Whether this system can, `check_names` decides for the files that are chosen."""
    if not isinstance(value, str):
        raise NotUnderstood(f"a file's name is {_kind(value)}, not text")
    if len(value) > _LONGEST_PATH:
        raise NotUnderstood(f"a file's name has {len(value)} characters: {spelled(value)}")
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise NotUnderstood(f"a file's name is not text: {spelled(value)}")
    if any(part in ("", ".", "..") for part in value.split("/")):
        raise NotUnderstood(f"a file's name is an unsafe file name: {spelled(value)}")
    return value


def _digest(value: object, form: re.Pattern[str], what: str) -> str:
    if not isinstance(value, str):
        raise NotUnderstood(f"{what} is {_kind(value)}, not text")
    if not form.fullmatch(value):
        raise NotUnderstood(f"{what} is {spelled(value)}")
    return value


def _json(body: bytes) -> object:
    if sum(body.count(sign) for sign in b",:[{") > _MOST_VALUES * 2:
        raise NotUnderstood(f"it has more than {_MOST_VALUES} values")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):  # a number of 5000 digits is a ValueError
        start = body[:40].decode("utf-8", "replace").strip()
        raise NotUnderstood(f"it is not JSON, and begins with {start!r}" if start else "it is empty") from None


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NotUnderstood(f"{what} is {_kind(value)}, not an object")
    return value


def _kind(value: object) -> str:
    """What a JSON value is, in words."""
    words = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return "missing" if value is None else words.get(type(value), "something else")
