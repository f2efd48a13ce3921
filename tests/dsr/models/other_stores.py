"""Folders as Ollama and LM Studio make them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

MODEL = "application/vnd.ollama.image.model"


def ollama_blob(store: Path, content: bytes) -> str:
    """Puts a blob into Ollama's store; its digest."""
    digest = hashlib.sha256(content).hexdigest()
    path = store / "blobs" / f"sha256-{digest}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return f"sha256:{digest}"


def ollama_model(store: Path, name: str, weights: bytes, *more: dict[str, Any], **changes: Any) -> Path:
    """A model "HOST/NAMESPACE/MODEL/TAG" in Ollama's store; its manifest. `changes` are for the layer of weights."""
    config = ollama_blob(store, json.dumps({"model_format": "gguf", "file_type": "Q8_0"}).encode())
    layer = {"mediaType": MODEL, "digest": ollama_blob(store, weights), "size": len(weights)} | changes
    manifest = {"schemaVersion": 2, "config": {"digest": config}, "layers": [layer, *more]}
    path = store / "manifests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest))
    return path
