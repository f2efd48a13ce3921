"""A file is named as what it is: damaged only where that is proved, else foreign, newer or not a model."""

from __future__ import annotations

import struct
import tracemalloc
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.base.errors import BadModelFile, DsrError, Incompatible
from runtime.gguf import engine_lists, types
from runtime.gguf.card import ModelCard
from runtime.gguf.engine_lists import ARCHITECTURES, PRE_TOKENIZERS, TOKENIZERS, check_answers, check_known
from runtime.gguf.header import HeaderTruncated, parse_header
from runtime.gguf.reader import card_from_headers, read_card
from runtime.llama.bindings import native
from tests.gguf_writer import VOCABULARY, T, V, gguf, header, llama_metadata, llama_tensors, write
from tests.runtime.native_engine import try_in_child

FILE = Path("model.gguf")
LIBRARY = Path(str(native.__file__)).parent / "lib" / "libllama.so"


def card_of(data: bytes) -> ModelCard:
    return card_from_headers([FILE], [parse_header(data, len(data), FILE)])


def llama(**changes: Any) -> bytes:
    return gguf(llama_metadata(**changes), llama_tensors())


def refused(data: bytes) -> DsrError:
    with pytest.raises(DsrError) as caught:
        check_answers(card_of(data))
    return caught.value


# Types of weights


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (139, "IQ4_K: the file was quantized for ik_llama.cpp, and no other program reads it"),
        (212, "Q4_K_R4: the file was quantized for ik_llama.cpp"),
        (399, "Q8_K_R8: the file was quantized for ik_llama.cpp"),
        (43, "43, unknown to this engine: the file was quantized for a newer engine or another program"),
        (2**32 - 1, "4294967295, unknown to this engine"),
        (36, "IQ4_NL_4_4 (in files of bitnet.cpp: I2_S), which the engine no longer reads"),
    ],
)
def test_a_type_that_the_engine_lacks_is_not_damage(number: int, said: str) -> None:
    error = refused(gguf(llama_metadata(), [T("token_embd.weight", (64, 8), number)]))
    assert error.exit_code == 7
    assert said in error.message
    assert "damaged" not in f"{error.message} {error.hint}"
    assert "Q4_K_M" in str(error.hint)


def test_no_type_is_both_known_and_foreign() -> None:
    assert not types.ONLY_IK_LLAMA.keys() & (types.BY_NUMBER.keys() | types.REMOVED.keys())
    assert not set(types.ONLY_IK_LLAMA.values()) & types.BY_NAME.keys()


# Odd content that the engine loads without a word

ODD: list[dict[str, Any]] = [
    {"general.custom": float("nan")},
    {"llama.custom": float("-inf")},
    {"general.sampling.temp": float("nan")},
    {"general.author": "Grün".encode("latin-1")},
    {"general.custom": b"\xff\xfe\x00"},
    {"general.flag": V("bool", 255)},
    {"tokenizer.ggml.add_bos_token": V("bool", 2)},
    {"general.flags": V("bool", [0, 255, 3], array=True)},
    {"tokenizer.ggml.scores": [float("nan")] * 8},
    {"general.name": b"Tiny \xe9"},
    {"general.empty": V("str", [], array=True)},
    {"general.types": V("f64", [float("inf")], array=True)},
]


@pytest.mark.parametrize("odd", ODD)
def test_odd_content_that_nobody_needs_is_loaded_as_the_engine_does(tmp_path: Path, odd: dict[str, Any]) -> None:
    path = write(tmp_path / "odd.gguf", llama_metadata(**odd))
    assert read_card(path).layers == 2
    try_in_child(path)


def test_a_key_that_is_not_utf8_is_loaded_as_the_engine_does(tmp_path: Path) -> None:
    pairs: list[tuple[str | bytes, Any]] = [*llama_metadata().items(), (b"gr\xfcn", 1), (b"gr\xf6n", 2)]
    path = write(tmp_path / "odd.gguf", pairs)
    card = read_card(path)
    assert (card.metadata["gr\\xfcn"], card.metadata["gr\\xf6n"]) == (1, 2)
    try_in_child(path)


