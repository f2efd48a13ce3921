"""Tiny models that say what a test dictates, through the real engine.

A model of one layer whose attention and feed-forward network add nothing: the embedding of a token is one-hot, and the
row of the head says which token follows it. So a reply is a chain of tokens that begins behind the last token of the
prompt. It has bytes as tokens for everything else, and special tokens as a real vocabulary has them.

`KINDS` has chat templates as families of 2025 and 2026 write them, in words of our own, with a reply of each.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dsr.models.catalog import CatalogEntry
from tests.gguf_writer import T, gguf

_WIDTH, _HEADS, _FEED, _CONTEXT = 320, 4, 32, 4096
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6

THOUGHT, ANSWER = "First I add.", "Four."
_THINKS = ("First", "▁I", "▁add.")

_CHATML = """
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.role == "assistant" and message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}{{ message.content }}<|im_end|>
{% endfor -%}
"""
_SWITCHED = (
    _CHATML
    + """{%- if add_generation_prompt -%}
<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% else %}<think>
{% endif %}{% endif -%}
"""
)
_LEVELS = (
    """{%- set depth = reasoning_effort if reasoning_effort is defined else "high" -%}
{%- if depth not in ["low", "medium", "high"] %}{{ raise_exception("no such depth: " + depth) }}{% endif -%}
<|im_start|>system
Depth of thought: {{ depth }}<|im_end|>
"""
    + _SWITCHED
)
_CHANNELS = """
{%- if enable_thinking is defined and enable_thinking -%}
<|turn>system
<|think|><turn|>
{% endif -%}
{%- for message in messages -%}
<|turn>{{ "model" if message.role == "assistant" else message.role }}
{% if message.role == "assistant" and message.reasoning_content %}<|channel>thought
{{ message.reasoning_content }}
<channel|>{% endif %}{{ message.content }}<turn|>
{% endfor -%}
{%- if add_generation_prompt %}<|turn>model
{% endif -%}
"""
_HARMONY = """<|start|>system<|message|>Reasoning: {{ reasoning_effort if reasoning_effort is defined else "medium" }}

