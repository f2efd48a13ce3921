"""`config.json` as typed facts. A value that is missing, not a number or out of range is an error with its key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.base.errors import BadModelFile
from runtime.base.quoted import spelled
from runtime.gguf.engine_lists import MOST_LAYERS

# A bound that every size of every published model keeps, far below what would need 64 bits or endless lists.
_MOST = 2**31 - 1
_LONGEST_TEXT = 80
MTP_LAYERS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "mtp_num_layers")
# Where multimodal models keep the settings of their language model.
_TEXT_PARTS = ("text_config", "llm_config", "lm_config", "language_config")
# Keys of the rotary embedding, and other names that they have at the top level.
_ROPE = {
    "rope_theta": ("global_rope_theta", "rope_global_theta", "rope_theta_global", "rotary_emb_base"),
    "partial_rotary_factor": ("rope_pct", "rope_percent"),
    "original_max_position_embeddings": (),
}
_SLIDING_THETA = (
    "local_rope_theta", "rope_local_theta", "rope_theta_local", "swa_rope_theta", "rope_local_base_freq",
)  # fmt: skip


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

    def numbers(self, key: str, least: int) -> tuple[float, ...]:
        """A list with `least` numbers at least."""
        value = self.values.get(key)
        if not isinstance(value, list) or not least <= len(value) <= MOST_LAYERS:
            raise self.bad(f"{key} is not a list of {least} to {MOST_LAYERS} numbers")
        return tuple(Config({key: each}, self.path).number(key) for each in value)

    @property
    def layer_types(self) -> tuple[str, ...]:
        """The kind of each layer, by transformers' names; at least as many as there are layers."""
        value = self.values.get("layer_types")
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self.bad("layer_types is not a list of texts")
        if len(value) < self.integer("num_hidden_layers", most=MOST_LAYERS):
            raise self.bad(f"layer_types has {len(value)} entries, fewer than there are layers")
        return tuple(value)

    @property
    def architectures(self) -> tuple[str, ...]:
        value = self.values.get("architectures")
        if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
            raise self.bad("architectures is missing: it says what kind of model this is")
        return tuple(each[:80] for each in value)

    @property
    def rope(self) -> Config:
        """Settings of the rotary embedding, from rope_parameters or rope_scaling, completed from the top level."""
        values = self._rope()
        if isinstance(values.get("full_attention"), Mapping):
            values = dict(values["full_attention"])
        for key, others in _ROPE.items():
            found = next((name for name in (key, *others) if self.has(name)), None)
            if values.get(key) is None and found:
                values[key] = self.values[found]
        if values.get("rope_type") is None and values.get("type") is not None:
            values["rope_type"] = values["type"]
        return Config(values, self.path)

    @property
    def sliding_rope(self) -> Config:
        """The same of layers with a sliding window, where they have settings of their own; else empty."""
        given = self._rope()
        values = dict(given["sliding_attention"]) if isinstance(given.get("sliding_attention"), Mapping) else {}
        found = next((name for name in _SLIDING_THETA if self.has(name)), None)
        if found and not values and "full_attention" not in given:
            values["rope_theta"] = self.values[found]
        return Config(values, self.path)

    def _rope(self) -> dict[str, Any]:
        found = self.values.get("rope_parameters") or self.values.get("rope_scaling") or {}
        if not isinstance(found, Mapping):
            raise self.bad("rope_scaling is not a JSON object")
        return dict(found)

    @property
    def flat(self) -> Config:
        """The settings of the language model within a config.json that describes several models: they are moved to the
        top level (TextModel in conversion/base.py of llama.cpp)."""
        for key in _TEXT_PARTS:
            inner = self.values.get(key)
            if isinstance(inner, Mapping):
                return Config({**self.values, **inner, "architectures": self.values.get("architectures")}, self.path)
        return self

    def without_mtp(self) -> Config:
        """The same without layers for multi-token prediction."""
        return Config({**self.values, **dict.fromkeys(MTP_LAYERS, 0)}, self.path)

    def with_defaults(self, **defaults: Any) -> Config:
        """The same with values for keys that are not there at all."""
        return Config({**defaults, **self.values}, self.path)
