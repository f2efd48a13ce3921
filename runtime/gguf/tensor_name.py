"""Parses a GGUF tensor name into layer, part and role. The names are those of src/llama-arch.cpp in llama.cpp."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

TensorRole = Literal[
    "embedding", "output", "attention", "dense ffn", "shared experts", "routed experts", "router", "norm", "other"
]

# The order in which tables list the roles: that in which a token meets them.
ROLES: tuple[TensorRole, ...] = (
    "embedding", "attention", "dense ffn", "shared experts", "routed experts", "router", "norm", "output", "other"
)  # fmt: skip

_LAYER = re.compile(r"blk\.(\d+)\.", re.ASCII)

# The first pattern found in the name decides.
_RULES: tuple[tuple[str, TensorRole], ...] = (
    (r"norm", "norm"),
    (r"^(?:token_embd|token_types|position_embd|per_layer_token_embd)\.|nextn\.embed_tokens", "embedding"),
    (r"^output\.|nextn\.shared_head_head", "output"),
    (r"ffn_gate_inp|exp_probs_b", "router"),
    (r"_shexp\.", "shared experts"),
    (r"_exps\.|ffn_(?:gate|up|down)\.\d+\.", "routed experts"),
    (r"\.(?:attn_|ssm_|indexer)", "attention"),
    (r"\.ffn_", "dense ffn"),
)


@dataclass(frozen=True, slots=True)
class TensorName:
    """`layer` is None for tensors outside the layers. `part` is the name without "blk.<layer>.": "attn_q.weight"."""

    layer: int | None
    part: str
    role: TensorRole

    @property
    def stem(self) -> str:
        """The part without ".weight": "attn_q", "ffn_down_exps", "attn_q.bias"."""
        return self.part.removesuffix(".weight")

    @property
    def is_expert_stack(self) -> bool:
        """Whether the tensor holds one slice for each routed expert of its layer."""
        return self.role == "routed experts" and "_exps." in self.part


@lru_cache(maxsize=1 << 16)
def parse_name(name: str) -> TensorName:
    """The layer, part and role of the tensor called `name`. Unknown names have the role "other"."""
    found = _LAYER.match(name)
    role: TensorRole = next((role for pattern, role in _RULES if re.search(pattern, name)), "other")
    return TensorName(int(found[1]), name[found.end() :], role) if found else TensorName(None, name, role)


class NamedTensor:
    """Gives a class with a `name` the layer and the role of that name."""

    __slots__ = ()
    name: str

    @property
    def layer(self) -> int | None:
        return parse_name(self.name).layer

    @property
    def role(self) -> TensorRole:
        return parse_name(self.name).role

    @property
    def is_expert_stack(self) -> bool:
        return parse_name(self.name).is_expert_stack
