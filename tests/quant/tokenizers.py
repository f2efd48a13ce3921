"""Tiny checkpoints that are a tokenizer and a config.json alone, one for each form of a vocabulary."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.quant import tiny

SIZE = 300
WORDS = (b"th", b"the", b" t", b" the", b"in", b" in", "é".encode(), "日".encode()[:2], "日".encode())


def ranks() -> list[bytes]:
    return [*(bytes([byte]) for byte in range(256)), *WORDS]


def save(folder: Path, config: dict[str, Any], **files: Any) -> Path:
    """config.json, and files by name, with "__" for ".": objects are written as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"vocab_size": SIZE} | config))
    for name, content in files.items():
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / name.replace("__", ".")).write_bytes(raw)
    return folder


def tiktoken_file() -> bytes:
    """Of one token no merge is known, and so of another that holds it."""
    tokens = (b"xyz" if token == b"in" else token for token in ranks())
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))


def kimi(folder: Path) -> None:
    """Kimi's: tokens beyond the ranks have names in the configuration, or none."""
    decoder = {"265": {"content": "[BOS]", "special": True}, "266": {"content": "[EOS]", "special": True}}
    decoder |= {"268": {"content": "<|im_end|>", "special": True}}
    settings = {"tokenizer_class": "TikTokenTokenizer", "added_tokens_decoder": decoder, "eos_token": "[EOS]"}
    save(
        folder,
        {"architectures": ["DeepseekV3ForCausalLM"], "bos_token_id": 265, "eos_token_id": 268},
        tiktoken__model=tiktoken_file(),
        tokenizer_config__json=settings | {"chat_template": tiny.TEMPLATE},
    )


def kimi_linear(folder: Path) -> None:
    """The same with a class that takes the tokenizer's end token."""
    kimi(folder)
    config = {"architectures": ["KimiLinearForCausalLM"], "vocab_size": SIZE, "bos_token_id": 265, "eos_token_id": 268}
    (folder / "config.json").write_text(json.dumps(config))


def hunyuan(folder: Path) -> None:
    lines = tiktoken_file().splitlines(keepends=True)
    save(
        folder,
        {"architectures": ["HunYuanMoEV1ForCausalLM"], "vocab_size": 475, "eos_token_id": 268},
        hy__tiktoken=b"".join([*lines[:100], lines[3], *lines[100:]]),  # one token twice
        tokenizer_config__json={"tokenizer_class": "HYTokenizer"},
    )


def tekken(folder: Path) -> None:
    """Mistral's: 24 special tokens, of which 20 have names, before 265 others; one more than is used."""
    vocabulary = [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
        for rank, token in enumerate([*ranks(), b"unused"])
    ]
    special = [
        {"rank": rank, "token_str": text, "is_control": True}
        for rank, text in enumerate(
            ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
             "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]",
             "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"]
        )
    ]  # fmt: skip
    config = {"pattern": r"\p{L}+|\s+", "num_vocab_tokens": 266, "default_vocab_size": 289}
    config |= {"default_num_special_tokens": 24, "version": "v7"}
    save(
        folder,
        {"architectures": ["MistralForCausalLM"], "vocab_size": 289},
        tekken__json={"config": config, "vocab": vocabulary, "special_tokens": special, "version": 1, "type": "Tekken"},
    )


def rwkv_vocabulary(folder: Path) -> None:
    """Write the vocabulary file of RWKV: 256 bytes and a few words, some of which have to be escaped."""
    tokens: list[str | bytes] = [bytes([byte]) if byte > 127 else chr(byte) for byte in range(256)]
    tokens += ["\n\n", "the", " the", "é", "'\"", "\u2028", "\x85"]
    lines = [
        f"{number} {token!r} {len(token.encode() if isinstance(token, str) else token)}\n"
        for number, token in enumerate(tokens, 1)
    ]
    (folder / "rwkv_vocab_v20230424.txt").write_bytes("".join(lines).encode())


def rwkv(folder: Path) -> None:
    save(
        folder,
        {"architectures": ["Rwkv7ForCausalLM"], "bos_token_id": 1, "eos_token_id": 2},
        tokenizer_config__json={"chat_template": tiny.TEMPLATE},
    )
    rwkv_vocabulary(folder)


