"""A converted model in a form that can be compared and kept: digests of tensors and metadata, in order."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from quant.plan import PlainType, plain_type
from quant.sources.source import Source

# Where a model comes from is guessed from folder names; only these of its general facts have to be the same.
GENERAL = ("general.architecture", "general.type", "general.name", "general.size_label", "general.sampling.")


def digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:20]


def is_compared(key: str) -> bool:
    return key.startswith(GENERAL) if key.startswith("general.") else not key.startswith(("GGUF.", "split."))


def rows_as(rows: np.ndarray[Any, Any], kind: str) -> bytes:
    """Rows of float32 as the bytes of F32, F16 or BF16, rounded to nearest even as ggml does."""
    if kind == "F32":
        return rows.tobytes()
    if kind == "F16":
        return rows.astype(np.float16).tobytes()
    bits = rows.view(np.uint32)
    return ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(np.uint16).tobytes()


def of_source(source: Source, wanted: PlainType) -> dict[str, Any]:
    tensors = []
    for tensor in source.tensors:
        kind = plain_type(tensor, wanted)
        copied = source.stored_rows(tensor, 0, tensor.rows) if kind == tensor.stored == "MXFP4" else None
        raw = rows_as(source.read(tensor, 0, tensor.rows), kind) if copied is None else copied.tobytes()
        tensors.append([tensor.name, kind, list(tensor.shape), digest(raw)])
    metadata = [[entry.key, digest(entry.encoded)] for entry in source.metadata if is_compared(entry.key)]
    return {"tensors": tensors, "metadata": metadata}


def of_gguf(path: str) -> dict[str, Any]:
    """The same of a file, read by gguf's own reader."""
    import gguf

    reader = gguf.GGUFReader(path)
    tensors = [
        [tensor.name, tensor.tensor_type.name, [int(size) for size in tensor.shape], digest(tensor.data.tobytes())]
        for tensor in reader.tensors
    ]
    metadata = [
        [key, digest(b"".join(part.tobytes() for part in found.parts[2:]))]
        for key, found in reader.fields.items()
        if is_compared(key)
    ]
    return {"tensors": tensors, "metadata": metadata}
