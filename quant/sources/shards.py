"""The weight files of a checkpoint's folder: one, or many with an index, checked against each other."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePath
from typing import Any

from quant.sources.safetensors import PULL_AGAIN, StoredTensor, read_header
from runtime.base.errors import BadModelFile, DsrError, Incompatible, NotFound
from runtime.base.types import counted

INDEX = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_LARGEST_JSON = 1 << 28


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of all files, in order."""
    weight_map = _weight_map(folder / INDEX)
    files = _files(folder) if weight_map is None else sorted(set(weight_map.values()))
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise _missing_files(folder, missing, len(files))
    tensors: dict[str, StoredTensor] = {}
    for name in files:
        for tensor in read_header(folder / name):
            if tensor.name in tensors:
                other = tensors[tensor.name].file.name
                raise BadModelFile(folder / name, f"tensor {tensor.name!r} is also in {other}", hint=PULL_AGAIN)
            if weight_map is not None and weight_map.get(tensor.name) != name:
                where = weight_map.get(tensor.name)
                problem = "does not name it" if where is None else f"says it is in {where}"
                raise BadModelFile(
                    folder / name, f"holds the tensor {tensor.name!r}, but {INDEX} {problem}", hint=PULL_AGAIN
                )
            tensors[tensor.name] = tensor
    for tensor_name, name in (weight_map or {}).items():
        if tensor_name not in tensors:
            problem = f"lacks the tensor {tensor_name!r}, which {INDEX} says is there"
            raise BadModelFile(folder / name, problem, hint=PULL_AGAIN)
    return tensors


def _weight_map(path: Path) -> dict[str, str] | None:
    """Which file has which tensor; None without an index. A file's name is never a path."""
    index = read_json(path)
    if index is None:
        return None
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadModelFile(path, "has no weight_map", hint=PULL_AGAIN)
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or PurePath(name).name != name or "\\" in name or "\0" in name:
            raise BadModelFile(path, f"names no file of its own folder for {tensor!r}", hint=PULL_AGAIN)
        if not name.endswith(".safetensors"):
            raise _pickle(path.parent, name)
    return weight_map


def _files(folder: Path) -> list[str]:
    """The weight files of a folder without an index: model.safetensors, or all of its shards, or none."""
    found = sorted(path.name for path in folder.glob("model*.safetensors"))
    for name in found:
        shard = re.fullmatch(r"(.*)-\d{5}-of-(\d{5})\.safetensors", name)
        if shard and int(shard[2]) > len(found):
            names = [f"{shard[1]}-{number:05d}-of-{shard[2]}.safetensors" for number in range(1, int(shard[2]) + 1)]
            raise _missing_files(folder, [each for each in names if each not in found], len(names))
    if not found:
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
        if pickled:
            raise _pickle(folder, pickled[0])
    return found


def _missing_files(folder: Path, missing: list[str], count: int) -> NotFound:
    lacking = counted(len(missing), f"of {count} weight files is", f"of {count} weight files are")
    return NotFound(f"{folder}: {lacking} missing: {missing[0]}", hint=PULL_AGAIN)


def _pickle(folder: Path, name: str) -> Incompatible:
    return Incompatible(
        f"{folder}: its weights are in {name}, a Python pickle, which could run any code and is never loaded",
        hint="give a folder with .safetensors files: most repositories have a version with them",
    )


def read_bytes(path: Path) -> bytes | None:
    """A small file; None without it. Raises BadModelFile (far too large), DsrError (cannot be read)."""
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise BadModelFile(path, "is larger than any such file should be", hint=PULL_AGAIN)
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DsrError(f"{path}: {error.strerror or error}") from error


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None without it. Raises BadModelFile."""
    raw = read_bytes(path)
    if raw is None:
        return None
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadModelFile(path, "is not valid JSON", hint=PULL_AGAIN) from None
    if not isinstance(value, dict):
        raise BadModelFile(path, "is no JSON object", hint=PULL_AGAIN)
    return value