# Valid channels: analysis, commentary, final.<|end|>
{%- for message in messages -%}
{%- if message.role == "assistant" -%}
{%- if message.thinking %}<|start|>assistant<|channel|>analysis<|message|>{{ message.thinking }}<|end|>{% endif -%}
<|start|>assistant<|channel|>final<|message|>{{ message.content }}<|end|>
{%- else -%}
<|start|>{{ message.role }}<|message|>{{ message.content }}<|end|>
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<|start|>assistant{% endif -%}
"""
_OPENED_BY_MODEL = _CHATML + "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif -%}\n"


@dataclass(frozen=True)
class Kind:
    """How a family talks: its template, special tokens, the reply as text, and as a chain of tokens behind `after`."""

    template: str
    special: tuple[str, ...]
    reply: str
    after: str
    chain: tuple[str, ...]
    thinks: bool = True
    end: str = "<|im_end|>"

    def model(self, **metadata: object) -> bytes:
        """The bytes of a GGUF file that replies as told."""
        return talking(self.template, self.special, self.after, self.chain, self.end, metadata)


_MARKS = ("<|im_start|>", "<|im_end|>", "<think>", "</think>")
_TURNS = ("<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>")
_HARMONY_MARKS = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>")
_CLOSED = (*_THINKS, "</think>", "\n\n", ANSWER, "<|im_end|>")

KINDS: Mapping[str, Kind] = {
    "switched": Kind(_SWITCHED, _MARKS, f"{THOUGHT}\n</think>\n\n{ANSWER}", "\n", _CLOSED),
    "levels": Kind(_LEVELS, _MARKS, f"{THOUGHT}\n</think>\n\n{ANSWER}", "\n", _CLOSED),
    "opened by the model": Kind(
        _OPENED_BY_MODEL, _MARKS, f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}", "\n", ("<think>", *_CLOSED)
    ),
    "channels": Kind(
        _CHANNELS, _TURNS, f"<|channel>thought\n{THOUGHT}\n<channel|>{ANSWER}", "\n",
        ("<|channel>", "thought\n", *_THINKS, "<channel|>", ANSWER, "<turn|>"), end="<turn|>",
    ),
    # A chain has no memory, so it cannot say two different words behind two equal marks: it only answers.
    "harmony": Kind(
        _HARMONY, _HARMONY_MARKS,
        f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}", "t",
        ("<|channel|>", "final", "<|message|>", ANSWER, "<|return|>"), end="<|return|>",
    ),
    "no thought": Kind(
        _OPENED_BY_MODEL, _MARKS[:2], ANSWER, "\n", (ANSWER, "<|im_end|>"), thinks=False
    ),
}  # fmt: skip


def talking(
    template: str,
    special: Sequence[str],
    after: str,
    chain: Sequence[str],
    end: str,
    metadata: Mapping[str, object],
    *,
    more: Mapping[str, Sequence[str]] | None = None,
) -> bytes:
    """A GGUF file whose reply is `chain` behind the byte or token `after`; `end` ends it. `more` are further chains."""
    chains = {after: chain, **(more or {})}
    words = [word for each in chains.values() for word in each]
    tokens = ["<unk>", *special, *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [_UNKNOWN, *[_CONTROL] * len(special), *[_BYTE] * 256]
    for word in words:
        if word not in tokens:
            tokens.append(word)
            kinds.append(_NORMAL)
    assert len(tokens) <= _WIDTH
    follows = {
        _id(tokens, a): _id(tokens, b)
        for begin, each in chains.items()
        for a, b in zip((begin, *each), each, strict=False)
    }
    about = {
        "general.architecture": "llama", "general.type": "model", "general.name": "Talking",
        "llama.block_count": 1, "llama.context_length": _CONTEXT, "llama.embedding_length": _WIDTH,
        "llama.feed_forward_length": _FEED, "llama.attention.head_count": _HEADS,
        "llama.attention.head_count_kv": _HEADS, "llama.attention.layer_norm_rms_epsilon": 1e-6,
        "llama.rope.dimension_count": _WIDTH // _HEADS, "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * len(tokens), "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.eos_token_id": tokens.index(end),
        "tokenizer.ggml.bos_token_id": tokens.index(special[0]), "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_space_prefix": False, "tokenizer.chat_template": template,
        **metadata,
    }  # fmt: skip
    return gguf(about, _tensors(len(tokens), follows))


def _id(tokens: Sequence[str], text: str) -> int:
    return tokens.index(text) if text in tokens else tokens.index(f"<0x{ord(text):02X}>")


def _tensors(count: int, follows: Mapping[int, int]) -> list[T]:
    head = {(successor, token): 1.0 for token, successor in follows.items()}
    embedding = {(token, token): 1.0 for token in range(count)}
    ones, zero = [1.0] * _WIDTH, b""

    def plain(name: str, *shape: int) -> T:
        size = 4
        for length in shape:
            size *= length
        return T(name, shape, data=zero.ljust(size, b"\0"))

    def norm(name: str) -> T:
        return T(name, (_WIDTH,), data=struct.pack(f"<{_WIDTH}f", *ones))

    return [
        _matrix("token_embd.weight", count, embedding), norm("output_norm.weight"),
        _matrix("output.weight", count, head), norm("blk.0.attn_norm.weight"),
        *(plain(f"blk.0.attn_{each}.weight", _WIDTH, _WIDTH) for each in ("q", "k", "v", "output")),
        norm("blk.0.ffn_norm.weight"), plain("blk.0.ffn_gate.weight", _WIDTH, _FEED),
        plain("blk.0.ffn_up.weight", _WIDTH, _FEED), plain("blk.0.ffn_down.weight", _FEED, _WIDTH),
    ]  # fmt: skip


def _matrix(name: str, rows: int, cells: Mapping[tuple[int, int], float]) -> T:
    data = bytearray(4 * rows * _WIDTH)
    for (row, column), number in cells.items():
        struct.pack_into("<f", data, 4 * (row * _WIDTH + column), number)
    return T(name, (_WIDTH, rows), data=bytes(data))


def kind_of(entry: CatalogEntry) -> Kind:
    """The kind of a model of the catalogue, by its family."""
    if entry.thinking == "none":
        return KINDS["no thought"]
    families = {"gemma4": "channels", "gpt-oss": "harmony", "qwen3.8": "levels", "lfm2.5": "opened by the model"}
    return KINDS[families.get(entry.family, "switched")]
