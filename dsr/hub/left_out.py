"""Which files of a repository a pull does not take, by kind. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from dsr.models.gguf_names import is_model_file
from quant.sources.weight_files import PICKLES, is_raw_part, other_weights
from runtime.base.types import ByteCount, counted

_OTHER_PROGRAMS = (".onnx", ".onnx_data", ".tflite", ".ot", ".mlmodel", ".llamafile", ".engine")
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_PLURALS = {
    "importance matrix": "importance matrices",
    "raw part of a GGUF file": "raw parts of GGUF files",
    "file for another program": "files for other programs",
}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """`files` files of one kind, such as "adapter", of `size` bytes together."""

    kind: str
    files: int
    size: ByteCount

    def __str__(self) -> str:
        return counted(self.files, self.kind, _PLURALS.get(self.kind, ""))

    def json(self) -> dict[str, object]:
        return {"kind": self.kind, "files": self.files, "bytes": int(self.size)}


def left_out(sizes: Mapping[str, int], taken: Collection[str]) -> tuple[LeftOut, ...]:
    """The files of a listing (path -> bytes) that are not taken, the kind with most bytes first, "other file" last."""
    kinds: dict[str, list[int]] = {}
    chosen = set(taken)
    for path, size in sizes.items():
        if path not in chosen:
            kinds.setdefault(kind_of(path), []).append(size)
    found = [LeftOut(kind, len(each), ByteCount(sum(each))) for kind, each in kinds.items()]
    return tuple(sorted(found, key=lambda one: (one.kind == "other file", -one.size, one.kind)))


def in_words(kinds: Sequence[LeftOut]) -> str:
    """'left out: 2 consolidated files, 1 adapter'; empty when every file is taken."""
    return f"left out: {', '.join(map(str, kinds))}" if kinds else ""


def kind_of(path: str) -> str:
    """What a file is, by its name: "GGUF file", "adapter", "pickle file", ...; "other file" for the rest."""
    name = path.rpartition("/")[2]
    lower = name.lower()
    if lower.endswith(".gguf"):
        return "GGUF file" if is_model_file(path) else "importance matrix" if "imatrix" in lower else "image projector"
    if is_raw_part(name):
        return "raw part of a GGUF file"
    if lower.endswith((".safetensors", ".safetensors.index.json", *PICKLES)) or lower == "adapter_config.json":
        special = other_weights(name)
        return special or ("pickle file" if lower.endswith(PICKLES) else "safetensors file")
    if lower.endswith(_OTHER_PROGRAMS):
        return "file for another program"
    if lower.endswith(_PROCESSORS):
        return "image or sound processor"
    if "imatrix" in lower and lower.endswith(".dat"):
        return "importance matrix"
    return "other file"
