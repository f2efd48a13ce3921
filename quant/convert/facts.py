"""The facts of one model: the numbers of its config.json, under the names that a family's table uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cache

from quant.convert.config import Config
from runtime.base.quoted import spelled
from runtime.gguf.engine_lists import MOST_EXPERTS, MOST_LAYERS

# A size of a family: config.json's keys, of which the first that is there counts, and behind "=" an expression that
# stands in for them ("num_key_value_heads|n_kv_heads=heads"); or a function of the facts and the layer.
Size = str | Callable[["Facts", int], int]

# Costs follow these: a text for each token, an object for each head and for each matrix of an expert. The largest
# published models have 0.9 M tokens (XLM-V), 128 heads (DeepSeek-V3) and 61 layers of 384 experts (Kimi K2).
_BOUNDS = {
    "layers": MOST_LAYERS,
    "mtp_layers": MOST_LAYERS,
    "vocab": 1 << 22,
    "heads": 1 << 10,
    "kv_heads": 1 << 10,
    "head": 1 << 14,
    "experts": MOST_EXPERTS,
    "used_experts": MOST_EXPERTS,
}
# Sizes of the whole model; others may be a list with a number for each layer.
_WHOLE = ("layers", "mtp_layers", "hidden", "vocab", "experts")
_MOST = 2**31 - 1
_MOST_EXPERTS_IN_ALL = 1 << 16
_MOST_MOVED = 1 << 23  # rows of all layers that get another place; Llama 3.1 405B has 2.2 M, Qwen3.5 397B 2.5 M


def _head(facts: Facts, layer: int) -> int:
    """An even share of the hidden size."""
    hidden, heads = facts.number("hidden", layer), facts.number("heads", layer)
    if hidden % heads:
        raise facts.config.bad(f"hidden_size {hidden} is not a multiple of the {heads} attention heads")
    if hidden // heads > _BOUNDS["head"]:
        raise facts.config.bad(
            f"hidden_size {hidden} with {heads} heads: heads of {hidden // heads} elements are too long"
        )
    return hidden // heads


# The sizes that most families have, by the keys of config.json (find_hparam in conversion/base.py of llama.cpp).
SIZES: Mapping[str, Size] = {
    "layers": "num_hidden_layers|n_layers|n_layer|num_layers",
    "mtp_layers": "num_nextn_predict_layers|mtp_num_hidden_layers|mtp_num_layers=0",
    "hidden": "hidden_size|n_embd|dim",
    "vocab": "vocab_size",
    "heads": "num_attention_heads|n_head|n_heads",
    "kv_heads": "num_key_value_heads|n_kv_heads|num_kv_heads=heads",
    "head": "head_dim=even_head",
    "even_head": _head,
    "ffn": "intermediate_size|n_inner|hidden_dim",
    "experts": "num_local_experts|num_experts|n_routed_experts",
    "used_experts": "num_experts_per_tok|num_experts_per_token|top_k_experts",
    "expert_ffn": "moe_intermediate_size",
    "shared_experts": "n_shared_experts|num_shared_experts=0",
}


class Facts:
    """`number("heads * head", layer)` evaluates sums and products of sizes, keys of config.json, and integers.

    A size whose value in config.json is a list has one number for each layer. Raises BadModelFile for a size that is
    missing or out of bounds.

    `stored` are the names of the checkpoint's tensors, renamed as the table has them; none when only config.json is
    there."""

    def __init__(self, config: Config, sizes: Mapping[str, Size], stored: Iterable[str] = ()) -> None:
        self.config = config
        self.stored = frozenset(stored)
        self._sizes = {**SIZES, **sizes}
        self._known: dict[tuple[str, int], int] = {}
        self._moved = 0

    @property
    def layers(self) -> int:
        """Layers without those for multi-token prediction."""
        return self.number("layers")

    @property
    def all_layers(self) -> int:
        return self.number("layers") + self.number("mtp_layers")

    def has(self, name: str) -> bool:
        """Whether config.json has the size `name`, or the table a number that stands in for it."""
        size = self._sizes.get(name, name)
        if not isinstance(size, str):
            return True
        keys, _, default = size.partition("=")
        return bool(default) or any(self.config.has(key) for key in keys.split("|"))

    def number(self, expression: str, layer: int = 0) -> int:
        """The value of an expression in `layer`."""
        key = expression, layer
        if key not in self._known:
            value = sum(math.prod(self._value(name, layer) for name in product) for product in _parsed(expression))
            if value > _MOST:
                raise self.config.bad(f"its sizes give {value} for {expression}, which must be at most {_MOST}")
            self._known[key] = value
        return self._known[key]

    def dimensions(self, shape: str, layer: int = 0) -> tuple[int, ...]:
        """The sizes of "heads*head hidden"; an expression of one dimension has no spaces."""
        return tuple(self.number(expression, layer) for expression in shape.split())

    def experts(self, layer: int = 0) -> int:
        """The routed experts of a layer. Raises BadModelFile for more in all layers than any model has."""
        count = self.number("experts", layer)
        if count * self.layers > _MOST_EXPERTS_IN_ALL:
            raise self.config.bad(
                f"{self.key('experts')} {count} and {self.key('layers')} {self.layers}: "
                f"more than {_MOST_EXPERTS_IN_ALL} experts in all"
            )
        return count

    def move(self, rows: int) -> None:
        """Account for rows whose places are listed one by one. Raises BadModelFile for more than any model has."""
        self._moved += rows
        if self._moved > _MOST_MOVED:
            raise self.config.bad(f"its sizes would move more than {_MOST_MOVED} rows to other places")

    def key(self, name: str) -> str:
        """The key of config.json that has the size `name`; the usual one if none is there."""
        size = self._sizes.get(name, name)
        assert isinstance(size, str)
        keys = size.partition("=")[0].split("|")
        return next((key for key in keys if self.config.has(key)), keys[0])

    def _value(self, name: str, layer: int) -> int:
        if name.isdecimal():
            return int(name)
        size = self._sizes.get(name, name)
        if not isinstance(size, str):
            return self._checked(name, size(self, layer))
        key, default = self.key(name), size.partition("=")[2]
        value = self.config.values.get(key)
        if value is None and default:
            return self.number(default, layer)
        most = _BOUNDS.get(name, _MOST)
        if not isinstance(value, list) or name in _WHOLE:
            return self.config.integer(key, least=0 if default == "0" else 1, most=most)
        if not len(value) <= MOST_LAYERS or not all(type(each) is int and 0 <= each <= most for each in value):
            raise self.config.bad(f"{key} is {spelled(value)}, not a list of integers from 0 to {most}")
        if layer >= len(value):
            raise self.config.bad(f"{key} has {len(value)} numbers, too few for layer {layer}")
        return int(value[layer])

    def _checked(self, name: str, value: int) -> int:
        most = _BOUNDS.get(name, _MOST)
        if not 0 <= value <= most:
            raise self.config.bad(f"its sizes give {value} for {name}, which must be from 0 to {most}")
        return value


@cache
def _parsed(expression: str) -> tuple[tuple[str, ...], ...]:
    """ "2*heads*head+inner" -> (("2", "heads", "head"), ("inner",))."""
    return tuple(tuple(product.split("*")) for product in expression.replace(" ", "").split("+"))
