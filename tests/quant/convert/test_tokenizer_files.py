"""A tokenizer is chosen by what its files hold, and each file that cannot be read is named with the reason."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.convert import tokenizer
from quant.convert.tokenizer_files import find_tokenizer, is_there
from quant.gguf.writer import KeyValue
from quant.sources.checkpoint import open_checkpoint
from runtime.base.errors import BadModelFile, DsrError, Incompatible, NotFound
from tests.quant import tiny

TIKTOKEN = b"".join(base64.b64encode(bytes([byte])) + b" %d\n" % byte for byte in range(256))
SENTENCEPIECE = tiny.sentencepiece_model(("▁the", "▁a", "<x>"))
BYTES = tiny.byte_level_tokenizer([tiny.byte_level(True)], added=tiny.SPECIAL)
FALLBACK = {"model": {"type": "BPE", "byte_fallback": True, "vocab": {"a": 0}, "merges": []}}
UNIGRAM = {"model": {"type": "Unigram", "vocab": [["a", 0.0]]}}
TEKKEN = {"config": {"pattern": "x"}, "vocab": [{"rank": 0, "token_bytes": "AA=="}]}


def folder_with(path: Path, **files: Any) -> Path:
    """Files by name, with "_" for "."; objects are written as JSON."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    for name, content in files.items():
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        (path / name.replace("__", ".")).write_bytes(raw)
    return path


def entries(folder: Path, pre: str | None = None) -> dict[str, KeyValue]:
    found = tokenizer.read(open_checkpoint(folder), 272, pre=pre)
    return {entry.key: entry for entry in found}


def kind(folder: Path, pre: str | None = None) -> str:
    return entries(folder, pre)["tokenizer.ggml.model"].encoded[12:].decode()


@pytest.mark.parametrize(
    ("files", "model"),
    [
        ({"tokenizer__model": TIKTOKEN, "tokenizer__json": BYTES}, "gpt2"),
        ({"tokenizer__model": b"<html></html>", "tokenizer__json": BYTES}, "gpt2"),
        ({"tokenizer__model": b"version https://git-lfs.github.com/spec/v1\n", "tokenizer__json": BYTES}, "gpt2"),
        ({"tokenizer__model": b"", "tokenizer__json": BYTES}, "gpt2"),
        ({"tokenizer__model": SENTENCEPIECE[:-5], "tokenizer__json": BYTES}, "gpt2"),
        ({"tokenizer__model": SENTENCEPIECE, "tokenizer__json": BYTES}, "gpt2"),  # an older vocabulary beside it
        ({"tokenizer__model": SENTENCEPIECE, "tokenizer__json": FALLBACK}, "llama"),
        ({"tokenizer__model": SENTENCEPIECE, "tokenizer__json": UNIGRAM}, "llama"),
        ({"tokenizer__model": SENTENCEPIECE, "tokenizer__json": b"<html>"}, "llama"),
        ({"tokenizer__model": SENTENCEPIECE, "tekken__json": TEKKEN}, "llama"),
        ({"tokenizer__json": BYTES, "tekken__json": TEKKEN, "vocab__json": {"a": 0}}, "gpt2"),
        ({"tokenizer__model": SENTENCEPIECE[:-5], "tokenizer__json": FALLBACK}, "llama"),
    ],
)
def test_the_file_that_can_be_read_is_used(tmp_path: Path, files: dict[str, Any], model: str) -> None:
    assert kind(folder_with(tmp_path, **files)) == model


def test_the_vocabulary_is_that_of_the_file_that_was_chosen(tmp_path: Path) -> None:
    alone = entries(folder_with(tmp_path / "a", tokenizer__json=BYTES))
    both = entries(folder_with(tmp_path / "b", tokenizer__json=BYTES, tokenizer__model=TIKTOKEN))
    assert both == alone


@pytest.mark.parametrize(
    ("files", "reasons"),
    [
        (
            {"tokenizer__model": TIKTOKEN, "tokenizer__json": UNIGRAM},
            ["tokenizer.json: a tokenizer of the kind 'Unigram'", "tokenizer.model: a tiktoken vocabulary"],
        ),
        (
            {"tokenizer__model": TIKTOKEN, "tekken__json": {"vocab": 1}},
            ["tokenizer.model: a tiktoken vocabulary", "tekken.json: has no vocabulary"],
        ),
        (
            {"vocab__txt": b"a", "tokenizer__model": {}},
            ["vocab.txt: a WordPiece vocabulary", "tokenizer.model: JSON, not a SentencePiece model"],
        ),
        (
            {"tokenizer__json": b"<html>", "vocab__json": {"a": 0}},
            ["tokenizer.json: a web page", "vocab.json: there is no merges.txt"],
        ),
    ],
)
def test_if_none_can_be_read_each_is_named_with_the_reason(
    tmp_path: Path, files: dict[str, Any], reasons: list[str]
) -> None:
    with pytest.raises(Incompatible, match="no tokenizer can be read: ") as caught:
        entries(folder_with(tmp_path, **files))
    assert all(reason in caught.value.message for reason in reasons), caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("raw", "error", "problem"),
    [
        (TIKTOKEN, Incompatible, "a tiktoken vocabulary, not a SentencePiece model"),
        (b"<!doctype html>", BadModelFile, "a web page, not a SentencePiece model"),
        (b"", BadModelFile, "an empty file, not a SentencePiece model"),
        (b"GGUF\3\0\0\0", BadModelFile, "a GGUF file, not"),
        (b"\x80\x04\x95", BadModelFile, "a Python pickle, not"),
        (SENTENCEPIECE[:-5], BadModelFile, "ends in the middle of a field"),
    ],
)
def test_the_only_file_is_refused_with_its_own_reason(
    tmp_path: Path, raw: bytes, error: type[DsrError], problem: str
) -> None:
    with pytest.raises(error, match=problem):
        entries(folder_with(tmp_path, tokenizer__model=raw))


