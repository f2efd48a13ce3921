"""Names the files, engine and options that may load the saved state of a sequence."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import TYPE_CHECKING

from dsr.store.state_file import VERSION
from runtime.base.errors import DsrError
from runtime.gguf.card import ModelCard

if TYPE_CHECKING:
    from runtime.llama import OpenOptions

# Fields of OpenOptions without an effect on the state of one sequence. Every other field counts, also a new one.
WITHOUT_EFFECT = frozenset((
    "context", "slots", "threads", "batch_threads", "kv_full", "visible", "nodes", "gpus", "layers", "kept", "reach",
    "from_disk", "rows",
))  # fmt: skip


def file_facts(card: ModelCard) -> tuple[object, ...]:
    """Values that change when a model file changes: the digest of the headers, which includes sizes, and the times.

    An archive or a copy may restore the time of writing (mtime), but not that of the last change to the entry (ctime).
    Raises DsrError.
    """
    try:
        stats = [file.stat() for file in card.files]
    except OSError as error:
        raise DsrError(f"{card.path}: {error.strerror or error}") from error
    return card.header_digest, [(stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats]


def state_identity(card: ModelCard, options: OpenOptions, *, cuts_anywhere: bool) -> str:
    """A SHA-256 in hexadecimal; "" if states cannot leave the process, because nodes hold parts of them.

    `cuts_anywhere` is the backend's. With sliding windows it depends on context and slots: a state of windows alone
    lacks tokens that a full cache goes back to, and a state of a full cache has no checkpoints.

    LongRoPE has other frequencies in a context above its original length (llama_model::get_rope_factors in
    src/llama-model.cpp of llama.cpp), so the context counts by that.
    """
    from runtime.llama import ENGINE_VERSION, features

    if options.nodes:
        return ""
    original = card.metadata.get(f"{card.architecture}.rope.scaling.original_context_length", card.context_length)
    stretched = isinstance(original, int) and options.context > original
    opened = [(each.name, getattr(options, each.name)) for each in fields(options) if each.name not in WITHOUT_EFFECT]
    facts = (VERSION, file_facts(card), ENGINE_VERSION, features(), opened, stretched, cuts_anywhere)
    return hashlib.sha256(repr(facts).encode()).hexdigest()
