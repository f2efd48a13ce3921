"""A folder with original weights: its configuration, and its safetensors mapped into memory, one tensor at a time.

Only data is read: weights that are Python pickles are refused, and code that a repository brings along (`auto_map`)
is never run. Quantized weights are read as floats (`quant.sources.forms`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quant.sources.find_forms import find_forms
from quant.sources.forms import Form, Fp4
from quant.sources.mapped import FLOATS, MappedFiles
from quant.sources.shards import read_bytes, read_json, stored_tensors
from quant.sources.stored_quantization import FILES, Scheme, check_tensors, stored_scheme
from runtime.base.errors import PULL_AGAIN, BadModelFile, Incompatible, NotFound
from runtime.base.safetensors import StoredTensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FP4 = ("MXFP4", "NVFP4")
# ggml has both types. The factor of a whole NVFP4 matrix is no part of its blocks, so only MXFP4 is copied.
COPIED = ("MXFP4",)
UNPACKED = "E2M1"  # what is FP4 and must be read as floats
_READABLE = (*FLOATS, "F8_E4M3", "INT8", "INT4", "INT2", *FP4)


@dataclass(frozen=True)
class Checkpoint:
    """The content of a folder. `tensors` are the weights in the order of llama.cpp's converter (files, then names); a
    quantized one has the name, the shape and the place that it would have without, and `forms` says how it is read.
    Without weights there are none."""

    folder: Path
    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    forms: Mapping[str, Form]
    scheme: Scheme | None
    files: MappedFiles = field(repr=False)

    @property
    def name(self) -> str:
        """Returns the name of the model: the folder's name, or the repository's within the Hugging Face cache."""
        folder = self.folder.resolve()
        if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
            return folder.parent.parent.name.split("--")[-1]
        return folder.name

    def json(self, name: str) -> Mapping[str, Any] | None:
        """The object in the JSON file `name`; None without such a file. Raises BadModelFile."""
        return read_json(self.folder / name)

    def text(self, name: str) -> str | None:
        """The text file `name`; None without such a file. Raises BadModelFile."""
        path = self.folder / name
        raw = read_bytes(path)
        if raw is None:
            return None
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise BadModelFile(path, "is not UTF-8", hint=PULL_AGAIN) from None

    def bytes(self, name: str) -> bytes | None:
        """The file `name`; None without such a file."""
        return read_bytes(self.folder / name)

    def read(self, name: str, first: int, count: int, out: NDArray[np.float32]) -> None:
        """Fill `out`, of shape (count, row length) and contiguous, with rows of the tensor `name`, as float32.

        Raises BadModelFile when factors of quantized weights are not finite."""
        import numpy as np

        form = self.forms.get(name)
        if form is not None:
            with np.errstate(all="ignore"):  # numbers that become infinite are found when they are stored
                form.read(self.files, first, out)
        else:
            tensor = self.tensors[name]
            self.files.floats(tensor, first * tensor.width, out)

    def stored_rows(self, name: str, first: int, count: int) -> NDArray[np.uint8]:
        """Rows of an MXFP4 or NVFP4 tensor as ggml's blocks, (count, bytes of a row), bit for bit."""
        form = self.forms[name]
        assert isinstance(form, Fp4)
        return form.stored_rows(self.files, first, count)


def open_checkpoint(folder: Path, *, weights: bool = True) -> Checkpoint:
    """Check a folder with original weights and say what it holds. Only config.json must be there; without `weights`
    the files with them are not even looked for, as a dry run wants it.

    Raises NotFound (no folder, no config.json, a shard that is missing), BadModelFile (damaged files),
    Incompatible (pickles, adapters, kinds of quantization that dsr does not read).
    """
    if not folder.is_dir():
        raise NotFound(f"{folder}: no such folder", hint="give a folder with config.json and *.safetensors")
    config = read_json(folder / "config.json")
    if config is None:
        if (folder / "adapter_config.json").is_file() or any(folder.glob("adapter_model*")):
            raise Incompatible(f"{folder}: an adapter (LoRA), not a model", hint="give the model it was merged into")
        raise NotFound(f"{folder}: there is no config.json", hint="give the folder that has config.json in it")
    listing = [file.name for file in folder.iterdir()]
    settings_file = next((read_json(folder / name) for name, _ in FILES if name in listing), None)
    scheme = stored_scheme(config, folder / "config.json", listing, settings_file)
    stored = stored_tensors(folder) if weights else {}
    check_tensors(stored, folder, scheme)
    files = MappedFiles()
    found = find_forms(stored, scheme, files)
    generation = read_json(folder / "generation_config.json") or {}
    return Checkpoint(folder, config, generation, found.tensors, found.forms, scheme, files)


def check_readable(tensor: StoredTensor) -> None:
    """Raise Incompatible for types that are no weights this program reads."""
    if tensor.dtype not in _READABLE:
        readable = ", ".join((*FLOATS, "F8_E4M3"))
        raise Incompatible(
            f"{tensor.file}: tensor {tensor.name!r} has the type {tensor.dtype}; {readable} can be read",
            hint="give the original weights, in BF16 or F16",
        )
