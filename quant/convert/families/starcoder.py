"""StarCoder 2: norms and matrices with biases, a network without a gate."""

from __future__ import annotations

from quant.convert.blocks import EMBEDDING, OUTPUT, attention, linear
from quant.convert.family import Family, blk, row

STARCODER2 = Family(
    "starcoder2",
    classes=("Starcoder2ForCausalLM",),
    # configuration_starcoder2.py of transformers 4.57
    defaults={
        "norm_epsilon": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 4096,
        "num_key_value_heads": 2,
        "use_bias": True,
        "tie_word_embeddings": True,
    },
    tensors=(
        *EMBEDDING,
        *(
            blk(f"{to}.{kind}", f"{of}.{kind}", "hidden")
            for to, of in (("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm"))
            for kind in ("weight", "bias")
        ),
        *attention(bias="use_bias", output_bias="use_bias"),
        *linear("ffn_up", "mlp.c_fc", "ffn", "hidden", bias="use_bias"),
        *linear("ffn_down", "mlp.c_proj", "hidden", "ffn", bias="use_bias"),
        *OUTPUT,
        row("output_norm.bias", "model.norm.bias", "hidden"),
    ),
)

FAMILIES = (STARCODER2,)