def test_a_vocabulary_and_merges_need_the_way_to_cut_words(tmp_path: Path) -> None:
    vocabulary = {"t": 0, "h": 1, "th": 2}
    folder = folder_with(
        tmp_path, vocab__json=vocabulary, merges__txt=b"#version: 0.2\nt h\n", added_tokens__json={"<x>": 3}
    )
    with pytest.raises(Incompatible, match="it does not say how words are cut") as caught:
        entries(folder)
    assert caught.value.hint == "give the name of a pre-tokenizer with --pre NAME"
    assert kind(folder, "qwen2") == "gpt2"
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2TokenizerFast"}')
    found = find_tokenizer(open_checkpoint(folder), None)
    assert found.pre == "qwen2" and found.described["model"]["merges"] == ["t h"]


def test_without_any_file_there_is_none(tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    assert not is_there(open_checkpoint(folder))
    with pytest.raises(NotFound, match=r"there is no tokenizer\.json"):
        entries(folder)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"added_tokens": 7}, "added_tokens is not a list"),
        ({"added_tokens": [{"content": "<x>", "id": -1}]}, "the token '<x>' has no valid number"),
        ({"added_tokens": [{"content": "<x>", "id": 10**400}]}, "the token '<x>' has no valid number"),
        ({"added_tokens": [{"content": "<x>", "id": 10**6}]}, "has a token 1000000, but config.json says vocab_size"),
        ({"model": BYTES["model"] | {"merges": 7}}, "merges is not a list"),
    ],
)
def test_odd_numbers_and_kinds_are_refused(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadModelFile) as caught:
        entries(folder_with(tmp_path, tokenizer__json=BYTES | change))
    assert problem in caught.value.message


def test_added_tokens_with_impossible_numbers_in_the_configuration_are_left_out(tmp_path: Path) -> None:
    decoder = {number: {"content": f"<{number[:3]}>"} for number in ("-1", "9" * 5000, "999999", "٣", "1e3")}
    config = {"added_tokens_decoder": decoder}
    plain = entries(folder_with(tmp_path / "a", tokenizer__model=SENTENCEPIECE))
    odd = entries(folder_with(tmp_path / "b", tokenizer__model=SENTENCEPIECE, tokenizer_config__json=config))
    assert odd["tokenizer.ggml.tokens"] == plain["tokenizer.ggml.tokens"]


def test_special_tokens_beyond_the_vocabulary_are_left_out(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, tokenizer__json=BYTES)
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "eos_token_id": 999999}')
    assert "tokenizer.ggml.eos_token_id" not in entries(folder)


def test_templates_with_names_may_be_an_object(tmp_path: Path) -> None:
    config = {"chat_template": {"default": "A", "tool_use": "B", "odd": 7}}
    found = entries(folder_with(tmp_path, tokenizer__json=BYTES, tokenizer_config__json=config))
    assert found["tokenizer.chat_template"].encoded[12:] == b"A"
    assert found["tokenizer.chat_template.tool_use"].encoded[12:] == b"B"


CONTENT = st.sampled_from([TIKTOKEN, SENTENCEPIECE, b"", b"<html>", b"\x0a", b"[1]", b"{}"]) | st.binary(max_size=40)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_content_of_a_tokenizers_files_does_more_than_raise_our_errors(tmp_path_factory: Any, data: Any) -> None:
    described: Any = json.loads(json.dumps(BYTES))
    key = data.draw(st.sampled_from([*BYTES, "model.vocab", "model.merges", "model.type", "model.byte_fallback"]))
    place = described["model"] if "." in key else described
    place[key.split(".")[-1]] = data.draw(VALUE)
    files = {
        "tokenizer__json": described if data.draw(st.booleans()) else data.draw(CONTENT),
        "tokenizer__model": data.draw(CONTENT),
        "tokenizer_config__json": data.draw(st.dictionaries(
            st.sampled_from(["chat_template", "added_tokens_decoder", "bos_token", "eos_token", "tokenizer_class",
                             "add_bos_token", "sep_token", "cls_token"]), VALUE)),
    }  # fmt: skip
    folder = folder_with(tmp_path_factory.mktemp("odd"), **files)
    try:
        assert entries(folder)
    except DsrError as error:
        assert "\n" not in error.message
