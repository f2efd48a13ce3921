"""Files with value heads, made of literal numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def write_head(path: Path, tensors: dict[str, object], *, dtype: str = "F32", **metadata: str) -> Path:
    """A safetensors file of these tensors. `dtype` BF16 keeps the upper half of a float32."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, values in tensors.items():
        numbers = np.array(values, np.float32)
        raw = numbers.tobytes() if dtype == "F32" else (numbers.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        header[name] = {"dtype": dtype, "shape": [*numbers.shape], "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    said = json.dumps(header).encode()
    path.write_bytes(len(said).to_bytes(8, "little") + said + data)
    return path
