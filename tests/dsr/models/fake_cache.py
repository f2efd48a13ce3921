"""Builds a Hugging Face cache on disk as huggingface_hub lays it out, out of small files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

FIRST, SECOND = "1" * 40, "2" * 40


def put(cache: Path, repo: str, name: str, data: bytes, *, commit: str = FIRST, main: bool = True) -> Path:
    """One file of a repository; returns its place in the snapshot."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    blob = folder / "blobs" / hashlib.sha256(data).hexdigest()
    link = folder / "snapshots" / commit / name
    for place in (blob, link):
        place.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(data)
    link.symlink_to(os.path.relpath(blob, link.parent))
    if main:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(commit)
    return link


def put_partial(cache: Path, repo: str, data: bytes) -> Path:
    """A download that was interrupted."""
    blob = cache / f"models--{repo.replace('/', '--')}" / "blobs" / f"{'0' * 64}.incomplete"
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(data)
    return blob