def test_text_that_is_not_utf8_is_replaced() -> None:
    card = card_of(llama(**{"general.name": b"Gr\xfcn", "general.flags": V("bool", [0, 255, 1], array=True)}))
    assert card.name == "Gr\ufffdn"
    assert card.metadata["general.flags"].numbers() == (0, 1, 1)  # type: ignore[union-attr]


def test_numbers_that_the_engine_calculates_with_must_be_finite() -> None:
    for key in ("llama.attention.scale", "llama.rope.scaling.factor", "llama.logit_scale"):
        error = refused(llama(**{key: float("nan")}))
        assert isinstance(error, BadModelFile)
        assert f"{key} is nan, not a finite number" in error.message


def test_scores_must_be_finite_where_a_tokenizer_uses_them() -> None:
    scores = {"tokenizer.ggml.scores": [float("nan")] * 8}
    assert card_of(llama(**scores)).vocab_size == 8
    assert "not finite" in refused(llama(**scores, **{"tokenizer.ggml.model": "llama"})).message


def test_damage_is_said_only_where_the_structure_proves_it() -> None:
    sound = llama()
    end = len(header(llama_metadata(), llama_tensors()))
    for data in (sound[: end - 40], sound[:-1000], header(tensor_count=2**40), gguf(tensors=[T("t", (8,), offset=64)])):
        assert "damaged" in str(refused(data).hint)
    for changes in ({"llama.block_count": 0}, {"general.name": 7}, {"tokenizer.ggml.token_type": [1]}):
        error = refused(llama(**changes))
        assert isinstance(error, BadModelFile)
        assert "damaged" not in str(error.hint)
    assert "damaged" not in str(refused(header([("a", 1), ("a", 2)])).hint)


def test_a_tensor_in_an_error_is_one_line() -> None:
    for name in ("blk.0\x0bq", "a\nb", "a\x1b[31mb", "a\u2028b"):
        for data in (gguf(llama_metadata(), [T(name, (8, 0))]), gguf(llama_metadata(), [T(name, (8,)), T(name, (8,))])):
            message = refused(data).message
            assert message.isprintable()
            assert "\\" in message


@pytest.mark.parametrize("model", ["none", "no_vocab"])
def test_a_model_without_a_vocabulary_is_no_model_for_chat(model: str) -> None:
    error = refused(llama(**{"tokenizer.ggml.model": model, "llama.vocab_size": 8}))
    assert error.exit_code == 7
    assert "without a vocabulary" in error.message
    for key, odd in (("token_type", ["a"]), ("merges", [1]), ("tokens", 5), ("scores", "x")):
        error = refused(llama(**{"tokenizer.ggml.model": model, f"tokenizer.ggml.{key}": odd}))
        assert isinstance(error, BadModelFile)


def test_lengths_of_recurrent_layers_are_checked_where_there_are_some() -> None:
    for odd in (V("i32", -128), V("u64", 2**62), 1.5, "long"):
        changes = {"llama.ssm.inner_size": odd}
        assert card_of(llama(**changes)).layers == 2
        recurrent = gguf(llama_metadata(**changes), [*llama_tensors(), T("blk.0.ssm_a", (8,))])
        assert "llama.ssm.inner_size is " in refused(recurrent).message


def test_a_key_in_an_error_is_one_short_line() -> None:
    error = refused(header([("a\nb" + "c" * 300, 1), ("a\nb" + "c" * 300, 2)]))
    assert "the key a\\nb" in error.message
    assert len(error.message) < 200


# Models that the engine does not know


def test_the_lists_are_those_of_the_installed_engine() -> None:
    assert version("llama-cpp-python") == engine_lists.ENGINE_VERSION
    library = LIBRARY.read_bytes()
    for name in (*ARCHITECTURES, *TOKENIZERS, *PRE_TOKENIZERS):
        assert name.encode() + b"\0" in library, name


