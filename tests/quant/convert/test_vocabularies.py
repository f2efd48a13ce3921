"""Each form of a vocabulary becomes what llama.cpp's converter makes of it, and hostile ones are refused."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.convert import ranks, tokenizer
from quant.convert.rwkv_world import rwkv_world
from quant.gguf.writer import KeyValue
from quant.sources.checkpoint import open_checkpoint
from runtime.base.errors import BadModelFile, DsrError, Incompatible
from tests.quant import tokenizers
from tests.quant.digests import digest
from tests.quant.entries import numbers, texts
from tests.quant.tokenizers import SIZE, fallback_tokenizer, save

REFERENCE = json.loads(Path(tokenizers.__file__).with_name("tokenizer_reference.json").read_text())
PATH = Path("file")
# Where llama.cpp's converter has something else on purpose: see tests/peers/tokenizers.py.
MEANT = ("tokenizer.ggml.scores", "tokenizer.chat_template")


def entries(folder: Path, pre: str | None = None) -> dict[str, KeyValue]:
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    return {entry.key: entry for entry in tokenizer.read(open_checkpoint(folder), size, pre=pre)}


def made(tmp_path: Path, make: Callable[[Path], None]) -> dict[str, KeyValue]:
    make(tmp_path / "model")
    return entries(tmp_path / "model")


def scores(entry: KeyValue) -> list[float]:
    return list(struct.unpack_from(f"<{(len(entry.encoded) - 16) // 4}f", entry.encoded, 16))


@pytest.mark.parametrize("name", tokenizers.FORMS)
def test_a_vocabulary_is_that_of_the_reference_converter(tmp_path: Path, name: str) -> None:
    mine = {key: digest(entry.encoded) for key, entry in made(tmp_path, tokenizers.FORMS[name]).items()}
    theirs = dict(REFERENCE[name])
    if name == "tekken":
        mine, theirs = ({key: value for key, value in each.items() if key not in MEANT} for each in (mine, theirs))
    if name == "hunyuan":  # its number is beyond this vocabulary
        del theirs["tokenizer.ggml.bos_token_id"]
    assert mine == theirs
    assert list(mine) == list(theirs)


def test_scores_follow_from_the_order_of_merges(tmp_path: Path) -> None:
    """A SentencePiece model lists a token before those made of it, so that the earliest merge scores highest."""
    found = made(tmp_path, tokenizers.llama_fallback)
    tokens, score = texts(found["tokenizer.ggml.tokens"]), scores(found["tokenizer.ggml.scores"])
    by_token = dict(zip(tokens, score, strict=True))
    assert [by_token[token] for token in ("th", "he", "▁th", "▁the", "in")] == [0, -1, -2, -3, -4]
    assert max(by_token[token] for token in ("<unk>", "<0x41>", "t", "<|im_end|>")) == -1005
    assert "tokenizer.ggml.add_space_prefix" not in found  # the engine's own default is a space
    types = dict(zip(tokens, numbers(found["tokenizer.ggml.token_type"]), strict=True))
    wanted = {"<unk>": 3, "<0x41>": 6, "t": 1, "<|im_end|>": 3, "<tool>": 4}
    assert {token: types[token] for token in wanted} == wanted


@pytest.mark.parametrize(
    ("change", "written"),
    [
        ({"normalizer": None}, True),
        ({"normalizer": {"type": "Prepend", "prepend": "▁"}}, False),
        ({"normalizer": None, "pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"}}, False),
        ({"normalizer": None, "pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "never"}}, True),
        ({"normalizer": None, "pre_tokenizer": {"type": "Metaspace", "add_prefix_space": False}}, True),
        ({"normalizer": {"type": "Sequence", "normalizers": 7}, "pre_tokenizer": 7}, True),
    ],
)
def test_a_tokenizer_without_a_space_before_a_text_says_so(
    tmp_path: Path, change: dict[str, Any], written: bool
) -> None:
    config = {"architectures": ["JambaForCausalLM"], "vocab_size": 272}
    found = entries(save(tmp_path, config, tokenizer__json=fallback_tokenizer() | change))
    assert ("tokenizer.ggml.add_space_prefix" in found) == written


def test_a_tiktoken_file_of_an_unknown_class_needs_a_name(tmp_path: Path) -> None:
    tokenizers.kimi(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "Odd"}')
    with pytest.raises(Incompatible, match=r"it does not say how words are cut, and the class .* not known: 'Odd'"):
        entries(tmp_path)
    assert entries(tmp_path, "kimi-k2")["tokenizer.ggml.pre"].encoded[12:] == b"kimi-k2"


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "its tokens have up to 0 bytes"),
        (b"QQ== 0\nQQ==\n", "a line is not a token in base64 with its rank"),
        (b"Q 0\n", "a token is not valid base64"),
        (b"QQ== 9999999999\n", "a line is not a token"),
        (base64.b64encode(b"a" * 2000) + b" 0\n", "its tokens have up to 2000 bytes"),
        (
            b"".join(base64.b64encode(b"%1024d" % each) + b" %d\n" % each for each in range(300)),
            "its tokens have up to 1024 bytes, and no vocabulary has tokens that long",
        ),
    ],
)
def test_a_tiktoken_file_that_is_none_is_refused_before_it_costs_anything(raw: bytes, problem: str) -> None:
    with pytest.raises(BadModelFile, match=problem):
        ranks.read_tiktoken(raw, PATH)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"config": {}}, "says None tokens, None of them special, and config.json says vocab_size 289"),
        ({"config": {"default_vocab_size": 290, "default_num_special_tokens": 24}}, "says 290 tokens"),
        ({"config": {"default_vocab_size": 289, "default_num_special_tokens": 289}}, "says 289 tokens, 289 of them"),
        ({"config": {"default_vocab_size": 289, "default_num_special_tokens": 2}}, "has 266 tokens, but says 287"),
        ({"vocab": [{"rank": 1, "token_bytes": "QQ=="}]}, "token 0 has no bytes, or another rank"),
        ({"vocab": [{"rank": 0, "token_bytes": "é"}]}, "token 0 has no bytes"),
        ({"special_tokens": [{"token_str": 7}]}, "a special token has no text"),
        ({"special_tokens": [{"token_str": "<SPECIAL_5>"}]}, "has 23 different special tokens, but says 24"),
    ],
)
def test_a_tekken_file_that_contradicts_itself_is_refused(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    tokenizers.tekken(tmp_path)
    described = json.loads((tmp_path / "tekken.json").read_text()) | change
    (tmp_path / "tekken.json").write_text(json.dumps(described))
    with pytest.raises(BadModelFile, match=problem):
        entries(tmp_path)


def test_a_tekken_file_under_the_name_of_another_is_believed(tmp_path: Path) -> None:
    tokenizers.tekken(tmp_path)
    (tmp_path / "tekken.json").rename(tmp_path / "tokenizer.json")
    assert entries(tmp_path)["tokenizer.ggml.pre"].encoded[12:] == b"tekken"


@pytest.mark.parametrize("line", ["", "1 'a'", "1 'a' 2", "1 [1] 1", "1 __import__('os') 3", "1 " + "(" * 900 + " 1"])
def test_a_line_of_rwkvs_vocabulary_is_a_literal_of_the_right_length(line: str) -> None:
    with pytest.raises(BadModelFile, match=r"line [0-9]+ is not token "):
        rwkv_world(f"1 'a' 1\n{line}\n", SIZE, PATH)


def test_rwkvs_lines_are_in_the_order_of_their_numbers() -> None:
    with pytest.raises(BadModelFile, match="line 2 is not token 2: \"3 'b' 1\""):
        rwkv_world("1 'a' 1\n3 'b' 1\n", SIZE, PATH)


def test_kimis_ranks_have_no_gap() -> None:
    found = {bytes([byte]): byte for byte in range(256)} | {b"ab": 300}
    with pytest.raises(BadModelFile, match="has 257 tokens, whose ranks are not 0 to 256"):
        ranks.kimi(found, {}, "kimi-k2", 600, PATH)


def test_rwkv_writes_a_conversation_in_its_own_way_where_no_file_says_how(tmp_path: Path) -> None:
    tokenizers.rwkv(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    assert entries(tmp_path)["tokenizer.chat_template"].encoded[12:].startswith(b"{% for message in messages %}")


WORD = st.binary(min_size=1, max_size=4)


@given(st.lists(WORD, min_size=1, max_size=40))
def test_a_merge_of_ranks_makes_its_token(words: list[bytes]) -> None:
    found = {token: rank for rank, token in enumerate(dict.fromkeys([*(bytes([b]) for b in range(256)), *words]))}
    for token, rank in found.items():
        parts = ranks._last(found, token, rank)
        assert b"".join(parts) == token
        assert all(len(part) == 1 or found[part] < rank for part in parts)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_content_of_a_vocabulary_does_more_than_raise_our_errors(tmp_path_factory: Any, data: Any) -> None:
    name = data.draw(st.sampled_from(["kimi", "hunyuan", "tekken", "rwkv", "gemma_4", "phi_3"]))
    folder = tmp_path_factory.mktemp("odd")
    tokenizers.FORMS[name](folder)
    file = data.draw(st.sampled_from(sorted(path for path in folder.iterdir() if path.name != "config.json")))
    raw = file.read_bytes()
    at = data.draw(st.integers(0, len(raw)))
    file.write_bytes(raw[:at] + data.draw(st.binary(max_size=4)) + raw[at + data.draw(st.integers(0, 4)) :])
    try:
        assert entries(folder)
    except DsrError as error:
        assert "\n" not in error.message
