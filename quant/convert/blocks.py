"""Parts that the decoder architectures share: embeddings, grouped-query attention, gated feed-forward network."""

from __future__ import annotations

from quant.convert.layout import Layout


def embedding(layout: Layout) -> None:
    config = layout.config
    layout.plain("model.embed_tokens.weight", config.vocabulary, config.hidden)


def output(layout: Layout, *, keep_tied: bool = True) -> None:
    """The last norm and the output matrix. Tied embeddings need no matrix of their own; where a checkpoint has one
    all the same it is kept, as llama.cpp's converter does, but for architectures that drop it."""
    config = layout.config
    tied = config.flag("tie_word_embeddings")
    if not tied or keep_tied:
        layout.plain("lm_head.weight", config.vocabulary, config.hidden, optional=tied)
    layout.plain("model.norm.weight", config.hidden)


def norms(layout: Layout, layer: str) -> None:
    layout.plain(f"{layer}.input_layernorm.weight", layout.config.hidden)
    layout.plain(f"{layer}.post_attention_layernorm.weight", layout.config.hidden)


def attention(
    layout: Layout, layer: str, *, in_pairs: bool, qkv_bias: bool = False, output_bias: bool = False, norm: bool = False
) -> None:
    """Grouped-query attention. `in_pairs`: the engine rotates pairs of neighbours, so queries and keys are reordered;
    `norm`: queries and keys are normalised per head."""
    config = layout.config
    length, heads, kv_heads = config.head_length, config.heads, config.kv_heads
    if heads % kv_heads:
        raise config.bad(f"{heads} attention heads cannot share {kv_heads} key-value heads evenly")
    for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
        source = f"{layer}.self_attn.{name}_proj"
        shapes = {"weight": (count * length, config.hidden)} | ({"bias": (count * length,)} if qkv_bias else {})
        for kind, shape in shapes.items():
            if in_pairs and name != "v":
                layout.rotary(f"{source}.{kind}", count, *shape)
            else:
                layout.plain(f"{source}.{kind}", *shape)
        if norm and name != "v":
            layout.plain(f"{layer}.self_attn.{name}_norm.weight", length)
    layout.plain(f"{layer}.self_attn.o_proj.weight", config.hidden, heads * length)
    if output_bias:
        layout.plain(f"{layer}.self_attn.o_proj.bias", config.hidden)


def feed_forward(layout: Layout, prefix: str, width: int, *, bias: bool = False) -> None:
    """gate, up and down projection with an inner width of `width`."""
    hidden = layout.config.hidden
    for name, rows, columns in (("gate", width, hidden), ("up", width, hidden), ("down", hidden, width)):
        layout.plain(f"{prefix}.{name}_proj.weight", rows, columns)
        if bias:
            layout.plain(f"{prefix}.{name}_proj.bias", rows)


def experts(layout: Layout, prefix: str, count: int, width: int) -> None:
    """The routed experts `prefix`.0 and on, stacked in the order in which llama.cpp's converter writes them."""
    hidden = layout.config.hidden
    layout.stacks(
        (
            f"{prefix}.{name}_proj.weight",
            [f"{prefix}.{number}.{name}_proj.weight" for number in range(count)],
            *((hidden, width) if name == "down" else (width, hidden)),
        )
        for name in ("down", "gate", "up")
    )