def test_the_engine_agrees_about_names_at_the_edge(tmp_path: Path) -> None:
    for key, known, other in (
        ("tokenizer.ggml.pre", "mellum2", "mellum3"),
        ("tokenizer.ggml.pre", "llama-bpe", "llama-bp"),
        ("tokenizer.ggml.model", "gpt2", "gpt3"),
    ):
        path = write(tmp_path / "known.gguf", llama_metadata(**{key: known}))
        check_known(read_card(path))
        try_in_child(path)
        path = write(tmp_path / "other.gguf", llama_metadata(**{key: other}))
        with pytest.raises(Incompatible):
            check_known(read_card(path))
        with pytest.raises(Incompatible, match="unknown"):
            try_in_child(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokenizer.ggml.pre": "next9"}, "does not know its pre-tokenizer, 'next9'"),
        ({"tokenizer.ggml.model": "next9"}, "does not know its tokenizer, 'next9'"),
        ({"llama.rope.scaling.type": "next9"}, "does not know its kind of llama.rope.scaling.type, 'next9'"),
        ({"llama.expert_gating_func": 9}, "does not know its kind of llama.expert_gating_func, '9'"),
    ],
)
def test_what_the_engine_does_not_know_is_said_with_its_version(changes: dict[str, Any], said: str) -> None:
    error = refused(llama(**changes))
    assert error.message == f"model.gguf: llama-cpp-python 0.3.36 {said}; the file itself is sound"
    assert "dsr list --catalog" in str(error.hint)
    assert error.exit_code == 7


def renamed(architecture: str, **changes: Any) -> bytes:
    own = {key.replace("llama.", f"{architecture}.", 1): value for key, value in llama_metadata().items()}
    own |= {"general.architecture": architecture, **changes}
    return gguf({key: value for key, value in own.items() if value is not None}, llama_tensors())


def test_an_unknown_architecture_with_or_without_the_usual_facts() -> None:
    said = "model.gguf: llama-cpp-python 0.3.36 does not know its architecture, 'next9'; the file itself is sound"
    assert card_of(renamed("next9")).layers == 2
    assert refused(renamed("next9")).message == said
    assert refused(renamed("next9", **{"next9.block_count": None})).message == said
    assert refused(renamed("next9", **{"tokenizer.ggml.model": None})).message == said


@pytest.mark.parametrize("architecture", ["rwkv7", "arwkv7"])
def test_heads_whose_ends_a_kernel_would_pass_are_refused_before_the_engine_opens_them(architecture: str) -> None:
    """The engine reads and writes beyond the state of a head whose length is not a multiple of 64."""
    key = f"{architecture}.wkv.head_size"
    assert refused(renamed(architecture, **{key: 16})).message == (
        f"model.gguf: its heads have 16 elements, and the engine computes those of {architecture} 64 at a time"
    )
    check_answers(card_of(renamed(architecture, **{key: 128})))


def test_a_pre_tokenizer_matters_only_where_it_is_read() -> None:
    spm = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "next9", "tokenizer.ggml.scores": [0.0] * 8}
    check_answers(card_of(llama(**spm)))
    check_answers(card_of(llama(**{"tokenizer.ggml.pre": None})))


# Files of other kinds


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (renamed("bert"), "an embedding model, which writes no text"),
        (renamed("eagle3"), "a draft model of a kind that dsr cannot use: it only guesses ahead for another model"),
        (renamed("dream"), "a diffusion model, which dsr cannot run"),
        (renamed("controlvector"), "a control vector, not a model"),
        (renamed("flux"), "an image or video model, not a language model"),
        (gguf(llama_metadata()), "only a vocabulary, without the weights of a model"),
        (gguf({"general.type": "imatrix", "imatrix.chunk_count": 3}), "an importance matrix, not a model"),
        (gguf({"general.architecture": "clip"}), "an image or audio projector, not a model"),
        (gguf({"general.type": "mmproj"}), "an image or audio projector, not a model"),
        (gguf({"general.type": "expert-profile"}), "a profile of experts, not a model"),
    ],
)
def test_other_kinds_of_gguf_are_called_by_their_name(data: bytes, said: str) -> None:
    error = refused(data)
    assert error.message == f"model.gguf: {said}"
    assert error.hint
    assert error.exit_code == 7


