"""Parses a GGUF tensor name into layer, part and role. The names are those of src/llama-arch.cpp in llama.cpp."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

TensorRole = Literal[
    "embedding", "output", "attention", "recurrent", "indexer", "dense ffn", "shared experts", "routed experts",
    "router", "per-layer inputs", "hyper-connections", "mtp", "norm", "other"
]  # fmt: skip

# The order in which tables list the roles: that in which a token meets them.
ROLES: tuple[TensorRole, ...] = (
    "embedding", "per-layer inputs", "hyper-connections", "attention", "recurrent", "indexer", "dense ffn",
    "shared experts", "routed experts", "router", "norm", "output", "mtp", "other"
)  # fmt: skip

_LAYER = re.compile(r"blk\.(\d+)\.", re.ASCII)

# The first pattern found in the name decides.
_RULES: tuple[tuple[str, TensorRole], ...] = (
    (r"norm", "norm"),
    # altup and laurel: Gemma 3n; ple: n-gram embeddings of Qwen4-Exp
    (r"altup_|laurel_|^per_layer_model_proj|^blk\.\d+\.(?:inp_gate|proj|ple_\w+)\.", "per-layer inputs"),
    (r"^(?:token_embd|token_types|position_embd|per_layer_token_embd)\.|nextn\.embed_tokens", "embedding"),
    (r"^output\.|nextn\.shared_head_head", "output"),
    (r"\.nextn\.|^nextn\.", "mtp"),
    (r"(?:\.|_)hc_|_res_score", "hyper-connections"),
    (r"ffn_gate_inp|exp_probs_b|ffn_gate_tid2eid", "router"),
    (r"_shexp\.", "shared experts"),
    (r"_(?:ch)?exps\.|ffn_(?:gate|up|down)\.\d+\.", "routed experts"),
    (r"\.indexer", "indexer"),
    # Mamba, gated delta net, KDA (whose queries, keys and values are named as attention's), short convolution, RWKV
    (r"\.(?:ssm_|shortconv\.|time_mix_)", "recurrent"),
    (r"\.attn_", "attention"),
    (r"\.(?:ffn_|channel_mix_)", "dense ffn"),
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
