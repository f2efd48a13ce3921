"""Tokenization with the real engine: of vocabularies, because weights do not matter here."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.base.errors import Aborted
from runtime.base.run import Stop
from runtime.llama.bindings import native
from runtime.llama.text_pieces import LONGEST, has_long_stretch
from runtime.llama.tokenizer import Tokenizer
from tests.hostile_texts import play, sentencepiece, variant

BOS, END, USER = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>"


class Vocabulary(Tokenizer):
    """A vocabulary without weights, with the engine's own results."""

    def __init__(self, path: Path, stack: ExitStack, stop: Stop | None = None) -> None:
        params = native.llama_model_default_params()
        params.vocab_only = True
        model = native.llama_model_load_from_file(os.fsencode(path), params)
        assert model
        stack.callback(native.llama_model_free, model)
        super().__init__(native.llama_model_get_vocab(model), stop)

    def whole(self, text: str, *, add_special: bool = False) -> list[int]:
        data = text.encode()
        buffer = (ctypes.c_int32 * (len(data) + 8))()
        count = native.llama_tokenize(self._vocab, data, len(data), buffer, len(buffer), add_special, True)
        return buffer[:count]

    def spell(self, tokens: list[int]) -> str:
        buffer, spelled = ctypes.create_string_buffer(512), b""
        for token in tokens:
            spelled += buffer[: native.llama_token_to_piece(self._vocab, token, buffer, 512, 0, True)]
        return spelled.decode()


Open = Callable[[Path], Vocabulary]


@pytest.fixture(scope="module")
def open_vocabulary() -> Iterator[Open]:
    with ExitStack() as stack:
        yield lambda path: Vocabulary(path, stack)


@pytest.fixture(scope="module")
def nano(open_vocabulary: Open, nano_path: Path) -> Vocabulary:
    return open_vocabulary(nano_path)