def test_a_lora_adapter_names_its_model() -> None:
    metadata = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}
    error = refused(gguf({**metadata, "general.base_model.0.name": "Llama 3.1 8B"}, [T("a.lora_a", (8, 8))]))
    assert error.message == "model.gguf: a LoRA adapter, not a model"
    assert error.hint == "give the GGUF file of the model itself, Llama 3.1 8B"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            struct.pack("<II", 225, 22) + b"blk.0.attn_output.weight" + bytes(40),
            "an importance matrix in the old format",
        ),
        (b"\x1f\x8b\x08" + bytes(40), "a compressed file (gzip)"),
        (bytes(4096), "a file of zeros only, not a GGUF file"),
    ],
)
def test_more_files_that_are_not_gguf(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(BadModelFile) as caught:
        read_card(path)
    assert said in caught.value.message


# Headers that would be dear


def counted(kind: int, count: int, payload: bytes) -> bytes:
    start = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a" + struct.pack("<I", 9)
    return start + struct.pack("<IQ", kind, count) + payload


def test_counts_beyond_all_models_are_refused_before_anything_is_read() -> None:
    big = 1 << 40
    for data, said in (
        (counted(8, 2**22 + 1, b""), "it has 4194305 entries of a, and dsr reads at most 4194304"),
        (header(tensor_count=2**16 + 1), "it has 65537 tensors, and dsr reads at most 65536"),
        (header(metadata_count=2**16 + 1), "it has 65537 keys, and dsr reads at most 65536"),
        (counted(0, 2**27, b""), "bytes before its weights, and dsr reads at most 134217728"),
    ):
        with pytest.raises(Incompatible, match=said):
            parse_header(data, big, FILE)


def test_a_vocabulary_beyond_all_models_is_refused() -> None:
    data = gguf({"general.architecture": "llama", "tokenizer.ggml.model": "llama"})
    many = counted(8, 2**20 + 1, bytes(8 * (2**20 + 1)))[24:]
    many = many.replace(b"\x01\0\0\0\0\0\0\0a", struct.pack("<Q", 21) + b"tokenizer.ggml.tokens", 1)
    whole = data[:16] + struct.pack("<Q", 3) + data[24:].rstrip(b"\0") + many
    with pytest.raises(Incompatible, match="a vocabulary of 1048577 tokens, and dsr reads at most 1048576"):
        card_of(whole)


def test_a_long_string_is_asked_for_only_within_the_limit() -> None:
    start = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a" + struct.pack("<I", 8)
    with pytest.raises(HeaderTruncated) as short:
        parse_header(start + struct.pack("<Q", 2**26), 1 << 40, FILE)
    assert short.value.needed == len(start) + 8 + 2**26
    with pytest.raises(Incompatible, match="bytes before its weights"):
        parse_header(start + struct.pack("<Q", 2**27), 1 << 40, FILE)


def test_one_token_is_read_without_the_others() -> None:
    card = card_of(llama())
    assert [card.token_text(n) for n in range(9)] == [*VOCABULARY, ""]


def test_a_long_name_is_shortened() -> None:
    assert len(card_of(llama(**{"general.name": "x" * 100_000})).name) == 200


# Anything at all

SOUND = llama()
END = len(header(llama_metadata(), llama_tensors()))
WRONG = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.sampled_from([0, 1, 99, 2**16, 2**20, 2**27, 2**31, 2**32 - 1]).map(lambda number: struct.pack("<I", number)),
    st.sampled_from([0, 2**17, 2**22, 2**27, 2**40, 2**63, 2**64 - 1]).map(lambda number: struct.pack("<Q", number)),
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(st.integers(4, END - 1), WRONG), min_size=1, max_size=4))
def test_a_changed_header_is_a_card_or_our_error_in_little_memory(changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(SOUND)
    for at, wrong in changes:
        data[at : at + len(wrong)] = wrong
    tracemalloc.start()
    try:
        check_answers(card_of(bytes(data)))
    except DsrError as error:
        assert error.exit_code in (4, 7)
        assert error.hint
        assert len(error.message) < 600
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 16 * len(SOUND)
