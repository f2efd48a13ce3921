"""Weights that are stored in another form than one float per element: how their rows become floats, exactly.

Each form is one tensor of the model under the name that it has without quantization, its shape (row length last), and
the stored tensors that hold it. Products are float32, as in llama.cpp's converter (ModelBase.dequant_model in
conversion/base.py); the layouts of GPTQ, compressed-tensors and MXFP4 are there too. AWQ's layout: WQLinear_GEMM and
dequantize_gemm of AutoAWQ. Only the rows that are asked for are unpacked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from quant.sources.mapped import MappedFiles
from runtime.base.errors import PUBLISHED, BadModelFile
from runtime.base.safetensors import StoredTensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[np.float32]

# The values of the 16 codes of FP4 e2m1 (OCP MX 1.0): sign, two bits of exponent, one of mantissa.
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
# Which column of eight the nibbles of an AWQ word hold, from the lowest nibble on.
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


class Form(Protocol):
    @property
    def tensor(self) -> StoredTensor:
        """The tensor as the model has it: its name, shape, and the name of its stored type."""
        ...

    def read(self, files: MappedFiles, first: int, out: Rows) -> None:
        """Fill `out`, (count, row length) and contiguous, with rows from `first` on. Raises BadModelFile."""
        ...


@dataclass(frozen=True, slots=True)
class Grid:
    """Which factor belongs to an element: factors lie in `matrices` matrices (or one for all) of `rows` times
    `columns`, and each is for `high` rows and `wide` columns. The last of them may be partial."""

    matrices: int
    rows: int
    columns: int
    high: int
    wide: int

    def of_rows(self, files: MappedFiles, factors: StoredTensor, height: int, first: int, count: int) -> Rows:
        """The factors of each of `count` rows from row `first` on, (count, columns); matrices are `height` high."""
        import numpy as np

        numbers = np.arange(first, first + count)
        matrix = numbers // height if self.matrices > 1 else 0
        at = matrix * self.rows + numbers % height // self.high
        low, high = int(at[0]), int(at[-1]) + 1
        if high - low > 0 and (np.diff(at) < 0).any():  # one matrix of factors for all
            low, high = 0, self.rows
        found = files.factors(factors, low * self.columns, (high - low) * self.columns)
        return found.reshape(-1, self.columns)[at - low]


@dataclass(frozen=True, slots=True)
class Scaled:
    """One byte per element (FP8 or an integer), times the factor of its block, row or tensor; integers may have zero
    points, which are subtracted before."""

    tensor: StoredTensor
    codes: StoredTensor
    factors: StoredTensor
    grid: Grid
    zeros: StoredTensor | None = None

    def read(self, files: MappedFiles, first: int, out: Rows) -> None:
        files.floats(self.codes, first * self.tensor.width, out)
        height = self.tensor.shape[-2] if len(self.tensor.shape) > 1 else 1
        if self.zeros is not None:
            zeros = self.grid.of_rows(files, self.zeros, height, first, len(out))
            _apply(out, zeros, self.grid.wide, subtract=True)
        _apply(out, self.grid.of_rows(files, self.factors, height, first, len(out)), self.grid.wide)


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Integers of `bits` in words of 32, from the lowest bits on, along a row (compressed-tensors, "pack-quantized").

    Groups of `wide` columns share a factor and perhaps a zero point; zero points are packed along the rows. `groups`
    has the group of each column if columns were reordered."""

    tensor: StoredTensor
    words: StoredTensor
    factors: StoredTensor
    bits: int
    wide: int
    zeros: StoredTensor | None = None
    groups: StoredTensor | None = None

    def read(self, files: MappedFiles, first: int, out: Rows) -> None:
        count, each = len(out), 32 // self.bits
        out[...] = _unpacked(files.rows(self.words, first, count), self.bits)[:, : self.tensor.width]
        columns = self.factors.width
        factors = files.factors(self.factors, first * columns, count * columns).reshape(count, columns)
        if self.zeros is None:
            out -= 1 << (self.bits - 1)
            zeros = None
        else:
            word, past = first // each, -(-(first + count) // each)
            packed = files.rows(self.zeros, word, past - word)
            begin = first - word * each
            zeros = _unpacked(packed.T, self.bits).T[begin : begin + count].astype(factors.dtype)
        if self.groups is not None:
            group = _groups(files, self.groups, columns)
            if zeros is not None:
                out -= zeros[:, group]
            out *= factors[:, group]
            return
        if zeros is not None:
            _apply(out, zeros, self.wide, subtract=True)
        _apply(out, factors, self.wide)


@dataclass(frozen=True, slots=True)
class PackedColumns:
    """Integers of `bits` in words of 32 that lie transposed: GPTQ packs along the inputs, AWQ along the outputs.

    A row of the tensor is a column of what is stored, so rows are read together as a block of columns. Factors and zero
    points are for each group of inputs and each output. `groups` has the group of each input (GPTQ's g_idx); without,
    `wide` neighbours are a group. `above` is added to zero points: GPTQ's first format stores one less."""

    tensor: StoredTensor
    words: StoredTensor
    zeros: StoredTensor
    factors: StoredTensor
    bits: int
    wide: int
    above: int = 0
    groups: StoredTensor | None = None
    awq: bool = False

    def read(self, files: MappedFiles, first: int, out: Rows) -> None:
        import numpy as np

        count, each = len(out), 32 // self.bits
        word, past = first // each, -(-(first + count) // each)
        begin = first - word * each
        zeros = _unpacked(files.columns(self.zeros, word, past - word), self.bits, awq=self.awq)
        if self.awq:
            codes = _unpacked(files.columns(self.words, word, past - word), self.bits, awq=True)
            out[...] = codes[:, begin : begin + count].T
        else:
            words = files.columns(self.words, first, count)
            out[...] = _unpacked(words.T, self.bits)
        offsets = zeros[:, begin : begin + count].T.astype(np.float32) + self.above
        factors = files.factor_columns(self.factors, first, count).T
        if self.groups is None:
            _apply(out, offsets, self.wide, subtract=True)
            _apply(out, factors, self.wide)
        else:
            group = _groups(files, self.groups, factors.shape[1])
            out -= offsets[:, group]
            out *= factors[:, group]