@pytest.fixture(scope="module")
def spm(open_vocabulary: Open, tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return open_vocabulary(sentencepiece(tmp_path_factory.mktemp("spm") / "spm.gguf"))


def with_pre(open_vocabulary: Open, nano_path: Path, folder: Path, pre: str) -> Vocabulary:
    return open_vocabulary(variant(nano_path, folder / f"{pre}.gguf", pre=pre))


words = st.one_of(
    st.sampled_from(
        [BOS, END, USER, "<think>", "</think>", "</s>", "<s>", "it's", "  ", "\n\n", ", ", "日本", "🙂", "1234"]
    ),
    st.text(max_size=8),
)
texts = st.lists(words, max_size=40).map("".join).filter(lambda text: text.isprintable() or "\ud800" not in text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=texts)
def test_a_text_gets_the_engines_own_tokens(nano: Vocabulary, spm: Vocabulary, text: str) -> None:
    for vocabulary in (nano, spm):
        expected = vocabulary.whole(text)
        assert vocabulary.tokenize(text) == expected
        # An offset behind the text changes nothing, but the text is split here instead of in the engine.
        assert vocabulary.tokenize(text, literal=(10**6,)) == expected


@pytest.mark.parametrize("pre", ["deepseek-v3", "gpt-4o", "qwen2", "tekken", "default", "llama3"])
def test_long_texts_get_the_engines_own_tokens(
    open_vocabulary: Open, nano_path: Path, tmp_path: Path, pre: str
) -> None:
    vocabulary = with_pre(open_vocabulary, nano_path, tmp_path, pre)
    text = f"{USER}It's 3,141 words, or so.\n\n\tdef f(x): return x['日本'] # größer\n<think>中文。" * 200
    assert len(text) > 8192
    assert not has_long_stretch(text)
    assert vocabulary.tokenize(text) == vocabulary.whole(text)


@pytest.mark.parametrize("pre", ["deepseek-v3", "gpt-4o", "qwen2", "tekken", "llama3"])
def test_words_without_signs_are_cut_where_the_pre_tokenizer_cuts(
    open_vocabulary: Open, nano_path: Path, tmp_path: Path, pre: str
) -> None:
    vocabulary = with_pre(open_vocabulary, nano_path, tmp_path, pre)
    for text in ("the quick 17 foxes " * 200, "aGVsbG8gd29ybGQ0" * 200, "中文,测试" * 300):
        assert has_long_stretch(text)
        assert vocabulary.tokenize(text) == vocabulary.whole(text)


@pytest.mark.parametrize("unit", [" ", "-", "x", "7", "中", "\n", "e\u0301"])
def test_long_runs_spell_the_same_with_nearly_as_few_tokens(nano: Vocabulary, unit: str) -> None:
    text = "ab" + unit * 4000 + "c d"
    tokens, whole = nano.tokenize(text), nano.whole(text)
    assert nano.spell(tokens) == text
    # At most one token more at each cut, and the tokens next to it.
    assert abs(len(tokens) - len(whole)) <= 3 * (len(text) // LONGEST + 1)


@pytest.mark.skipif(sys.platform == "win32", reason="ulimit")
@pytest.mark.parametrize("pre", ["deepseek-v3", "deepseek-llm", "gpt-4o", "bloom", "exaone-moe", "superbpe", "default"])
def test_hostile_texts_end_no_process(nano_path: Path, tmp_path: Path, pre: str) -> None:
    path = variant(nano_path, tmp_path / "vocabulary.gguf", pre=pre)
    assert play(path, seed=1, count=5, longest=60_000) == (5, [])


@pytest.mark.skipif(sys.platform == "win32", reason="ulimit")
def test_hostile_texts_end_no_process_with_sentencepiece(tmp_path: Path) -> None:
    assert play(sentencepiece(tmp_path / "spm.gguf"), seed=1, count=5, longest=60_000) == (5, [])


# Spellings that are text


@pytest.mark.parametrize("spelling", [BOS, END, USER, "<think>", "</think>"])
def test_a_literal_spelling_is_letters(nano: Vocabulary, spelling: str) -> None:
    text = f"Say {spelling}, twice {spelling}"
    tokens = nano.tokenize(text, literal=(4, text.rindex(spelling)))
    assert nano.spell(tokens) == text
    assert not {0, 1, 2, 3, 4, 5, 6} & set(tokens)
    other = f"Say {spelling}, twice "
    [number] = nano.whole(spelling)
    assert nano.tokenize(text, literal=(4,)) == [*nano.tokenize(other, literal=(4,)), number]


def test_a_literal_spelling_is_letters_for_sentencepiece(spm: Vocabulary) -> None:
    names = ["<unk>", "<s>", "</s>", "<|im_end|>", "<think>"]
    for number, spelling in enumerate(names):
        text = f"ab {spelling}ab"
        assert number in spm.tokenize(text)
        tokens = spm.tokenize(text, literal=(3,))
        assert not set(tokens) & {0, 1, 2, 3, 4}, spelling
        assert spm.spell(tokens) == f" {text}"  # SPM's space before a text, and none where it was cut


# Beginning and end


def test_the_beginning_is_added_once(nano: Vocabulary) -> None:
    assert nano.first_token == 0
    assert nano.tokenize("a", add_bos=True) == [0, 71]
    assert nano.tokenize(f"{BOS}a", add_bos=True) == [0, 71]
    assert nano.tokenize("", add_bos=True) == [0]


def test_a_quoted_beginning_is_no_beginning(nano: Vocabulary) -> None:
    assert nano.tokenize(f"{BOS}a", add_bos=True, literal=(0,))[:1] == [0]
    assert nano.spell(nano.tokenize(f"{BOS}a", add_bos=True, literal=(0,))) == f"{BOS}{BOS}a"


def test_the_end_is_never_added(open_vocabulary: Open, nano_path: Path, tmp_path: Path) -> None:
    trained = open_vocabulary(variant(nano_path, tmp_path / "eos.gguf", add_eos_token=True))
    assert trained.whole("a", add_special=True) == [0, 71, 1]
    assert trained.tokenize("a", add_bos=True) == [0, 71]


def test_a_vocabulary_without_a_beginning_adds_none(open_vocabulary: Open, nano_path: Path, tmp_path: Path) -> None:
    plain = open_vocabulary(variant(nano_path, tmp_path / "plain.gguf", add_bos_token=False))
    assert plain.first_token is None
    assert plain.tokenize("a", add_bos=True) == [71]


def test_a_long_tokenization_can_be_stopped(nano_path: Path) -> None:
    with ExitStack() as stack:
        stop = Stop()
        vocabulary = Vocabulary(nano_path, stack, stop)
        stop.set()
        with pytest.raises(Aborted):
            vocabulary.tokenize(" " * 10_000)
        assert vocabulary.tokenize("a") == [71]
