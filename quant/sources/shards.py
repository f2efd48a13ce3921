"""The tensors in a checkpoint's folder, from all its weight files, checked against each other and against the index."""

from __future__ import annotations

import json
from pathlib import Path
from stat import S_ISREG
from typing import Any

from quant.sources.weight_files import INDEX, WeightFiles, index_of, weight_files
from runtime.base.errors import (
    ONE_MODEL,
    PUBLISHED,
    PULL_AGAIN,
    PULL_ITSELF,
    BadModelFile,
    DsrError,
    VerificationFailed,
)
from runtime.base.file_kind import JSON, TEXT, file_kind
from runtime.base.safetensors import StoredTensor, read_header
from runtime.base.types import ByteCount

# A text may need twenty times its bytes once it is parsed. Tokenizers have up to 35 MB, the index of DeepSeek-R1 9 MB.
_LARGEST = 16 << 20
_LARGEST_LIST = 128 << 20
_LISTS = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt"),
    *("tekken.json", "tiktoken.model", "hy.tiktoken"),
)


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of all weight files, in order. Raises BadModelFile and the errors of `weight_files`."""
    chosen = weight_files_in(folder)
    weight_map = chosen.weight_map
    tensors: dict[str, StoredTensor] = {}
    for name in chosen.names:
        for tensor in read_header(folder / name):
            if tensor.name in tensors:
                other = tensors[tensor.name].file.name
                raise BadModelFile(folder / name, f"tensor {tensor.name!r} is also in {other}", hint=ONE_MODEL)
            if weight_map is not None and weight_map.get(tensor.name) != name:
                where = weight_map.get(tensor.name)
                problem = "does not name it" if where is None else f"says it is in {where}"
                raise BadModelFile(
                    folder / name, f"holds the tensor {tensor.name!r}, but {INDEX} {problem}", hint=ONE_MODEL
                )
            tensors[tensor.name] = tensor
    for tensor_name, name in (weight_map or {}).items():
        if tensor_name not in tensors:
            problem = f"lacks the tensor {tensor_name!r}, which {INDEX} says is there"
            raise BadModelFile(folder / name, problem, hint=ONE_MODEL)
    return tensors


def weight_files_in(folder: Path) -> WeightFiles:
    """The weight files of a folder. Raises the errors of `weight_files`, with the folder's name."""
    listing = [path.name for path in folder.iterdir() if path.is_file()]
    index = index_of(listing)
    try:
        return weight_files(listing, None if index is None else read_json(folder / index))
    except BadModelFile:
        raise
    except VerificationFailed as error:
        raise BadModelFile(folder, error.message, hint=PUBLISHED) from error
    except DsrError as error:
        raise type(error)(f"{folder}: {error.message}", hint=error.hint) from error


def read_bytes(path: Path) -> bytes | None:
    """A small file; None without it. Raises BadModelFile (far too large), DsrError (cannot be read)."""
    try:
        found = path.stat()
        if not S_ISREG(found.st_mode):
            raise BadModelFile(path, "is not a regular file", hint="put the file itself in its place")
        check_size(path, found.st_size)
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DsrError(f"{path}: {error.strerror or error}") from error


def check_size(path: Path, size: int) -> None:
    """Raises BadModelFile if a JSON file or a tokenizer's file of a checkpoint has more bytes than any should have."""
    most = ByteCount(_LARGEST_LIST if path.name in _LISTS or ".index." in path.name else _LARGEST)
    if size > most:
        raise BadModelFile(path, f"has {ByteCount(size)}, and no such file should have more than {most}")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None without it. Raises BadModelFile."""
    raw = read_bytes(path)
    return None if raw is None else json_object(raw, path)


def json_object(raw: bytes, path: Path) -> dict[str, Any]:
    """The object in `raw`, the content of a JSON file. Raises BadModelFile, which says what else the file is."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        kind = file_kind(raw, len(raw))
        if kind in ("", JSON, TEXT):
            raise BadModelFile(path, "is not valid JSON", hint=PULL_AGAIN) from None
        raise BadModelFile(path, f"{kind}, not JSON", hint=PULL_ITSELF) from None
    if not isinstance(value, dict):
        raise BadModelFile(path, "is not a JSON object", hint=PUBLISHED)
    return value
