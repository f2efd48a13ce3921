"""Files written byte by byte: what is refused, with which words, and what must never be refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.base.errors import BadModelFile, DsrError, Incompatible, NotFound, UsageError
from runtime.gguf.reader import HeaderTruncated, ModelCard, card_from_headers, parse_header, read_card
from tests.corruption import corrupted_copies
from tests.gguf_writer import (
    VOCABULARY,
    T,
    V,
    gguf,
    header,
    llama_metadata,
    llama_tensors,
    moe_metadata,
    moe_tensors,
    write,
)

NANO = Path(__file__).parents[3] / "dsr" / "data" / "nano.gguf"
FILE = Path("model.gguf")


def card_of(data: bytes) -> ModelCard:
    return card_from_headers([FILE], [parse_header(data, len(data), FILE)])


def llama(**changes: Any) -> bytes:
    return gguf(llama_metadata(**changes), llama_tensors())


def moe(**changes: Any) -> bytes:
    return gguf(moe_metadata(**changes), moe_tensors())


# What a sound file says


def test_card_of_a_small_llama(tmp_path: Path) -> None:
    card = read_card(write(tmp_path / "tiny.gguf"))
    assert (card.architecture, card.name, card.layers, card.context_length) == ("llama", "Tiny", 2, 128)
    assert (card.embedding_length, card.heads, card.kv_heads, card.key_length) == (64, 4, 2, 16)
    assert (card.vocab_size, card.bos_token, card.eos_token) == (8, 0, 1)
    assert card.template == "{{ messages[0].content }}<think>"
    assert card.parameters == card.active_parameters == 8 * 64 + 64 + 2 * (2 * 64 + 12288 + 3 * 64 * 96)
    assert card.bits_per_weight == 32.0


def test_tensors_have_absolute_offsets(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf")
    tensors = read_card(path).tensors
    start = len(header(llama_metadata(), llama_tensors()))
    assert (tensors[0].name, tensors[0].shape, tensors[0].type) == ("token_embd.weight", (64, 8), "F32")
    assert (tensors[0].offset, tensors[0].size, tensors[0].layer) == (start, 2048, None)
    assert (tensors[1].offset, tensors[1].size) == (start + 2048, 256)
    assert (tensors[2].name, tensors[2].layer) == ("blk.0.attn_norm.weight", 0)
    assert tensors[-1].offset + tensors[-1].size == path.stat().st_size


def test_active_parameters_leave_the_unused_experts_out() -> None:
    card = card_of(moe())
    assert card.parameters - card.active_parameters == 2 * 3 * 64 * 32


def test_the_embedded_model() -> None:
    card = read_card(NANO)
    assert (card.architecture, card.layers, card.experts, card.experts_used) == ("deepseek2", 4, 16, 4)
    assert (card.kv_lora_rank, card.rope_dimensions, card.is_mla) == (256, 32, True)
    assert card.parameters == 12_239_152
    assert card.active_parameters == 12_239_152 - 3 * 3 * 256 * 256 * 12


def test_tokens_are_found_by_their_exact_spelling() -> None:
    card = card_of(llama())
    assert [card.token_id(text) for text in VOCABULARY] == list(range(8))
    assert card.token_id("<thin") is None


def test_arrays_of_the_metadata_stay_bytes_until_asked() -> None:
    metadata = card_of(llama(extra=V("u16", [1, 65535], array=True), flags=V("bool", [1, 0], array=True))).metadata
    assert metadata["extra"].numbers() == (1, 65535)  # type: ignore[union-attr]
    assert metadata["flags"].numbers() == (1, 0)  # type: ignore[union-attr]
    assert metadata["tokenizer.ggml.tokens"].strings() == tuple(VOCABULARY)  # type: ignore[union-attr]


def test_a_vocabulary_without_weights_is_a_sound_file() -> None:
    card = card_of(
        gguf(
            {
                "general.architecture": "mamba",
                "tokenizer.ggml.model": "llama",
                "tokenizer.ggml.tokens": ["a", "b"],
            }
        )
    )
    assert (card.vocab_size, card.layers, card.tensors) == (2, 0, ())


def test_head_counts_may_differ_by_layer() -> None:
    card = card_of(llama(**{"llama.attention.head_count_kv": [2, 2]}))
    assert card.kv_heads_per_layer == (2, 2)


def test_the_digest_follows_the_header_and_the_size() -> None:
    first, again = card_of(llama()), card_of(llama())
    assert first.header_digest == again.header_digest
    assert first.header_digest != card_of(llama(**{"general.name": "Other"})).header_digest
    assert first.header_digest != card_of(llama() + b"\0").header_digest


def test_minus_one_as_a_special_token_means_none() -> None:
    card = card_of(llama(**{"tokenizer.ggml.bos_token_id": V("i32", -1), "tokenizer.ggml.eos_token_id": 2**32 - 1}))
    assert (card.bos_token, card.eos_token) == (None, None)


def test_a_special_token_beyond_the_vocabulary_is_ignored_as_the_engine_does() -> None:
    card = card_of(llama(**{"tokenizer.ggml.bos_token_id": 8, "tokenizer.ggml.eos_token_id": 7}))
    assert (card.bos_token, card.eos_token) == (None, 7)


def test_token_types_may_be_unsigned() -> None:
    assert card_of(llama(**{"tokenizer.ggml.token_type": V("u32", [1] * 8, array=True)})).vocab_size == 8


def test_layers_that_predict_further_tokens_may_be_left_out() -> None:
    card = card_of(llama(**{"llama.block_count": 3, "llama.nextn_predict_layers": 1}))
    assert (card.layers, card.nextn_layers) == (3, 1)


# Files that are something else


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file, not a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"\n<html>", "a web page"),
        (b"PK\x03\x04rest", "a zip archive"),
        (b"\x80\x04\x95rest", "Python pickle"),
        (struct.pack("<Q", 9) + b'{"a": 1}  ' + bytes(20), "safetensors"),
        (b"lmggrest of it", "from before GGUF"),
        (b"GGU", "not a GGUF file"),
        (b"hello there", "a text file, not a GGUF file"),
        (b"hell\0\xff", "not a GGUF file: it begins with b'hell'"),
    ],
)
def test_other_files_are_called_by_their_name(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(BadModelFile, match=said) as caught:
        read_card(path)
    assert str(path) in caught.value.message
    assert caught.value.exit_code == 4


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        read_card(tmp_path / "none.gguf")
    with pytest.raises(NotFound, match="is a folder"):
        read_card(tmp_path)


@pytest.mark.parametrize(("version", "said"), [(1, "GGUF version 1"), (4, "GGUF version 4"), (3 << 24, "big-endian")])
def test_versions_the_engine_cannot_read(version: int, said: str) -> None:
    with pytest.raises(Incompatible, match=said):
        card_of(header(version=version))


def test_version_zero_is_broken() -> None:
    with pytest.raises(BadModelFile, match="version 0"):
        card_of(header(version=0))


def test_version_two_is_read() -> None:
    assert card_of(gguf(llama_metadata(), llama_tensors(), version=2)).layers == 2


def test_other_kinds_of_gguf_are_refused() -> None:
    with pytest.raises(Incompatible, match="an importance matrix, not a model"):
        card_of(gguf({"general.architecture": "llama", "general.type": "imatrix"}))
    with pytest.raises(Incompatible, match="an image or audio projector"):
        card_of(gguf({"general.architecture": "clip"}))


def test_a_tensor_type_that_was_removed_is_incompatible() -> None:
    with pytest.raises(Incompatible, match="Q4_0_4_4"):
        card_of(gguf(llama_metadata(), [T("token_embd.weight", (64, 8), 31)]))


# The structure


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (header(tensor_count=2**62), "claims 4611686018427387904 tensors"),
        (header(tensor_count=2**64 - 1), "claims 18446744073709551615 tensors"),
        (header(metadata_count=2**63), "claims 9223372036854775808 keys"),
        (header([("", 1)]), "key 0 is empty"),
        (header([("k" * 65536, 1)]), "key 0 at byte 24 is 65536 bytes long"),
        (header([("a", 1), ("a", 2)]), "the key a appears twice"),
        (header([("general.alignment", "32")]), "general.alignment is not an integer"),
        (header([("general.alignment", V("bool", 1))]), "general.alignment is not an integer"),
        (header([("general.alignment", 0)]), "general.alignment is 0"),
        (header([("general.alignment", 24)]), "general.alignment is 24, not a power of two"),
        (header(tensors=[T("n" * 64, (1,))]), "a tensor's name at byte 24 is 64 bytes long"),
        (header(tensors=[T("", (1,))]), "has no name"),
        (header(tensors=[T("t", ())]), "tensor t has 0 dimensions"),
        (header(tensors=[T("t", (1, 1, 1, 1, 1))]), "tensor t has 5 dimensions"),
        (header(tensors=[T("t", (4, 0))]), "tensor t has a dimension of 0"),
        (header(tensors=[T("t", (2**32, 2**32))]), "tensor t has 18446744073709551616 elements"),
        (header(tensors=[T("t", (2**62,))]), "tensor t would be 18446744073709551616 bytes"),
        (header(tensors=[T("t", (48,), "Q8_0")]), "rows of 48 elements, not multiples of 32"),
        (gguf(tensors=[T("t", (8,)), T("t", (8,))]), "the tensor t appears twice"),
        (gguf(tensors=[T("t", (8,), offset=4)]), "offset 4 instead of 0: it is not aligned"),
        (gguf(tensors=[T("t", (8,)), T("u", (8,), offset=0)]), "tensor u has the offset 0 instead of 32: it overlaps"),
        (gguf(tensors=[T("t", (8,)), T("u", (8,), offset=64)]), "leaves a gap"),
        (gguf(tensors=[T("t", (8,), offset=2**64 - 32)]), "offset 18446744073709551584 instead of 0"),
        (header(tensors=[T("t", (8,))]), "32 bytes \\(32 B\\) are missing"),
    ],
)
def test_broken_structure(data: bytes, said: str) -> None:
    with pytest.raises(BadModelFile, match=said) as caught:
        card_of(data)
    assert "model.gguf" in caught.value.message


def raw_value(kind: int, payload: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a" + struct.pack("<I", kind) + payload


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (raw_value(13, b""), "a has the unknown type 13"),
        (raw_value(9, struct.pack("<IQ", 9, 1)), "array of arrays"),
        (raw_value(9, struct.pack("<IQ", 13, 1)), "array of the unknown type 13"),
        (raw_value(9, struct.pack("<IQ", 8, 2**60)), "claims 1152921504606846976 elements"),
        (raw_value(9, struct.pack("<IQ", 0, 2**64 - 1)), "claims 18446744073709551615 elements"),
        (raw_value(9, struct.pack("<IQQ", 8, 1, 2**64 - 8)), "string 0 of a at byte 57 would need"),
        (raw_value(9, struct.pack("<IQQQ", 8, 2, 0, 2**40)), "string 1 of a at byte 65 would need"),
        (raw_value(8, struct.pack("<Q", 2**63)), "a at byte 45 would need 9223372036854775808 bytes"),
        (raw_value(10, b"1234"), "a at byte 37 would need 8 bytes, but the file ends at 41"),
    ],
)
def test_broken_values(data: bytes, said: str) -> None:
    with pytest.raises(BadModelFile, match=said):
        parse_header(data, len(data), FILE)


def test_every_cut_of_the_header_is_noticed() -> None:
    data = llama()
    end = len(header(llama_metadata(), llama_tensors()))
    for length in range(4, end):
        with pytest.raises(BadModelFile):
            card_of(data[:length])


def test_cut_weights_say_how_much_is_missing() -> None:
    with pytest.raises(BadModelFile, match="cut short: 1000 bytes") as caught:
        card_of(llama()[:-1000])
    assert caught.value.hint is not None
    assert "pull it again" in caught.value.hint


# The first bytes of a remote file


def test_the_first_bytes_are_enough() -> None:
    data = llama()
    first = header(llama_metadata(), llama_tensors())
    assert parse_header(first, len(data), FILE) == parse_header(data, len(data), FILE)


def test_too_few_first_bytes_ask_for_more() -> None:
    data = llama()
    end = len(header(llama_metadata(), llama_tensors()))
    have = 0
    for _ in range(1000):
        try:
            parsed = parse_header(data[:have], len(data), FILE)
            break
        except HeaderTruncated as short:
            assert have < short.needed <= end
            have = short.needed
    assert len(parsed.tensors) == 20
    assert have <= end


def test_a_header_longer_than_the_first_read(tmp_path: Path) -> None:
    tokens = [f"token number {n}" for n in range(30_000)]
    changes = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": [1] * 30_000}
    path = write(tmp_path / "long.gguf", llama_metadata(**changes), llama_tensors(vocabulary=30_000, type="Q8_0"))
    card = read_card(path)
    assert (card.vocab_size, card.token_id("token number 29999")) == (30_000, 29_999)


# Metadata against tensors: what would abort the process in native code


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("general.architecture", None, "general.architecture is missing"),
        ("general.architecture", 7, "general.architecture is missing or not a text"),
        ("tokenizer.ggml.model", None, "the tokenizer is missing"),
        ("tokenizer.ggml.tokens", None, "the vocabulary is missing"),
        ("tokenizer.ggml.tokens", [1, 2], "is not an array of str"),
        ("tokenizer.ggml.tokens", VOCABULARY[:-1], r"shape \[64, 8\] instead of \[64, 7\]"),
        ("tokenizer.ggml.tokens", ["x", *VOCABULARY[1:-1], "x"], "token 7 .* is spelled like an earlier one"),
        ("tokenizer.ggml.tokens", ["x\0y", *VOCABULARY[1:-1], "x\0z"], "token 7 .* is spelled like an earlier one"),
        ("tokenizer.ggml.token_type", [1, 1], "has 2 entries for 8 tokens"),
        ("tokenizer.ggml.token_type", [1.0] * 8, "is not an array of i32"),
        ("tokenizer.ggml.scores", [1.0] * 7, "has 7 entries for 8 tokens"),
        ("tokenizer.ggml.merges", None, "tokenizer.ggml.merges is missing"),
        ("tokenizer.ggml.merges", 3, "is not an array of str"),
        ("tokenizer.ggml.eos_token_id", "1", "is not a whole number"),
        ("tokenizer.ggml.bos_token_id", V("i32", -2), "is -2, not between 0 and 4294967295"),
        ("tokenizer.chat_template", 5, "tokenizer.chat_template is not a text"),
        ("llama.block_count", None, "llama.block_count is missing"),
        ("llama.block_count", 0, "is 0, not between 1 and 512"),
        ("llama.block_count", 1, "is 1, but there are tensors of layer 1"),
        ("llama.block_count", 3, "is 3, but there are tensors of 2 layers"),
        ("llama.block_count", 10**6, "is 1000000, not between 1 and 512"),
        ("llama.block_count", True, "is not a whole number"),
        ("llama.nextn_predict_layers", 3, "is 3, not between 0 and 2"),
        ("llama.context_length", 0, "is 0, not between"),
        ("llama.context_length", 2**31, "is 2147483648, not between"),
        ("llama.embedding_length", 0, "is 0, not between"),
        ("llama.embedding_length", 63, "is 16 of heads of 15"),
        ("llama.feed_forward_length", 97, r"instead of \[64, 97\]"),
        ("llama.attention.head_count", 0, "is 0 with 2 heads"),
        ("llama.attention.head_count", 3, "is 3 with 2 heads"),
        ("llama.attention.head_count", [4, 4, 4], "is an array of 3 i32 for 2 layers"),
        ("llama.attention.head_count_kv", 0, "is 4 with 0 heads"),
        ("llama.attention.key_length", 0, "is 0 with values of 16"),
        ("llama.attention.value_length", 8, "keys are 16 and values 8 long"),
        ("llama.attention.layer_norm_rms_epsilon", -1.0, "is -1.0, not between 0 and 1"),
        ("llama.attention.layer_norm_rms_epsilon", float("nan"), "is nan, not a finite number"),
        ("llama.rope.dimension_count", 7, "llama.rope.dimension_count is 7 of heads of 16"),
        ("llama.rope.dimension_count", 8, "llama.rope.dimension_count is 8, keys are 16"),
        ("llama.rope.freq_base", float("inf"), "is inf, not a finite number"),
        ("llama.rope.freq_base", 0.0, "is 0.0, not above 0"),
        ("llama.expert_count", 10**6, "is 1000000, not between 0 and 1024"),
        ("llama.expert_used_count", 2, "is 0, but experts are used"),
        ("llama.pooling_type", 9, "is 9, not between 0 and 4"),
    ],
)
def test_contradictions(key: str, value: object, said: str) -> None:
    with pytest.raises(BadModelFile, match=said):
        card_of(llama(**{key: value}))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("qwen3moe.expert_count", 8, "holds 4 experts instead of 8"),
        ("qwen3moe.expert_count", None, "is 0, but experts are used"),
        ("qwen3moe.expert_used_count", 5, "is 5 of 4 experts"),
        ("qwen3moe.expert_used_count", 0, "is 0 of 4 experts"),
        ("qwen3moe.expert_group_count", 3, "is 3, which does not divide 4 experts"),
        ("qwen3moe.expert_group_count", 2, "is 0 of 2 groups"),
        ("qwen3moe.expert_feed_forward_length", 31, r"instead of \[64, 31, 4\]"),
    ],
)
def test_contradictions_of_experts(key: str, value: object, said: str) -> None:
    with pytest.raises(BadModelFile, match=said):
        card_of(moe(**{key: value}))


def test_tensors_no_kernel_can_use() -> None:
    def replaced(name: str, tensor: T) -> bytes:
        return gguf(llama_metadata(), [tensor if old.name == name else old for old in llama_tensors()])

    with pytest.raises(BadModelFile, match="type I32, which no weight can have"):
        card_of(replaced("token_embd.weight", T("token_embd.weight", (64, 8), "I32")))
    with pytest.raises(BadModelFile, match="a vector of the type F16"):
        card_of(replaced("output_norm.weight", T("output_norm.weight", (64,), "F16")))
    with pytest.raises(BadModelFile, match=r"output_norm.weight has the shape \[32\] instead of \[64\]"):
        card_of(replaced("output_norm.weight", T("output_norm.weight", (32,))))
    with pytest.raises(BadModelFile, match=r"token_embd\.weight is missing"):
        card_of(gguf(llama_metadata(), llama_tensors()[1:]))


def test_an_architecture_unknown_here_is_left_to_the_engine() -> None:
    metadata = {key.replace("llama.", "brandnew.", 1): value for key, value in llama_metadata().items()}
    metadata |= {"general.architecture": "brandnew", "brandnew.rope.dimension_count": 7}
    assert card_of(gguf(metadata, llama_tensors())).architecture == "brandnew"


# Shards


def shards(folder: Path, **second: Any) -> tuple[Path, Path]:
    first_path, second_path = folder / "m-00001-of-00002.gguf", folder / "m-00002-of-00002.gguf"
    tensors = llama_tensors()
    split = {"split.count": V("u16", 2), "split.tensors.count": V("i32", len(tensors))}
    write(first_path, llama_metadata(**split, **{"split.no": V("u16", 0)}), tensors[:7])
    keys = {**split, "split.no": V("u16", 1), **second.get("keys", {})}
    write(second_path, keys, second.get("tensors", tensors[7:]))
    return first_path, second_path


def test_all_shards_make_one_card(tmp_path: Path) -> None:
    first, second = shards(tmp_path)
    card = read_card(first)
    assert card.files == (first, second)
    assert card.size == first.stat().st_size + second.stat().st_size
    assert [tensor.file for tensor in card.tensors] == [0] * 7 + [1] * 13


def test_another_shard_than_the_first_says_so(tmp_path: Path) -> None:
    _, second = shards(tmp_path)
    with pytest.raises(UsageError, match="part 2 of 2") as caught:
        read_card(second)
    assert "m-00001-of-00002.gguf" in str(caught.value.hint)


def test_a_missing_shard(tmp_path: Path) -> None:
    first, second = shards(tmp_path)
    second.unlink()
    with pytest.raises(NotFound, match=r"1 of 2 parts are missing: m-00002-of-00002\.gguf"):
        read_card(first)


def test_shards_that_do_not_belong_together(tmp_path: Path) -> None:
    first, _ = shards(tmp_path, keys={"split.no": V("u16", 0)})
    with pytest.raises(BadModelFile, match="says it is shard 1 of 2, not 2 of 2"):
        read_card(first)
    first, _ = shards(tmp_path, keys={"split.count": V("u16", 3)})
    with pytest.raises(BadModelFile, match="shard 2 of 3, not 2 of 2"):
        read_card(first)
    first, _ = shards(tmp_path, tensors=llama_tensors()[6:])
    with pytest.raises(BadModelFile, match="is also in another shard"):
        read_card(first)
    first, _ = shards(tmp_path, tensors=llama_tensors()[8:])
    with pytest.raises(BadModelFile, match="the shards hold 19 tensors instead of 20"):
        read_card(first)


def test_a_shard_under_another_name(tmp_path: Path) -> None:
    first, _ = shards(tmp_path)
    moved = first.rename(tmp_path / "model.gguf")
    with pytest.raises(BadModelFile, match="is one of 2 shards"):
        read_card(moved)


# Anything at all


@pytest.mark.parametrize("source", ["llama", "moe", "nano"])
def test_corrupted_copies_end_in_our_own_error_or_a_card(tmp_path: Path, source: str) -> None:
    data = {"llama": llama, "moe": moe, "nano": NANO.read_bytes}[source]()
    end = parse_header(data, len(data), FILE).data_offset
    refused = 0
    for what, copy in corrupted_copies(data, seed=7, count=360, header=end):
        try:
            card = card_of(copy)
            assert card.parameters >= 0, what
        except DsrError as error:
            assert error.exit_code in (4, 7), what
            refused += 1
    assert refused > 200


@given(st.binary(max_size=400))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DsrError):
        card_of(data)


@given(st.binary(max_size=400))
def test_random_bytes_after_the_magic_are_refused_or_read(data: bytes) -> None:
    try:
        parse_header(b"GGUF\x03\0\0\0" + data, len(data) + 8, FILE)
    except DsrError:
        return


SCALARS = st.one_of(
    st.builds(V, st.just("u8"), st.integers(0, 255)),
    st.builds(V, st.just("i16"), st.integers(-(2**15), 2**15 - 1)),
    st.builds(V, st.just("u32"), st.integers(0, 2**32 - 1)),
    st.builds(V, st.just("i64"), st.integers(-(2**63), 2**63 - 1)),
    st.builds(V, st.just("f64"), st.floats(allow_nan=False)),
    st.builds(V, st.just("bool"), st.integers(0, 1)),
    st.builds(V, st.just("str"), st.text(max_size=20)),
)
ARRAYS = st.one_of(
    st.builds(V, st.just("i32"), st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9), st.just(True)),
    st.builds(V, st.just("str"), st.lists(st.text(max_size=9), max_size=9), st.just(True)),
)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=15)
SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(NAMES, SCALARS | ARRAYS, max_size=6),
    st.dictionaries(NAMES, st.tuples(SHAPES, st.sampled_from(["F32", "F16", "BF16"])), max_size=6),
)
def test_what_was_written_is_read(metadata: dict[str, V], tensors: dict[str, tuple[Any, str]]) -> None:
    written = [T(name, shape, kind) for name, (shape, kind) in tensors.items()]
    data = gguf(metadata, written)
    parsed = parse_header(data, len(data), FILE)
    read: dict[str, object] = {}
    for key, value in parsed.metadata.items():
        if metadata[key].array:
            read[key] = list(value.strings() if metadata[key].type == "str" else value.numbers())  # type: ignore[union-attr]
        else:
            read[key] = value
    assert read == {key: item.value for key, item in metadata.items()}
    assert [(t.name, t.shape, t.type, t.size) for t in parsed.tensors] == [
        (t.name, t.shape, t.type, t.size) for t in written
    ]