def fallback_tokenizer(prepend: bool = True) -> dict[str, Any]:
    """A tokenizer.json with byte fallback, as SentencePiece's kind of BPE becomes: scores are the order of merges."""
    special = ["<unk>", "<s>", "</s>"]
    vocabulary = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *"▁thein", "th", "▁th", "▁the", "he", "in"]
    merges = [["▁t", "h"], ["t", "h"], ["h", "e"], ["▁", "th"], ["▁th", "e"], ["i", "n"]]
    added = [
        *((number, text, True) for number, text in enumerate(special)),
        (270, "<|im_end|>", True),
        (271, "<tool>", False),
    ]
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    steps = [{"type": "Prepend", "prepend": "▁"}, replaced] if prepend else [replaced]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": text, "special": flag, **plain} for number, text, flag in added],
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {text: number for number, text in enumerate(vocabulary)},
            "merges": [pair for pair in merges if pair[0] in vocabulary],
        },
    }


_NAMED = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def llama_fallback(folder: Path) -> None:
    save(
        folder,
        {"architectures": ["LlamaForCausalLM"], "vocab_size": 272},
        tokenizer__json=fallback_tokenizer(),
        tokenizer_config__json={"tokenizer_class": "PreTrainedTokenizerFast", **_NAMED},
    )


def gemma_4(folder: Path) -> None:
    """Gemma 4's: no space before a text, tokens whose type is set by name, and one that only a name marks."""
    described = fallback_tokenizer(prepend=False)
    described["model"]["vocab"] |= {"<|channel>": 270, "<|tool>": 271, "<mask>": 272}
    described["added_tokens"] = [
        *described["added_tokens"][:3],
        *({**described["added_tokens"][0], "id": 270 + at, "content": text}
          for at, text in enumerate(("<|channel>", "<|tool>", "<mask>"))),
    ]  # fmt: skip
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **_NAMED, "mask_token": "<mask>"}
    save(
        folder,
        {"architectures": ["Gemma4ForConditionalGeneration"], "vocab_size": 273},
        tokenizer__json=described,
        tokenizer_config__json=settings | {"extra_special_tokens": {"x_token": "<|channel>", "y_token": "<|tool>"}},
        chat_template__jinja=tiny.TEMPLATE.encode(),
    )


def gemma_3(folder: Path) -> None:
    save(
        folder,
        {"architectures": ["Gemma3ForCausalLM"], "vocab_size": 272},
        tokenizer__model=tiny.sentencepiece_model(("▁the", "▁a", "in", "▁user")),
        tokenizer_config__json={"tokenizer_class": "GemmaTokenizer", "add_bos_token": True},
    )


def phi_3(folder: Path) -> None:
    """Phi 3's: tokenizer.json adds tokens too, and none becomes a control token by its look."""
    plain = {"single_word": False, "lstrip": False, "rstrip": True, "normalized": False}
    added = [
        {"id": 2, "content": "</s>", "special": False, **plain},
        {"id": 266, "content": "<|end|>", "special": False, **plain},
    ]
    decoder = {"264": {"content": "<|endoftext|>", "special": True, **plain}}
    save(
        folder,
        {"architectures": ["Phi3ForCausalLM"], "vocab_size": 272, "eos_token_id": 264},
        tokenizer__model=tiny.sentencepiece_model(("▁the", "▁a", "in", "▁user")),
        tokenizer__json=fallback_tokenizer() | {"added_tokens": added},
        tokenizer_config__json={"tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": decoder},
    )


def _byte_level(name: str, added: tuple[tuple[str, bool], ...], **config: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        save(
            folder,
            {"architectures": [name], "vocab_size": 280, **config},
            tokenizer__json=tiny.byte_level_tokenizer([tiny.byte_level(True)], added=added),
            tokenizer_config__json={"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "A"},
            chat_template__jinja=b"B",
        )

    return make


_GLM = (("[gMASK]", True), ("<|user|>", True), ("<|endoftext|>", True), ("<|observation|>", True))
FORMS: dict[str, Callable[[Path], None]] = {
    "kimi": kimi,
    "kimi_linear": kimi_linear,
    "hunyuan": hunyuan,
    "tekken": tekken,
    "rwkv": rwkv,
    "gemma_4": gemma_4,
    "gemma_3": gemma_3,
    "phi_3": phi_3,
    "glm": _byte_level("Glm4MoeForCausalLM", _GLM, eos_token_id=[263, 262], pad_token_id=263),
    "glm_4": _byte_level("Glm4ForCausalLM", _GLM, eos_token_id=263),
    "laguna": _byte_level("LagunaForCausalLM", (("</assistant>", False),), eos_token_id=[2, 261], bos_token_id=2),
    "solar": _byte_level("SolarOpenForCausalLM", (("<|endoftext|>", True), ("<unk>", True), ("<|startoftext|>", True))),
    "hunyuan_dense": _byte_level("HunYuanDenseV1ForCausalLM", _GLM, eod_token_id=262, eos_token_id=263, hidden_size=64),
}
