"""Tokenizers of checkpoints: which way to cut words is recognised, and what becomes of odd or broken files."""

from __future__ import annotations

import json
import struct
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.convert import pretokenizer, tokenizer
from quant.convert.pretokenizer_hashes import HASHES
from quant.convert.sentencepiece import Piece, read_pieces
from quant.convert.splitting import Splitter, around, encode
from quant.gguf.writer import KeyValue
from quant.sources.checkpoint import open_checkpoint
from runtime.base.errors import BadModelFile, DsrError, Incompatible, NotFound, UsageError
from runtime.gguf.engine_lists import PRE_TOKENIZERS
from tests.quant import tiny
from tests.quant.entries import numbers, texts

PATH = Path("tokenizer.json")
REMOVED = {"type": "Split", "pattern": {"Regex": tiny.LLAMA_3}, "behavior": "Removed", "invert": True}
LETTERS = tiny.split("\\s?[A-Za-zµÀ-ÖØ-öø-ƺͰ-ͳΆ-ϿЀ-ҁҊ-ԯ𞤀-𞥃]+")
DEEPSEEK_LLM = [
    tiny.split("[\r\n]"),
    LETTERS,
    tiny.split("\\s?[!-/:-~！-／：-～‘-‟　-。]+"),
    tiny.split("\\s+$"),
    tiny.split("[一-龥ࠀ-一가-퟿]+"),
    tiny.DIGITS,
    tiny.byte_level(),
]


