"""A checkpoint as a GGUF model: its tensors under their GGUF names, and its metadata.

Names, shapes, order, types and metadata are those of llama.cpp's own converter (conversion/ of llama.cpp as vendored
in llama-cpp-python 0.3.36); tests/peers/convert.py compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quant.convert import tokenizer
from quant.convert.architectures import configured
from quant.convert.built_in import check_built_in
from quant.convert.checkpoint_tensors import NamedTensors, matched, named
from quant.convert.facts import Facts
from quant.convert.family import Family
from quant.convert.layout import Layout, Target, lay_out
from quant.convert.metadata import Metadata, general, standard
from quant.convert.suppressed import suppressed_tokens
from quant.convert.tokenizer_files import is_there
from quant.convert.weights import keeps_rows
from quant.gguf.writer import tensor_bytes
from quant.sources.checkpoint import COPIED, FP4, UNPACKED, Checkpoint
from quant.sources.source import Source, TensorSpec
from quant.sources.stored_quantization import stored_scheme
from runtime.base.errors import PUBLISHED, BadModelFile, NotFound
from runtime.base.events import Listener, ignore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_READ = (".json", ".model", ".jinja", ".safetensors", ".tiktoken", ".txt")
_STORED = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


def source_of(
    checkpoint: Checkpoint, *, pre: str | None = None, keep_mtp: bool = False, listen: Listener = ignore
) -> Source:
    """The model in `checkpoint`, ready to be read as a GGUF.

    `pre` names the pre-tokenizer; by default tokenizer.json tells it. `keep_mtp` keeps the layers for multi-token
    prediction. With only a config.json, the tensors are those it promises, the vocabulary may be missing, and reading
    raises NotFound. Raises Incompatible (architecture, tokenizer, nothing to keep), BadModelFile (tensors that are
    missing, surplus or of another shape than config.json says; a damaged tokenizer), NotFound (no tokenizer).
    """
    with _making_sense(checkpoint.folder):
        return _source_of(checkpoint, pre, keep_mtp, listen)


def _source_of(checkpoint: Checkpoint, pre: str | None, keep_mtp: bool, listen: Listener) -> Source:
    family, facts = configured(checkpoint.config, checkpoint.folder / "config.json", keep_mtp=keep_mtp)
    tensors = named(checkpoint, family, facts)
    facts = Facts(facts.config, family.sizes or {}, tensors.stored)
    layout = lay_out(family, facts)
    targets = matched(tensors, family, facts, layout, listen) if checkpoint.tensors else _required(layout)
    specs = tuple(TensorSpec(target.name, target.shape, _stored(tensors, facts, target)) for target in targets)
    metadata = Metadata(family.architecture, facts)
    general(metadata, checkpoint.name, checkpoint.generation, specs)
    _describe(metadata, family)
    for key, name in family.numbers if checkpoint.tensors else ():
        values = [tensors.number(name.replace("{n}", str(layer))) for layer in range(facts.layers)]
        metadata.put(key, "f32", values)
    if checkpoint.tensors or is_there(checkpoint):
        vocabulary = facts.number("vocab")
        metadata.add(*tokenizer.read(checkpoint, vocabulary, pre=pre))
        if family.suppresses and checkpoint.tensors:
            metadata.add(*suppressed_tokens(tensors, vocabulary))
    return Conversion(tensors, metadata, specs, targets)


def _describe(metadata: Metadata, family: Family) -> None:
    standard(metadata, family)
    metadata.put_keys(family.keys)
    check_built_in(metadata, family)


def expected_tensors(values: Mapping[str, Any], path: Path = Path("config.json")) -> tuple[TensorSpec, ...]:
    """The tensors of the GGUF that follow from a config.json alone, `stored` as far as it tells; `path` is for errors.

    Raises Incompatible (class of model), BadModelFile (values that are missing or contradict each other)."""
    with _making_sense(path):
        family, facts = configured(values, path)
        targets = _required(lay_out(family, facts))
        return tuple(TensorSpec(target.name, target.shape, _promised(facts, target)) for target in targets)


@contextmanager
def _making_sense(place: Path) -> Iterator[None]:
    """Raise BadModelFile for JSON that is read, but that nothing can be done with."""
    try:
        yield
    except RecursionError:
        raise BadModelFile(place, "a value in its JSON files is nested too deeply", hint=PUBLISHED) from None
    except ZeroDivisionError:  # of the arithmetic of a family's table
        raise BadModelFile(
            place, "a size is 0 in its config.json, and others are divided by it", hint=PUBLISHED
        ) from None


def check_convertible(values: Mapping[str, Any], path: Path, listing: Iterable[str] = ()) -> None:
    """Check a config.json without any weights; `listing` has the names of the files next to it.

    Raises Incompatible (architecture, kind of quantization), BadModelFile (values that are missing or impossible)."""
    with _making_sense(path):
        stored_scheme(values, path, listing)
        family, facts = configured(values, path)
        lay_out(family, facts)
        _describe(Metadata(family.architecture, facts), family)


class Conversion(Source):
    """A checkpoint seen as a GGUF model: each tensor is put together from tensors of the checkpoint when it is read."""

    def __init__(
        self, tensors: NamedTensors, metadata: Metadata, specs: Iterable[TensorSpec], targets: Iterable[Target]
    ) -> None:
        """`files` are configuration, tokenizer and weights."""
        checkpoint = tensors.checkpoint
        there = checkpoint.folder.iterdir()
        super().__init__(
            metadata.architecture,
            specs,
            metadata.entries,
            name=checkpoint.name,
            # configuration, tokenizer, weights
            files=sorted(file for file in there if file.suffix in _READ and file.is_file()),
        )
        self._stored = tensors
        self._weights = {each.name: each.weight for each in targets}

    def read(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.float32]:
        """`count` rows from row `first` on, as (count, row_length); a stack of experts is read expert by expert.

        Raises NotFound when only a config.json is there, BadModelFile when FP8 factors are not finite."""
        import numpy as np

        if first < 0 or count < 0 or first + count > tensor.rows:
            raise ValueError(f"{tensor.name} has {tensor.rows} rows, not {first} to {first + count}")
        if not self._stored.checkpoint.tensors:
            raise NotFound(
                f"{self._stored.checkpoint.folder}: there are no weights, only config.json", hint="pull the weights"
            )
        rows = np.empty((count, tensor.row_length), np.float32)
        if count:
            self._weights[tensor.name].read(self._stored, first, rows)
        return rows

    def stored_rows(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.uint8] | None:
        """Rows of MXFP4 as ggml's blocks, bit for bit; None for other types."""
        import numpy as np

        if tensor.stored not in COPIED:
            return None
        rows = np.empty((count, tensor_bytes(tensor.stored, (tensor.row_length,))), np.uint8)
        if count:
            self._weights[tensor.name].read(self._stored.blocks, first, rows)  # type: ignore[arg-type]  # bytes of rows
        return rows


def _required(layout: Layout) -> list[Target]:
    return [target for target in layout.targets if not target.optional]


def _stored(tensors: NamedTensors, facts: Facts, target: Target) -> str:
    """The type in which the checkpoint has a tensor."""
    kinds = list(dict.fromkeys(tensors[name].dtype for name in target.weight.sources if name in tensors.stored))
    if not kinds:
        return _promised(facts, target)
    copied = kinds[0] in COPIED and len(kinds) == 1 and keeps_rows(target.weight)
    return UNPACKED if kinds[0] in FP4 and not copied else kinds[0]


def _promised(facts: Facts, target: Target) -> str:
    """The type in which a checkpoint with this config.json should have a tensor."""
    if not target.after:
        return "F32"
    source, config = target.after[0], facts.config
    projection = source.startswith("model.layers.") and "_proj" in source and ".eh_proj." not in source
    scheme = stored_scheme(config.values, config.path)
    if scheme is not None and projection:
        return scheme.promised
    dtype = config.values.get("torch_dtype", config.values.get("dtype"))
    return _STORED.get(dtype, "BF16") if isinstance(dtype, str) else "BF16"
