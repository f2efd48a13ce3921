"""A model's facts from its checked header, and its weights by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runtime.base.types import ByteCount
from runtime.gguf.header import TensorInfo
from runtime.gguf.values import ArrayValue, Value

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4  # enum llama_token_type (llama.h)


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A checked model: sizes in bytes, lengths in elements, tensors of all shards in file order.

    Missing facts are 0 or None; a file with only a vocabulary has no layers. `header_digest` is the SHA-256 of the
    headers and file sizes of all shards: equal digests mean equal structure.
    """

    files: tuple[Path, ...]
    size: ByteCount
    architecture: str
    name: str
    metadata: Mapping[str, Value] = field(repr=False)
    tensors: tuple[TensorInfo, ...] = field(repr=False)
    header_digest: str
    layers: int
    nextn_layers: int
    context_length: int
    embedding_length: int
    heads: int
    kv_heads_per_layer: tuple[int, ...]
    key_length: int
    value_length: int
    rope_dimensions: int
    q_lora_rank: int
    kv_lora_rank: int
    key_length_mla: int
    value_length_mla: int
    experts: int
    experts_used: int
    vocab_size: int
    bos_token: int | None
    eos_token: int | None
    template: str | None = field(repr=False)
    heads_per_layer: tuple[int, ...] = ()
    experts_used_per_layer: tuple[int, ...] = ()
    _tokens: list[dict[bytes, int]] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def path(self) -> Path:
        """The file that the engine opens: the first shard."""
        return self.files[0]

    @property
    def kv_heads(self) -> int:
        return max(self.kv_heads_per_layer, default=0)

    @property
    def is_mla(self) -> bool:
        """Whether the model uses multi-head latent attention, whose KV cache holds the compressed latent."""
        return self.key_length_mla > 0 and self.value_length_mla > 0

    def heads_in(self, layer: int) -> int:
        """The heads of queries in a layer; the most of any layer where the file has one number."""
        return self.heads_per_layer[layer] if layer < len(self.heads_per_layer) else self.heads

    def experts_used_in(self, layer: int | None) -> int:
        """How many routed experts a token uses in a layer; None: the most of any layer."""
        listed = self.experts_used_per_layer
        return listed[layer] if layer is not None and layer < len(listed) else self.experts_used

    @property
    def parameters(self) -> int:
        """The number of weights, with all experts."""
        return sum(tensor.parameters for tensor in self.tensors)

    @property
    def active_parameters(self) -> int:
        """The number of weights that one token uses: all except those of routed experts that are not chosen."""
        if not self.experts:
            return self.parameters
        unused = sum(
            tensor.parameters * (self.experts - self.experts_used_in(tensor.layer)) // self.experts
            for tensor in self.tensors
            if tensor.is_expert_stack
        )
        return self.parameters - unused

    @property
    def weights_size(self) -> ByteCount:
        return ByteCount(sum(tensor.size for tensor in self.tensors))

    @property
    def bits_per_weight(self) -> float:
        return self.weights_size * 8 / self.parameters if self.tensors else 0.0

    def token_text(self, token: int) -> str:
        """The text of a token in the vocabulary; "" without a vocabulary."""
        listed = self.metadata.get("tokenizer.ggml.tokens")
        if not isinstance(listed, ArrayValue) or listed.type != "str" or token >= listed.count:
            return ""
        return listed.raw_string(token).decode("utf-8", "replace")

    def special_texts(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The texts of the control tokens (with those of type unknown), and of the user-defined tokens."""
        listed, kinds = self.metadata.get("tokenizer.ggml.tokens"), self.metadata.get("tokenizer.ggml.token_type")
        control: list[str] = []
        user_defined: list[str] = []
        if isinstance(listed, ArrayValue) and listed.type == "str" and isinstance(kinds, ArrayValue):
            for raw, kind in zip(listed.raw_strings(), kinds.numbers(), strict=False):
                if kind in (_UNKNOWN, _CONTROL):
                    control.append(raw.decode("utf-8", "replace"))
                elif kind == _USER_DEFINED:
                    user_defined.append(raw.decode("utf-8", "replace"))
        return tuple(control), tuple(user_defined)

    def token_id(self, text: str) -> int | None:
        """The token with exactly this text; None if there is none. The vocabulary is decoded at the first call."""
        if not self._tokens:
            listed = self.metadata.get("tokenizer.ggml.tokens")
            raw = listed.raw_strings() if isinstance(listed, ArrayValue) and listed.type == "str" else []
            self._tokens.append({token: number for number, token in enumerate(raw)})
        return self._tokens[0].get(text.encode())


@dataclass(frozen=True, slots=True)
class LayerParts:
    """Bytes of a layer by ggml type. Every token uses all of `always` and only some experts of `routed`."""

    always: Mapping[str, int]
    routed: Mapping[str, int]

    @property
    def bytes(self) -> int:
        return sum(self.always.values()) + sum(self.routed.values())


@dataclass(frozen=True, slots=True)
class ModelParts:
    """A model's weights by part. A token reads one row of `embedding` and of each of the `tables`.

    `output` is the head. In a `tied` model the head is the embedding and takes no memory of its own."""

    embedding: LayerParts
    tables: LayerParts
    layers: tuple[LayerParts, ...]
    output: LayerParts
    tied: bool


def parts(card: ModelCard) -> ModelParts:
    """The weights of a model by layer, without MTP layers, which the engine skips in normal decoding."""
    always: dict[int, Counter[str]] = {}
    routed: dict[int, Counter[str]] = {}
    outside: dict[str, Counter[str]] = {"embedding": Counter(), "tables": Counter(), "output": Counter()}
    for tensor in card.tensors:
        if tensor.layer is None:
            place = outside[_place_outside(tensor)]
        else:
            place = (routed if tensor.is_expert_stack else always).setdefault(tensor.layer, Counter())
        place[tensor.type] += tensor.size
    tied = all(tensor.name != "output.weight" for tensor in card.tensors)
    embedding, output = outside["embedding"], outside["output"]
    return ModelParts(
        embedding=LayerParts(embedding, {}),
        tables=LayerParts(outside["tables"], {}),
        layers=tuple(LayerParts(always.get(n, Counter()), routed.get(n, Counter())) for n in range(layer_count(card))),
        output=LayerParts(output + embedding if tied else output, {}),
        tied=tied,
    )


def _place_outside(tensor: TensorInfo) -> str:
    if tensor.role != "embedding":
        return "output"
    return "embedding" if tensor.name.startswith("token_embd.") else "tables"


def layer_count(card: ModelCard) -> int:
    """The number of layers that a token passes through, without the MTP layers at the end."""
    return card.layers - card.nextn_layers


def has_plain_stack(card: ModelCard) -> bool:
    """Whether every token is multiplied with matrices in a stack, as MLA's up-projections of each head are."""
    return any(len(each.shape) == 3 and each.shape[2] > 1 and not each.is_expert_stack for each in card.tensors)


def experts_met(card: ModelCard, tokens: int = 1, layer: int | None = None) -> float:
    """The expected share of routed experts that `tokens` tokens use if chosen at random.

    1 - (1 - used / all) ** tokens, for a `layer`; None: for the layer that uses most."""
    return 1 - (1 - card.experts_used_in(layer) / card.experts) ** tokens if card.experts else 0.0
