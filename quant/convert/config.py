"""`config.json` as typed facts. A value that is missing, not a number or out of range is an error with its key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.base.errors import BadModelFile
from runtime.base.quoted import spelled
from runtime.gguf.engine_lists import MOST_EXPERTS, MOST_LAYERS

# A bound that every size of every published model keeps, far below what would need 64 bits or endless lists.
_MOST = 2**31 - 1
# Costs follow these: a text for each token, an object for each head and for each matrix of an expert. The largest
# published models have 0.9 M tokens (XLM-V), 128 heads (DeepSeek-V3) and 61 layers of 384 experts (Kimi K2).
_MOST_TOKENS = 1 << 22
_LONGEST_TEXT = 80
_MOST_HEADS = 1 << 10
_LONGEST_HEAD = 1 << 14
_MOST_EXPERTS_IN_ALL = 1 << 16


class Config:
    """`values` is the object of `path`. A key that is there with null counts as absent, as in llama.cpp's converter."""

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        self.values = values
        self.path = path

    def bad(self, problem: str) -> BadModelFile:
        return BadModelFile(self.path, problem, hint="give the config.json that was published with the weights")

    def has(self, key: str) -> bool:
        return self.values.get(key) is not None

    def integer(self, key: str, default: int | None = None, *, least: int = 1, most: int = _MOST) -> int:
        value = self.values.get(key)
        value = default if value is None else value
        if value is None:
            raise self.bad(f"{key} is missing")
        if type(value) is not int or not least <= value <= most:
            raise self.bad(f"{key} is {spelled(value)}, not an integer from {least} to {most}")
        return value

    def number(self, key: str, default: float | None = None, *, least: float = -3e38, below: float = 3e38) -> float:
        value = self.values.get(key)
        value = default if value is None else value
        if value is None:
            raise self.bad(f"{key} is missing")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < below:
            limits = "" if (least, below) == (-3e38, 3e38) else f" from {least:g} to below {below:g}"
            raise self.bad(f"{key} is {spelled(value)}, not a number{limits}")
        return float(value)

    def positive(self, key: str, default: float | None = None) -> float:
        """A number above zero that is so in float32 too, as the file and the engine have it."""
        return self.number(key, default, least=1e-30)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.values.get(key)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise self.bad(f"{key} is {spelled(value)}, neither true nor false")
        return value

    def text(self, key: str, default: str = "") -> str:
        value = self.values.get(key)
        value = default if value is None else value
        if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
            raise self.bad(f"{key} is {spelled(value)}, not a text of at most {_LONGEST_TEXT} characters")
        return value

    def integers(self, key: str) -> tuple[int, ...]:
        """A list with one integer for each layer at most."""
        value = self.values.get(key) or []
        proper = isinstance(value, list) and len(value) <= MOST_LAYERS
        if not proper or not all(type(each) is int for each in value):
            raise self.bad(f"{key} is {spelled(value)}, not a list of at most {MOST_LAYERS} integers")
        return tuple(value)

    @property
    def architectures(self) -> tuple[str, ...]:
        value = self.values.get("architectures")
        if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
            raise self.bad("architectures is missing: it says what kind of model this is")
        return tuple(each[:80] for each in value)

    @property
    def layers(self) -> int:
        return self.integer("num_hidden_layers", most=MOST_LAYERS)

    @property
    def mtp_layers(self) -> int:
        """Number of layers for multi-token prediction (MTP) to keep. Their numbers follow the other layers."""
        return self.integer("num_nextn_predict_layers", 0, least=0, most=MOST_LAYERS)

    @property
    def hidden(self) -> int:
        return self.integer("hidden_size")

    @property
    def vocabulary(self) -> int:
        return self.integer("vocab_size", most=_MOST_TOKENS)

    @property
    def heads(self) -> int:
        return self.integer("num_attention_heads", most=_MOST_HEADS)

    @property
    def kv_heads(self) -> int:
        return self.integer("num_key_value_heads", self.heads)

    @property
    def head_length(self) -> int:
        """Elements of a head: head_dim, or an even share of the hidden size."""
        if self.has("head_dim"):
            return self.integer("head_dim", most=_LONGEST_HEAD)
        if self.hidden % self.heads:
            raise self.bad(f"hidden_size {self.hidden} is no multiple of the {self.heads} attention heads")
        length = self.hidden // self.heads
        if length > _LONGEST_HEAD:
            raise self.bad(
                f"hidden_size {self.hidden} with {self.heads} heads: heads of {length} elements are too long"
            )
        return length

    def experts(self, key: str) -> int:
        """The number of routed experts of a layer."""
        count = self.integer(key, most=MOST_EXPERTS)
        if count * self.layers > _MOST_EXPERTS_IN_ALL:
            raise self.bad(
                f"{key} {count} and num_hidden_layers {self.layers}: more than {_MOST_EXPERTS_IN_ALL} experts in all"
            )
        return count

    @property
    def rope(self) -> Config:
        """Settings of the rotary embedding, from rope_parameters or rope_scaling, completed from the top level."""
        found = self.values.get("rope_parameters") or self.values.get("rope_scaling") or {}
        if not isinstance(found, Mapping):
            raise self.bad("rope_scaling is not a JSON object")
        values = dict(found)
        if isinstance(values.get("full_attention"), Mapping):
            values = dict(values["full_attention"])
        for key in ("rope_theta", "original_max_position_embeddings"):
            if values.get(key) is None and self.has(key):
                values[key] = self.values[key]
        if values.get("rope_type") is None and values.get("type") is not None:
            values["rope_type"] = values["type"]
        return Config(values, self.path)

    def without_mtp(self) -> Config:
        """The same without layers for multi-token prediction."""
        return Config({**self.values, "num_nextn_predict_layers": 0}, self.path)

    def with_defaults(self, **defaults: Any) -> Config:
        """The same with values for keys that are not there at all."""
        return Config({**defaults, **self.values}, self.path)
