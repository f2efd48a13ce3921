"""A folder with original weights: its configuration, and its safetensors mapped into memory, one tensor at a time.

Only data is read: weights that are Python pickles are refused, and code that a repository brings along (`auto_map`)
is never run. The FP8 layout is that of DeepSeek-V3's README_WEIGHTS.md: e4m3fn values with one factor per block in
`X.weight_scale_inv`, to be multiplied, the last blocks partial, the factors possibly in another file.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quant.sources.safetensors import StoredTensor
from quant.sources.shards import read_bytes, read_json, stored_tensors
from quant.sources.stored_quantization import check_tensors, fp8_block
from runtime.base.errors import ONE_MODEL, PUBLISHED, PULL_AGAIN, BadModelFile, DsrError, Incompatible, NotFound

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCALE = "_scale_inv"  # behind the name of the weight
_READABLE = ("BF16", "F16", "F32", "F8_E4M3")
# One access may bring in as much as a huge page around it, and what is given back must reach as far.
_FAULT = 1 << 21
_RUN = 1 << 16  # elements that are converted at a time, so that they stay in the processor's cache


@dataclass(frozen=True)
class Checkpoint:
    """The content of a folder. `tensors` are the weights in the order of llama.cpp's converter (files, then names);
    factors of FP8 weights are in `scales`, under the name of their weight. Without weights both are empty."""

    folder: Path
    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    scales: Mapping[str, StoredTensor]
    block: tuple[int, int] | None
    _maps: dict[Path, mmap.mmap] = field(default_factory=dict, repr=False)

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

        Raises BadModelFile when factors of FP8 weights are not finite."""
        tensor = self.tensors[name]
        self._decode(tensor, first * tensor.width, out)
        if tensor.dtype == "F8_E4M3":
            self._scale(tensor, first, out)

    def _scale(self, tensor: StoredTensor, first: int, out: NDArray[np.float32]) -> None:
        """Multiply FP8 values, the first row of which is row `first` of `tensor`, by the factors of their blocks."""
        import numpy as np

        assert self.block is not None  # there are no FP8 weights without: see _check_scales
        high, wide = self.block
        scales = self.scales[tensor.name]
        begin, end = first // high, -(-(first + len(out)) // high)
        factors = np.empty((end - begin, scales.width), np.float32)
        self._decode(scales, begin * scales.width, factors)
        if not np.isfinite(factors).all():
            raise BadModelFile(scales.file, f"tensor {scales.name!r} holds NaN or infinity", hint=PUBLISHED)
        for number in range(begin, end):
            rows = out[max(number * high - first, 0) : (number + 1) * high - first]
            rows *= np.repeat(factors[number - begin], wide)[: tensor.width]

    def _decode(self, tensor: StoredTensor, first: int, out: NDArray[np.float32]) -> None:
        """Fill `out` with elements from number `first` on."""
        import numpy as np

        flat = out.reshape(-1)
        assert np.shares_memory(flat, out)
        size = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1}[tensor.dtype]
        begin = tensor.begin + first * size
        mapped = self._map(tensor.file)
        if begin + flat.size * size > tensor.end:
            raise ValueError(f"{tensor.name} has no {flat.size} elements behind number {first}")
        kind = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "F8_E4M3": "u1"}[tensor.dtype]
        raw = np.frombuffer(mapped, kind, flat.size, begin)
        for at in range(0, flat.size, _RUN):
            part, target = raw[at : at + _RUN], flat[at : at + _RUN]
            if tensor.dtype == "BF16":  # the upper half of a float32
                bits = target.view(np.uint32)
                bits[...] = part
                np.left_shift(bits, 16, out=bits)
            elif tensor.dtype == "F8_E4M3":
                np.take(_e4m3(), part, out=target, mode="clip")
            else:
                target[...] = part
        # Pages that were read are released, so that resident memory stays one slab and not the whole file.
        if hasattr(mmap, "MADV_DONTNEED"):
            first_page = begin // _FAULT * _FAULT
            past = min(-(-(begin + flat.size * size) // _FAULT) * _FAULT, len(mapped))
            mapped.madvise(mmap.MADV_DONTNEED, first_page, past - first_page)

    def _map(self, file: Path) -> mmap.mmap:
        found = self._maps.get(file)
        if found is None:
            try:
                with file.open("rb") as opened:
                    found = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise DsrError(f"{file}: cannot be read: {error}") from error
            self._maps[file] = found
        return found


def open_checkpoint(folder: Path, *, weights: bool = True) -> Checkpoint:
    """Check a folder with original weights and say what it holds. Only config.json must be there; without `weights`
    the files with them are not even looked for, as a dry run wants it.

    Raises NotFound (no folder, no config.json, a shard that is missing), BadModelFile (damaged files),
    Incompatible (pickles, adapters, kinds of quantization other than DeepSeek's FP8).
    """
    if not folder.is_dir():
        raise NotFound(f"{folder}: no such folder", hint="give a folder with config.json and *.safetensors")
    config = read_json(folder / "config.json")
    if config is None:
        if (folder / "adapter_config.json").is_file() or any(folder.glob("adapter_model*")):
            raise Incompatible(f"{folder}: an adapter (LoRA), not a model", hint="give the model it was merged into")
        raise NotFound(f"{folder}: there is no config.json", hint="give the folder that has config.json in it")
    block = fp8_block(config, folder / "config.json", [file.name for file in folder.iterdir()])
    stored = stored_tensors(folder) if weights else {}
    check_tensors(stored, folder)
    tensors = {name: tensor for name, tensor in stored.items() if not name.endswith(SCALE)}
    scales = {name.removesuffix(SCALE): tensor for name, tensor in stored.items() if name.endswith(SCALE)}
    for name, tensor in tensors.items():
        if tensor.dtype == "F8_E4M3":
            _check_scales(tensor, scales.get(name), block)
    for name, tensor in scales.items():
        if name not in tensors or tensors[name].dtype != "F8_E4M3":
            raise BadModelFile(tensor.file, f"{tensor.name!r} belongs to no FP8 weight", hint=ONE_MODEL)
    generation = read_json(folder / "generation_config.json") or {}
    return Checkpoint(folder, config, generation, tensors, scales, block)


def check_readable(tensor: StoredTensor) -> None:
    """Raise Incompatible for types that are no weights this program reads."""
    if tensor.dtype not in _READABLE:
        raise Incompatible(
            f"{tensor.file}: tensor {tensor.name!r} has the type {tensor.dtype}; {', '.join(_READABLE)} can be read",
            hint="give the original weights, in BF16 or F16",
        )


def _check_scales(tensor: StoredTensor, scales: StoredTensor | None, block: tuple[int, int] | None) -> None:
    """An FP8 weight needs the factor of each of its blocks."""
    if block is None:
        raise BadModelFile(
            tensor.file, f"tensor {tensor.name!r} is FP8, but config.json has no quantization_config", hint=ONE_MODEL
        )
    if scales is None:
        raise BadModelFile(
            tensor.file, f"the FP8 tensor {tensor.name!r} has no {tensor.name + SCALE!r}", hint=ONE_MODEL
        )
    if len(tensor.shape) != 2:
        raise Incompatible(f"{tensor.file}: the FP8 tensor {tensor.name!r} has {len(tensor.shape)} dimensions, not two")
    wanted = tuple(-(-size // each) for size, each in zip(tensor.shape, block, strict=True))
    if scales.shape != wanted or scales.dtype not in ("F32", "BF16", "F16"):
        raise BadModelFile(
            scales.file,
            f"tensor {scales.name!r} is {scales.dtype} {_shape(scales.shape)}; "
            f"blocks of {_shape(block)} of {_shape(tensor.shape)} weights need F32 {_shape(wanted)}",
            hint=ONE_MODEL,
        )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


@cache
def _e4m3() -> NDArray[np.float32]:
    """The value of each of the 256 codes of FP8 e4m3fn: sign, 4 bits of exponent with bias 7, 3 of mantissa."""
    import numpy as np

    def value(code: int) -> float:
        exponent, mantissa = code >> 3 & 15, code & 7
        if (exponent, mantissa) == (15, 7):
            return math.nan
        size = math.ldexp(mantissa, -9) if exponent == 0 else math.ldexp(8 + mantissa, exponent - 10)
        return math.copysign(size, -1 if code & 128 else 1)

    return np.array([value(code) for code in range(256)], np.float32)
