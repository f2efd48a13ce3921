"""What a tensor is for, told by its GGUF name (the names are those of src/llama-arch.cpp in llama.cpp)."""

from __future__ import annotations

import re
from typing import Literal

Role = Literal[
    "embedding", "output", "attention", "dense ffn", "shared experts", "routed experts", "router", "norm", "other"
]

# The first pattern that is found decides.
_RULES: tuple[tuple[str, Role], ...] = (
    (r"norm", "norm"),
    (r"^(token_embd|token_types|position_embd|per_layer_token_embd)\.|nextn\.embed_tokens", "embedding"),
    (r"^output\.|nextn\.shared_head_head", "output"),
    (r"ffn_gate_inp|exp_probs_b", "router"),
    (r"_shexp\.", "shared experts"),
    (r"_exps\.|ffn_(gate|up|down)\.\d+\.", "routed experts"),
    (r"\.attn_|\.ssm_|\.indexer", "attention"),
    (r"\.ffn_", "dense ffn"),
)
ROLES: tuple[Role, ...] = (
    "embedding", "attention", "dense ffn", "shared experts", "routed experts", "router", "norm", "output", "other"
)  # fmt: skip


def role_of(name: str) -> Role:
    """The role of the tensor called `name`; "other" for names unknown here."""
    return next((role for pattern, role in _RULES if re.search(pattern, name)), "other")
