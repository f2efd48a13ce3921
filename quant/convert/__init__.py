"""Original weights as a GGUF model: which tensors there are, under which names, and what the header says.

Names, shapes, order, types and metadata are those of llama.cpp's own converter (conversion/ of llama.cpp as vendored
in llama-cpp-python 0.3.36); tests/peers/convert.py compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from quant.convert import deepseek, llama, mixtral, qwen, tokenizer
from quant.convert.config import Config
from quant.convert.layout import Layout, Target
from quant.convert.metadata import Metadata, general, sizes
from quant.sources.checkpoint import Checkpoint, check_readable
from quant.sources.source import KeyValue, Source, TensorSpec
from runtime.base.errors import BadModelFile, Incompatible, NotFound
from runtime.base.events import Listener, Notice, ignore
from runtime.base.words import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PlainType = Literal["f32", "f16", "bf16"]

# Parts of names that converters leave out: buffers that old checkpoints carry along (conversion/base.py).
_BUFFERS = (".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias")
_READ = (".json", ".model", ".jinja", ".safetensors")
_STORED = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
_NAMED = 3  # tensors that an error names


@dataclass(frozen=True, slots=True)
class Family:
    """How one architecture is converted. `sentencepiece`: its models may come with a tokenizer.model. `predicts`: they
    may have layers for multi-token prediction (MTP), which can be kept."""

    layout: Callable[[Config], Layout]
    describe: Callable[[Metadata], None]
    defaults: Mapping[str, Any]
    sentencepiece: bool = False
    predicts: bool = False


FAMILIES = {
    "DeepseekV2ForCausalLM": Family(deepseek.layout, deepseek.describe, deepseek.DEFAULTS_2),
    "DeepseekV3ForCausalLM": Family(deepseek.layout, deepseek.describe, deepseek.DEFAULTS_3, predicts=True),
    "LlamaForCausalLM": Family(llama.layout, llama.describe, llama.DEFAULTS, sentencepiece=True),
    "MixtralForCausalLM": Family(mixtral.layout, mixtral.describe, mixtral.DEFAULTS, sentencepiece=True),
    "Qwen2ForCausalLM": Family(qwen.layout_2, qwen.describe, qwen.DEFAULTS_2, sentencepiece=True),
    "Qwen3ForCausalLM": Family(qwen.layout_3, qwen.describe, qwen.DEFAULTS_3, sentencepiece=True),
    "Qwen3MoeForCausalLM": Family(qwen.layout_3_moe, qwen.describe_moe, qwen.DEFAULTS_3_MOE),
}


def source_of(
    checkpoint: Checkpoint, *, pre: str | None = None, keep_mtp: bool = False, listen: Listener = ignore
) -> Source:
    """The model in `checkpoint`, ready to be read as a GGUF; `pre` names its pre-tokenizer and overrides what is seen,
    with `keep_mtp` its layers for multi-token prediction are not left out.

    With only a config.json the tensors are those that follow from it, the vocabulary may be missing, and reading
    raises NotFound. Raises Incompatible (architecture, tokenizer, nothing to keep), BadModelFile (tensors that are
    missing, surplus or of another shape than config.json says; a damaged tokenizer), NotFound (no tokenizer).
    """
    family, config = _configured(checkpoint.config, checkpoint.folder / "config.json", keep_mtp=keep_mtp)
    layout = family.layout(config)
    targets = _match(checkpoint, layout, listen) if checkpoint.tensors else _required(layout)
    specs = tuple(TensorSpec(target.name, target.shape, _stored(checkpoint, config, target)) for target in targets)
    metadata = Metadata(layout.architecture, config)
    general(metadata, checkpoint.name, checkpoint.generation, specs)
    sizes(metadata)
    family.describe(metadata)
    if checkpoint.tensors or tokenizer.is_there(checkpoint):
        metadata.add(*tokenizer.read(checkpoint, config.vocabulary, pre=pre, sentencepiece=family.sentencepiece))
    return Conversion(checkpoint, layout.architecture, specs, metadata.entries, {each.name: each for each in targets})


def expected_tensors(values: Mapping[str, Any], path: Path = Path("config.json")) -> tuple[TensorSpec, ...]:
    """The tensors of the GGUF that follow from a config.json alone, `stored` as far as it tells; `path` is for errors.

    Raises Incompatible (architecture), BadModelFile (values that are missing or contradict each other)."""
    family, config = _configured(values, path)
    return tuple(
        TensorSpec(target.name, target.shape, _promised(config, target)) for target in _required(family.layout(config))
    )


def plain_type(tensor: TensorSpec, wanted: PlainType) -> str:
    """The ggml type in which llama.cpp's converter writes `tensor` when asked for `wanted`: matrices get it, what is
    small or decides (one dimension, norms, the router) stays F32."""
    name = tensor.name
    small = len(tensor.shape) < 2 or name.endswith("_norm.weight") or not name.endswith(".weight")
    if small or name.endswith(".ffn_gate_inp.weight"):
        return "F32"
    return wanted.upper()


@dataclass(frozen=True)
class Conversion:
    """A checkpoint seen as a GGUF model: the `Source` that `source_of` makes."""

    checkpoint: Checkpoint
    architecture: str
    tensors: tuple[TensorSpec, ...]
    metadata: tuple[KeyValue, ...]
    targets: Mapping[str, Target]

    @property
    def files(self) -> tuple[Path, ...]:
        """Configuration, tokenizer, weights."""
        there = self.checkpoint.folder.iterdir()
        return tuple(sorted(file for file in there if file.suffix in _READ and file.is_file()))

    def read(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.float32]:
        """`count` rows from row `first` on, as (count, row_length); a stack of experts is read expert by expert.

        Raises NotFound when only a config.json is there, BadModelFile when FP8 factors are not finite."""
        import numpy as np

        if first < 0 or count < 0 or first + count > tensor.rows:
            raise ValueError(f"{tensor.name} has {tensor.rows} rows, not {first} to {first + count}")
        if not self.checkpoint.tensors:
            raise NotFound(f"{self.checkpoint.folder}: there are no weights, only config.json", hint="pull the weights")
        rows = np.empty((count, tensor.row_length), np.float32)
        begin = 0  # the row at which the next part begins
        for part in self.targets[tensor.name].parts:
            low, high = max(begin, first), min(begin + part.rows, first + count)
            if low < high:
                part.read(self.checkpoint, low - begin, rows[low - first : high - first])
            begin += part.rows
        return rows


def _configured(values: Mapping[str, Any], path: Path, *, keep_mtp: bool = False) -> tuple[Family, Config]:
    config = Config(values, path)
    family = _family(config)
    config = config.with_defaults(**family.defaults)
    if not keep_mtp:
        return family, config.without_predicting()
    if not family.predicts or not config.predicting:
        raise Incompatible(f"{path}: this model has no MTP layers that could be kept", hint="leave out --keep-mtp")
    return family, config


def _family(config: Config) -> Family:
    for name in config.architectures:
        if name in FAMILIES:
            return FAMILIES[name]
    note = "; the code it brings along is never run" if config.has("auto_map") else ""
    raise Incompatible(
        f"{config.path}: the architecture {config.architectures[0]} is not known here{note}",
        hint=f"known are {', '.join(FAMILIES)}",
    )


def _required(layout: Layout) -> list[Target]:
    return [target for target in layout.targets if not target.optional]


def _match(checkpoint: Checkpoint, layout: Layout, listen: Listener) -> list[Target]:
    """The targets that this checkpoint has, in llama.cpp's order, after checking that it has all it needs, in the
    shapes that config.json says, and nothing that has no place."""
    folder, found = checkpoint.folder, checkpoint.tensors
    optional = {source for target in layout.targets if target.optional for source in target.after}
    missing = [source for source in layout.sources if source not in found and source not in optional]
    beyond = _beyond_last_layer(layout, found)
    surplus = [
        name for name in found if name not in layout.sources and name not in beyond and not _left_out(layout, name)
    ]
    total = len(layout.sources)
    lacking = counted(len(missing), f"of {total} tensors is missing", f"of {total} tensors are missing")
    for names, problem in (
        (missing, lacking),
        (surplus, counted(len(surplus), "tensor is surplus", "tensors are surplus")),
    ):
        if names:
            raise BadModelFile(
                folder,
                f"{problem} for its config.json: {_listed(names)}",
                hint="the weights and config.json must be those of one model, all of them",
            )
    for name, shape in layout.sources.items():
        if name not in found:
            continue
        if found[name].shape != shape:
            raise BadModelFile(
                found[name].file,
                f"tensor {name!r} is {_size(found[name].shape)}, but config.json asks for {_size(shape)}",
                hint="the weights and config.json must be those of one model",
            )
        check_readable(found[name])
    if beyond:
        count = counted(len(beyond), "tensor")
        listen(Notice(f"left out: {count} of layers for predicting several tokens at once; --keep-mtp keeps them"))
    place = {name: number for number, name in enumerate(found)}
    targets = [target for target in layout.targets if not target.optional or target.after[0] in found]
    return sorted(targets, key=lambda target: max((place[source] for source in target.after), default=-1))


def _beyond_last_layer(layout: Layout, names: Iterable[str]) -> frozenset[str]:
    """Tensors of DeepSeek's extra layers for multi-token prediction: they are numbered on behind the last one."""
    if layout.architecture != "deepseek2":
        return frozenset()
    layers = layout.config.layers + layout.config.predicting
    extra = []
    for name in names:
        number = name.removeprefix("model.layers.").split(".", 1)[0]
        if name.startswith("model.layers.") and number.isdecimal() and int(number) >= layers:
            extra.append(name)
    return frozenset(extra)


def _left_out(layout: Layout, name: str) -> bool:
    """Buffers, and an output matrix that is the same as the embeddings and that DeepSeek's family does without."""
    tied = name == "lm_head.weight" and layout.config.flag("tie_word_embeddings")
    return name.endswith(_BUFFERS) or tied


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"


def _stored(checkpoint: Checkpoint, config: Config, target: Target) -> str:
    """The type in which the checkpoint has a tensor."""
    found = checkpoint.tensors.get(target.parts[0].source)
    return _promised(config, target) if found is None else found.dtype


def _promised(config: Config, target: Target) -> str:
    """The type in which a checkpoint with this config.json should have a tensor."""
    source = target.parts[0].source
    if not source:
        return "F32"
    projection = source.startswith("model.layers.") and "_proj" in source and ".eh_proj." not in source
    if config.has("quantization_config") and projection:
        return "F8_E4M3"
    return _STORED.get(config.text("torch_dtype", config.text("dtype", "bfloat16")), "BF16")