def folder_with(
    path: Path,
    tokenizer: dict[str, Any] | None,
    config: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
) -> Path:
    (path / "config.json").write_text(json.dumps({"architectures": ["Qwen2ForCausalLM"]} | (model or {})))
    if tokenizer is not None:
        (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    if config is not None:
        (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


def entries(folder: Path, size: int = 272, pre: str | None = None) -> dict[str, KeyValue]:
    found = tokenizer.read(open_checkpoint(folder), size, pre=pre)
    assert len({entry.key for entry in found}) == len(found)
    return {entry.key: entry for entry in found}


def text(entry: KeyValue) -> str:
    return entry.encoded[12:].decode()


def number(entry: KeyValue) -> int:
    return int.from_bytes(entry.encoded[4:], "little")


@pytest.mark.parametrize(
    ("chain", "name"),
    [
        ([tiny.split(tiny.LLAMA_3), tiny.byte_level()], "llama-bpe"),
        ([REMOVED, tiny.byte_level()], "smaug-bpe"),
        ([tiny.split(tiny.QWEN_2), tiny.byte_level()], "qwen2"),
        ([*map(tiny.split, tiny.DEEPSEEK_3), tiny.byte_level()], "deepseek-v3"),
        ([tiny.split(each.replace("\r", "\\r").replace("\n", "\\n")) for each in tiny.DEEPSEEK_3], None),
        (
            [
                *(tiny.split(each.replace("\r", "\\r").replace("\n", "\\n")) for each in tiny.DEEPSEEK_3),
                tiny.byte_level(),
            ],
            "deepseek-v3",
        ),
        (DEEPSEEK_LLM, "deepseek-llm"),
        ([*map(tiny.split, tiny.DEEPSEEK_CODER), tiny.DIGITS, tiny.byte_level()], "deepseek-coder"),
        ([tiny.DIGITS, tiny.byte_level(True)], "smollm"),
        ([tiny.byte_level(True)], "gpt-2"),
        ([tiny.split(tiny.LLAMA_3)], None),
        ([tiny.split(tiny.LLAMA_3 + "|x"), tiny.byte_level()], "smaug-bpe"),  # nothing is left for the x
        ([tiny.split(" |" + tiny.LLAMA_3), tiny.byte_level()], None),
        (
            [
                tiny.split(tiny.LLAMA_3.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'(?i:[stmd]|re|ve|ll)")),
                tiny.byte_level(),
            ],
            "smaug-bpe",
        ),
        ([tiny.split("(" * 60 + "a" + ")" * 60), tiny.byte_level()], None),
        ([tiny.split("(?:(?:a?)+)+b"), tiny.byte_level()], None),
        ([tiny.split("a" * 9000), tiny.byte_level()], None),
        ([tiny.byte_level()], None),
        ([tiny.byte_level(True) | {"add_prefix_space": True}], None),
        ([{"type": "Digits", "individual_digits": False}, tiny.byte_level(True)], None),
        ([{"type": "Whitespace"}], None),
        ([], None),
    ],
)
def test_the_way_to_cut_words_is_recognised_by_its_expressions(chain: list[dict[str, Any]], name: str | None) -> None:
    described = tiny.byte_level_tokenizer(chain)
    if name is not None:
        assert pretokenizer.recognise(described, PATH) == name
        return
    with pytest.raises(Incompatible, match="its pre-tokenizer is not recognised"):
        pretokenizer.recognise(described, PATH)


def test_one_step_needs_no_sequence() -> None:
    described = tiny.byte_level_tokenizer([]) | {"pre_tokenizer": tiny.byte_level(True)}
    assert pretokenizer.recognise(described, PATH) == "gpt-2"


def test_distilled_qwen_is_told_by_the_token_before_every_text() -> None:
    bos = "<｜begin▁of▁sentence｜>"
    chain = [tiny.split(tiny.QWEN_2), tiny.byte_level()]
    assert pretokenizer.recognise(tiny.byte_level_tokenizer(chain, bos, ((bos, True),)), PATH) == "deepseek-r1-qwen"


@pytest.mark.parametrize(
    ("normalizer", "recognised"),
    [
        ({"type": "NFC"}, True),
        ({"type": "Sequence", "normalizers": []}, True),
        ({"type": "Sequence", "normalizers": [{"type": "NFC"}]}, True),
        ({"type": "Lowercase"}, False),
        ({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}, False),
    ],
)
def test_what_changes_the_text_before_matters_too(normalizer: dict[str, Any], recognised: bool) -> None:
    described = tiny.byte_level_tokenizer([tiny.byte_level(True)]) | {"normalizer": normalizer}
    if recognised:
        assert pretokenizer.recognise(described, PATH) == "gpt-2"
        return
    with pytest.raises(Incompatible, match="Lowercase"):
        pretokenizer.recognise(described, PATH)


def test_an_unknown_way_says_what_was_seen_and_that_pre_decides(tmp_path: Path) -> None:
    chain = [tiny.split("[a-z]+"), {"type": "Punctuation"}, tiny.byte_level()]
    folder = folder_with(tmp_path, tiny.byte_level_tokenizer(chain))
    with pytest.raises(Incompatible) as caught:
        entries(folder)
    seen = "its pre-tokenizer is not recognised: Split([a-z]+) + Punctuation + ByteLevel"
    assert caught.value.message == f"{folder / 'tokenizer.json'}: {seen}"
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("give its name with --pre NAME, for example llama-bpe")
    assert text(entries(folder, pre="falcon3")["tokenizer.ggml.pre"]) == "falcon3"


def test_a_name_that_the_engine_does_not_know_is_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, tiny.byte_level_tokenizer([tiny.byte_level(True)]))
    with pytest.raises(UsageError, match="--pre lama: no such pre-tokenizer"):
        entries(folder, pre="lama")


def test_every_name_that_can_be_recognised_is_one_the_engine_knows() -> None:
    names = [name for family in pretokenizer._FAMILIES for name in family.names]
    assert set(names) | {family.whole for family in pretokenizer._FAMILIES} - {""} <= PRE_TOKENIZERS
    assert set(HASHES.values()) <= PRE_TOKENIZERS
    assert len(names) == len(set(names))
    hashed = set(HASHES.values()) - set(names)  # of these only a vocabulary tells
    assert PRE_TOKENIZERS - set(names) - hashed == {"default", "whitespace"}


def test_no_two_families_cut_the_texts_alike() -> None:
    pieces = [pretokenizer._pieces(family) for family in pretokenizer._FAMILIES]
    assert len(set(pieces)) == len(pieces)


def test_a_known_vocabulary_is_told_by_the_hash_of_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that cut alike have flags of their own in the engine. A hash of another way to cut words does not count."""
    described = tiny.byte_level_tokenizer([tiny.split(tiny.QWEN_2), tiny.byte_level()])
    splitter = Splitter(None, described["pre_tokenizer"])
    key = sha256(str(encode(described, splitter, pretokenizer.TEXT)).encode()).hexdigest()[:32]
    monkeypatch.setitem(HASHES, key, "hunyuan")
    assert pretokenizer.recognise(described, PATH) == "hunyuan"
    monkeypatch.setitem(HASHES, key, "llama-bpe")
    assert pretokenizer.recognise(described, PATH) == "qwen2"
    monkeypatch.setitem(HASHES, key, "superbpe")
    assert pretokenizer.recognise(described, PATH) == "qwen2"


def test_tokens_are_merged_by_rank_around_added_ones() -> None:
    described = tiny.byte_level_tokenizer([tiny.byte_level(True)], "<|begin|>", tiny.SPECIAL)
    splitter = Splitter(None, described["pre_tokenizer"])
    vocabulary = described["model"]["vocab"]
    assert encode(described, splitter, "in<think> the") == [vocabulary["in"], 263, vocabulary["Ġthe"]]
    assert around(described) == ([261], [])


def test_vocabulary_types_and_merges(tmp_path: Path) -> None:
    """256 bytes, five merges, added tokens of each kind, and a place that nothing fills."""
    added = (("<|sys|>", False), ("<bos>", True), ("<think>", False), ("▁▁", False))
    described = tiny.byte_level_tokenizer([tiny.byte_level(True)], added=added)
    found = entries(folder_with(tmp_path, described, {"pad_token": "in", "add_bos_token": True}), size=266)
    tokens, types = texts(found["tokenizer.ggml.tokens"]), numbers(found["tokenizer.ggml.token_type"])
    assert tokens[256:] == ["th", "the", "Ġthe", "in", "Ġa", "<|sys|>", "<bos>", "<think>", "  ", "[PAD265]"]
    assert types[256:] == [1, 1, 1, 3, 1, 3, 3, 4, 4, 5]  # "in" is named as padding, "<|sys|>" looks like control
    assert texts(found["tokenizer.ggml.merges"]) == ["t h", "th e", "Ġ the", "i n", "Ġ a"]
    assert number(found["tokenizer.ggml.add_bos_token"]) == 0  # the post-processor adds nothing, and it decides


def test_merges_may_be_texts_and_hold_spaces(tmp_path: Path) -> None:
    described = tiny.byte_level_tokenizer([tiny.byte_level(True)])
    described["model"]["merges"] = ["t h", ["th", " e"]]
    found = entries(folder_with(tmp_path, described))
    assert texts(found["tokenizer.ggml.merges"]) == ["t h", "th Ġe"]


def test_special_tokens_come_from_three_files(tmp_path: Path) -> None:
    described = tiny.byte_level_tokenizer([tiny.byte_level(True)], added=tiny.SPECIAL)
    config = {"eos_token": {"content": "<|end|>"}, "unk_token": "missing"}
    model = {"bos_token_id": 5, "eos_token_id": [1, 2], "pad_token_id": -1}
    found = entries(folder_with(tmp_path, described, config, model))
    ids = {key: number(entry) for key, entry in found.items() if key.endswith("_token_id")}
    assert ids == {"tokenizer.ggml.eos_token_id": 262, "tokenizer.ggml.bos_token_id": 5}


@pytest.mark.parametrize(
    ("config", "file", "expected"),
    [
        ({"chat_template": "A"}, "B", {"tokenizer.chat_template": "A"}),
        ({"model_max_length": 1}, "B", {"tokenizer.chat_template": "B"}),
        ({"model_max_length": 1}, None, {}),
        (
            {"chat_template": [{"name": "default", "template": "A"}, {"name": "tool use", "template": "T"}, 7]},
            None,
            {"tokenizer.chat_template": "A", "tokenizer.chat_template.tool_use": "T"},
        ),
    ],
)
def test_chat_templates(tmp_path: Path, config: dict[str, Any], file: str | None, expected: dict[str, str]) -> None:
    folder = folder_with(tmp_path, tiny.byte_level_tokenizer([tiny.byte_level(True)]), config)
    if file is not None:
        (folder / "chat_template.jinja").write_text(file)
    found = {key: entry for key, entry in entries(folder).items() if key.startswith("tokenizer.chat_template")}
    names = found.pop("tokenizer.chat_templates", None)
    assert {key: text(entry) for key, entry in found.items()} == expected
    assert (names is None) == (len(expected) < 2)


@pytest.mark.parametrize(
    ("change", "error", "problem"),
    [
        ({"model": None}, BadModelFile, "has no vocabulary"),
        ({"model": {"type": "WordPiece", "vocab": {"a": 0}}}, Incompatible, "of the kind 'WordPiece'; only BPE"),
        ({"model": {"type": "Unigram", "vocab": [["a", 0]]}}, Incompatible, "of the kind 'Unigram'; only BPE"),
        ({"model": {"type": "BPE", "vocab": {"a": -1}}}, BadModelFile, "the token 'a' has no valid number"),
        ({"model": {"type": "BPE", "vocab": {"a": "1"}}}, BadModelFile, "the token 'a' has no valid number"),
        (
            {"model": {"type": "BPE", "vocab": {"a": 272}}},
            BadModelFile,
            r"has a token 272, but config\.json says vocab_size 272",
        ),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [7]}}, BadModelFile, "a merge is not two texts"),
        ({"added_tokens": [{"id": 3}]}, BadModelFile, "an added token has no text"),
        ({"pre_tokenizer": 7}, BadModelFile, "its pre_tokenizer is not a JSON object"),
    ],
)
def test_broken_tokenizers_are_refused_in_one_line(
    tmp_path: Path, change: dict[str, Any], error: type[DsrError], problem: str
) -> None:
    described = tiny.byte_level_tokenizer([tiny.byte_level(True)]) | change
    with pytest.raises(error, match=problem) as caught:
        entries(folder_with(tmp_path, described))
    assert "\n" not in caught.value.message


def test_weights_without_tokenizer_are_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"there is no tokenizer\.json"):
        entries(folder_with(tmp_path, None))


def test_lone_surrogates_do_no_harm(tmp_path: Path) -> None:
    described = tiny.byte_level_tokenizer([tiny.byte_level(True)])
    described["model"]["vocab"]["\ud800"] = 265
    assert texts(entries(folder_with(tmp_path, described))["tokenizer.ggml.tokens"])[265] == "?"


def test_smollm_never_gets_a_token_before_its_texts(tmp_path: Path) -> None:
    described = tiny.byte_level_tokenizer([tiny.DIGITS, tiny.byte_level(True)], "<|begin|>", tiny.SPECIAL)
    folder = folder_with(tmp_path, described, {}, {"architectures": ["LlamaForCausalLM"]})
    assert number(entries(folder)["tokenizer.ggml.add_bos_token"]) == 1
    assert number(entries(folder, size=49152)["tokenizer.ggml.add_bos_token"]) == 0


def test_pieces_of_a_sentencepiece_model() -> None:
    pieces = read_pieces(tiny.sentencepiece_model(("▁the", "▁a", "<x>")), PATH)
    assert len(pieces) == 262
    assert pieces[:3] == (Piece(b"<unk>", 0.0, 2), Piece(b"<s>", 0.0, 3), Piece(b"</s>", 0.0, 3))
    assert pieces[3 + 10] == Piece(b"<0x0A>", 0.0, 6)
    assert pieces[-2:] == (Piece("▁a".encode(), -1.0, 1), Piece(b"<x>", 0.0, 4))


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "it has no pieces"),
        (b"\x0a", "ends in the middle of a field"),
        (b"\x0a\x7f", "ends in the middle of a field"),
        (b"\x0a\x03\x15\0\0", "ends in the middle of a field"),
        (b"\x0b", "a field of the unknown kind 3"),
        (b"\xff" * 11, "an integer of more than ten bytes"),
        (b"\x0a\x02\x18\x09", "a piece has no proper score or type"),
        (b"\x0a\x05\x15" + struct.pack("<f", float("nan")), "a piece has no proper score or type"),
        (b"\x0a\x03\x0a\x01\xff", "not a SentencePiece model"),
    ],
)
def test_broken_sentencepiece_models_are_refused(raw: bytes, problem: str) -> None:
    with pytest.raises(BadModelFile, match=problem):
        read_pieces(raw, PATH)


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, 3000), replacement=st.binary(max_size=4), cut=st.booleans())
def test_damaged_sentencepiece_models_never_do_more_than_raise_our_errors(
    at: int, replacement: bytes, cut: bool
) -> None:
    raw = tiny.sentencepiece_model(("▁the", "▁a", "<x>"))
    raw = raw[:at] + replacement + (b"" if cut else raw[at + len(replacement) :])
    try:
        assert read_pieces(raw, PATH)
    except DsrError as error:
        assert "\n" not in error.message
