"""The name by which a person knows a model, from the reference that finds it."""

from __future__ import annotations

import re
from pathlib import PurePath

from dsr.models import catalog

_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


def short_name(reference: str) -> str:
    """'deepseek-r1:1.5b' for a repository of the catalogue, else the repository's or the file's own name."""
    if reference.lower().endswith(".gguf"):
        return _SHARD.sub("", PurePath(reference).name[: -len(".gguf")])
    repo = reference.partition(":")[0]
    if "/" not in repo:
        return reference
    entry = catalog.load().entry_for_repo(repo)
    return entry.name if entry is not None else re.sub(r"[-_.]gguf$", "", repo.rpartition("/")[2], flags=re.IGNORECASE)