@dataclass(frozen=True, slots=True)
class Fp4:
    """FP4 e2m1, two codes to a byte, the lower bits first; blocks of `wide` elements have a factor: MXFP4 a power of
    two for 32, NVFP4 an FP8 number for 16, times `whole` for the whole matrix (or divided by it)."""

    tensor: StoredTensor
    codes: StoredTensor
    factors: StoredTensor
    wide: int
    whole: StoredTensor | None = None
    divided: bool = False

    def read(self, files: MappedFiles, first: int, out: Rows) -> None:
        import numpy as np

        codes = self._codes(files, first, len(out))
        table = np.array(E2M1, np.float32)
        out[:, 0::2] = table[codes & 15]
        out[:, 1::2] = table[codes >> 4]
        columns = self.tensor.width // self.wide
        factors = files.factors(self.factors, first * columns, len(out) * columns).reshape(-1, columns)
        _apply(out, factors, self.wide)
        if self.whole is not None:
            out *= self._wholes(files, first, len(out))

    def stored_rows(self, files: MappedFiles, first: int, count: int) -> NDArray[np.uint8]:
        """Rows as blocks of ggml's MXFP4 or NVFP4, bit for bit: the order of bytes changes, and no value.

        MXFP4: a factor, then 16 bytes with elements j and j + 16. NVFP4: four factors, then four times 8 bytes with
        elements j and j + 8 (repack_mxfp4_blocks and _nvfp4_pack in conversion/base.py). `whole` is not in it."""
        import numpy as np

        codes, half = self._codes(files, first, count), self.wide // 2
        columns = self.tensor.width // self.wide
        elements = np.stack((codes & 15, codes >> 4), axis=-1).reshape(count, columns, self.wide)
        packed = elements[..., :half] | elements[..., half:] << 4
        factors = files.rows(self.factors_in_rows, first, count).reshape(count, columns)
        if self.wide == 16:
            four = (count, columns // 4, 4)
            parts = (factors.reshape(four) & 0x7F, packed.reshape(count, columns // 4, 32))
        else:
            parts = (factors[..., None], packed)
        return np.concatenate(parts, axis=-1).reshape(count, -1)

    @property
    def factors_in_rows(self) -> StoredTensor:
        """The factors, a row for each row of the tensor, as the bytes that they are."""
        each = self.factors
        shape = (*self.tensor.shape[:-1], self.tensor.width // self.wide)
        return StoredTensor(each.name, "U8", shape, each.file, each.begin, each.end)

    def _wholes(self, files: MappedFiles, first: int, count: int) -> Rows:
        import numpy as np

        assert self.whole is not None
        size = self.whole.rows * self.whole.width
        factors = files.factors(self.whole, 0, size)
        if self.divided:
            if not factors.all():
                raise BadModelFile(self.whole.file, f"tensor {self.whole.name!r} holds zero", hint=PUBLISHED)
            factors = np.float32(1) / factors
        height = self.tensor.shape[-2]
        number = np.arange(first, first + count) // height if size > 1 else np.zeros(count, np.int64)
        return factors[number][:, None]

    def _codes(self, files: MappedFiles, first: int, count: int) -> NDArray[np.uint8]:
        each = self.codes
        shape = (*self.tensor.shape[:-1], self.tensor.width // 2)
        flat = StoredTensor(each.name, "U8", shape, each.file, each.begin, each.end)
        found: NDArray[np.uint8] = files.rows(flat, first, count)
        return found


def _apply(out: Rows, values: Rows, wide: int, *, subtract: bool = False) -> None:
    """Multiply each group of `wide` columns by its value (or subtract it); `values` are (rows, groups)."""
    import numpy as np

    if values.shape[1] == 1:
        grouped, each = out, values
    elif out.shape[1] % wide == 0:
        grouped, each = out.reshape(len(out), -1, wide), values[:, :, None]
    else:
        grouped, each = out, np.repeat(values, wide, axis=1)[:, : out.shape[1]]
    if subtract:
        grouped -= each
    else:
        grouped *= each


def _unpacked(words: NDArray[Any], bits: int, *, awq: bool = False) -> NDArray[np.uint8]:
    """The integers in the words of each row, (rows, words * 32 / bits), the lowest bits first (or in AWQ's order)."""
    import numpy as np

    each = 32 // bits
    whole = np.ascontiguousarray(words).view(np.uint32)
    found = np.empty((*whole.shape, each), np.uint8)
    for number in range(each):
        place = _AWQ_ORDER[number] if awq else number
        found[..., place] = whole >> np.uint32(number * bits) & np.uint32((1 << bits) - 1)
    return found.reshape(len(whole), -1)


def _groups(files: MappedFiles, groups: StoredTensor, count: int) -> NDArray[Any]:
    """The group of each column. Raises BadModelFile for numbers that are none."""
    import numpy as np

    found = files.rows(groups, 0, 1)[0]
    if found.size and (found.min() < 0 or found.max() >= count):
        raise BadModelFile(
            groups.file, f"tensor {groups.name!r} has groups beyond the {count} there are", hint=PUBLISHED
        )
    numbers: NDArray[Any] = found.astype(np.int64)
    return numbers
