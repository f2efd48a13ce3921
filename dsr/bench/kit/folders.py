"""Where a bench keeps its answers and samples, so that the same command resumes."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from dsr.store import paths


def results_folder(bench: str, *names: str) -> Path:
    """Returns the folder in the cache for the results of `dsr bench BENCH` with these names."""
    return paths.cache_folder() / f"bench-{bench}" / file_name("-".join(names))


def short_digest(conditions: Any) -> str:
    """Returns 8 hexadecimal digits that differ with the conditions, which are JSON."""
    return hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:8]


def file_name(text: str) -> str:
    """Returns the text as a file name that every system takes."""
    return re.sub(r"[^\w.=-]+", "-", text).strip("-.") or "model"
