"""What the trained length makes of an asked context, and what --rope makes of the trained length."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.loading.options import LoadOptions, RopeRequest, rope_request
from dsr.loading.reach import settled, too_long, yarn_note
from dsr.models import catalog
from dsr.models.catalog import CatalogEntry
from runtime.base.errors import DoesNotFit, Incompatible, UsageError
from runtime.gguf.card import ModelCard
from runtime.gguf.rope import Yarn
from tests.dsr.chat.chatting import card as a_card

YARN = RopeRequest()


def card(trained: int = 8192, architecture: str = "llama", **metadata: object) -> ModelCard:
    known = {f"{architecture}.{key.replace('__', '.')}": value for key, value in metadata.items()}
    return replace(a_card(metadata=known), architecture=architecture, context_length=trained)


def qwen3() -> CatalogEntry:
    entry = catalog.load().lookup("qwen3:8b")
    assert entry is not None
    return entry


def test_a_context_within_the_trained_length_is_taken() -> None:
    assert settled(LoadOptions(8192), card(), None).context == 8192
    assert settled(LoadOptions(), card(), None) == LoadOptions()


def test_a_longer_context_is_refused_with_both_ways_out() -> None:
    with pytest.raises(DoesNotFit) as caught:
        settled(LoadOptions(11000), card(), None)
    assert caught.value.message == (
        "a context of 11000 tokens is too long for Fake: it was trained with texts of 8192 tokens; beyond that "
        "it answers wrongly"
    )
    assert caught.value.hint == (
        "use --ctx-size 8192, or try --rope yarn:1.5 --ctx-size 11000, untested by the vendor: check the answers"
    )
    assert caught.value.exit_code == 5


def test_beyond_twice_the_trained_length_only_a_shorter_context_is_advised() -> None:
    with pytest.raises(DoesNotFit) as caught:
        settled(LoadOptions(16385), card(), None)
    assert caught.value.hint == "use --ctx-size 8192"


@pytest.mark.parametrize("architecture", ["mamba", "rwkv7", "jamba", "nemotron_h", "kimi-linear"])
def test_a_model_without_rotary_positions_is_told_no_yarn(architecture: str) -> None:
    with pytest.raises(DoesNotFit) as caught:
        settled(LoadOptions(11000), card(architecture=architecture), None)
    assert caught.value.hint == "use --ctx-size 8192"
    with pytest.raises(Incompatible, match=f"{architecture} has no rotary positions") as refused:
        settled(LoadOptions(11000, rope=YARN), card(architecture=architecture), None)
    assert refused.value.hint == "leave out --rope"


@pytest.mark.parametrize("architecture", ["granite", "granitemoe", "granitehybrid"])
def test_a_granite_file_that_turns_rotary_positions_off_gets_no_yarn(architecture: str) -> None:
    with pytest.raises(Incompatible, match="its file turns rotary positions"):
        settled(LoadOptions(11000, rope=YARN), card(architecture=architecture, rope__scaling__finetuned=False), None)
    rotating = card(architecture=architecture)
    assert settled(LoadOptions(11000, rope=YARN), rotating, None).yarn == Yarn(1.5, 8192)


@pytest.mark.parametrize(("architecture", "layers"), [("cohere2", 32), ("exaone-moe", 48), ("exaone4", 64)])
def test_a_model_that_rotates_in_its_windows_alone_gets_no_yarn(architecture: str, layers: int) -> None:
    known = replace(card(architecture=architecture), layers=layers)
    with pytest.raises(Incompatible, match="its layers without a sliding window have no rotary positions"):
        settled(LoadOptions(11000, rope=YARN), known, None)
    assert settled(LoadOptions(9000, rope=YARN), replace(card(architecture="exaone4"), layers=30), None).yarn


def test_samples_that_are_drawn_together_share_a_longer_context() -> None:
    assert settled(LoadOptions(16384).for_samples(2), card(), None).context == 16384
    with pytest.raises(DoesNotFit) as caught:
        settled(LoadOptions(16385).for_samples(2), card(), None)
    assert caught.value.hint == "use --ctx-size 16384"
    assert "it was trained with texts of 8192 tokens, and 2 samples share at most 16384; beyond" in caught.value.message
    with pytest.raises(DoesNotFit):  # open slots that may never be used together
        settled(LoadOptions(16384, slots=8), card(), None)


def test_the_settings_give_a_context_to_the_models_that_reach_it() -> None:
    usual = LoadOptions(usual_context=10_000)
    assert settled(usual, card(), None).context == 8192
    assert settled(usual, card(32768), None).context == 10_000
    assert settled(replace(usual, context=4096), card(), None).context == 4096
    assert settled(replace(usual, rope=RopeRequest(2)), card(), None).context == 10_000


@pytest.mark.parametrize(("context", "factor"), [(100, 1.5), (8192, 1.5), (12288, 1.5), (12289, 2), (16384, 2)])
def test_yarn_takes_the_smallest_factor_that_covers_the_context(context: int, factor: float) -> None:
    assert settled(LoadOptions(context, rope=YARN), card(), None).yarn == Yarn(factor, 8192)


def test_yarn_takes_the_factor_of_the_user() -> None:
    asked = settled(LoadOptions(rope=RopeRequest(3)), card(), None)
    assert (asked.yarn, asked.context) == (Yarn(3, 8192), None)
    with pytest.raises(DoesNotFit, match=r"and YaRN with factor 1\.2 reaches 9830") as caught:
        settled(LoadOptions(11000, rope=RopeRequest(1.2)), card(), None)
    assert caught.value.hint == (
        "use --ctx-size 9830, or try --rope yarn:1.5 --ctx-size 11000, untested by the vendor: check the answers"
    )


def test_yarn_takes_original_length_and_factor_of_the_vendor() -> None:
    trained = card(40960, "qwen3")  # the length in its files has room for an answer of 8192 tokens
    assert settled(LoadOptions(rope=YARN), trained, qwen3()).yarn == Yarn(4, 32768)
    assert settled(LoadOptions(65536, rope=YARN), trained, qwen3()).yarn == Yarn(2, 32768)
    with pytest.raises(DoesNotFit) as caught:
        settled(LoadOptions(131072), trained, qwen3())
    assert caught.value.hint == "use --ctx-size 40960, or use --rope yarn:4 --ctx-size 131072"


def test_yarn_without_a_length_and_a_known_factor_asks_for_one() -> None:
    with pytest.raises(UsageError, match="--rope yarn needs a factor: the vendor of Fake documents none") as caught:
        settled(LoadOptions(rope=YARN), card(), None)
    assert caught.value.hint == "add --ctx-size 16384, or name the factor: --rope yarn:2"


def test_a_context_beyond_every_factor_is_refused() -> None:
    with pytest.raises(DoesNotFit):
        settled(LoadOptions(2**31 - 1, rope=YARN), card(), None)


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"rope__scaling__type": "yarn", "rope__scaling__factor": 40.0}, r"\(yarn, factor 40\)"),
        ({"rope__scaling__type": "longrope", "rope__scaling__factor": 32.0}, r"\(longrope, factor 32\)"),
        ({"rope__scaling__factor": 4.0}, r"\(linear, factor 4\)"),
        ({"rope__scale_linear": 4.0}, r"\(linear, factor 4\)"),
    ],
)
def test_a_file_that_scales_positions_itself_gets_no_second_scaling(metadata: dict[str, object], why: str) -> None:
    with pytest.raises(Incompatible, match=f"its 8192 tokens already include the scaling of its file {why}"):
        settled(LoadOptions(8192, rope=YARN), card(**metadata), None)


def test_a_file_whose_yarn_reaches_farther_than_its_length_may_use_it() -> None:
    own = card(40960, rope__scaling__type="yarn", rope__scaling__factor=4.0,
               rope__scaling__original_context_length=32768)  # fmt: skip
    assert settled(LoadOptions(rope=YARN), own, None).yarn == Yarn(4, 32768)


def test_a_scaling_of_none_or_one_is_no_scaling() -> None:
    for metadata in ({"rope__scaling__type": "none", "rope__scaling__factor": 4.0}, {"rope__scaling__factor": 1.0}):
        assert settled(LoadOptions(16384, rope=YARN), card(**metadata), None).yarn == Yarn(2, 8192)


def test_a_prompt_that_is_too_long_names_the_way_that_helps() -> None:
    known = card()
    cases = {
        (1500, 2048, None): "shorten the prompt, or use --ctx-size 2524",
        (8000, 2048, None): "shorten the prompt, or use --ctx-size 8192",
        (
            9000,
            8192,
            None,
        ): "shorten the prompt, or try --rope yarn:1.5 --ctx-size 10024, untested by the vendor: check the answers",
        (9000, 8192, Yarn(4, 8192)): "shorten the prompt, or use --ctx-size 10024",
        (99_000, 8192, None): "shorten the prompt",
    }
    for (tokens, longest, yarn), hint in cases.items():
        error = too_long(known, None, yarn, tokens, longest)
        assert error.hint == hint
        assert error.message == (
            f"the prompt is {tokens} tokens long, and {longest} is the most for a prompt with its answer"
        )


@given(trained=st.integers(256, 1 << 20), tokens=st.integers(1, 1 << 24))
def test_what_a_hint_advises_is_never_refused(trained: int, tokens: int) -> None:
    hint = too_long(card(trained), None, None, tokens, trained).hint or ""
    _, yarn, advice = hint.removesuffix(", untested by the vendor: check the answers").partition(", or try --rope ")
    if yarn:
        rope, _, context = advice.partition(" --ctx-size ")
        asked = LoadOptions(int(context), rope=rope_request(rope))
        assert settled(asked, card(trained), None).context == tokens + 1024


def test_the_cost_of_yarn_is_told_and_doubt_where_nobody_tested_it() -> None:
    assert yarn_note(card(), None, Yarn(2, 8192)) == (
        "YaRN with factor 2: a text may have 16384 tokens instead of 8192, and short texts get a little worse; it is "
        "untested by the vendor of Fake, so check long answers"
    )
    assert yarn_note(card(40960, "qwen3"), qwen3(), Yarn(4, 32768)).endswith("and short texts get a little worse")
    assert "untested" in yarn_note(card(40960, "qwen3"), qwen3(), Yarn(8, 32768))


@pytest.mark.parametrize("text", ["linear", "yarn:", "yarn:x", "yarn:nan", "yarn:inf", "YARN", "", "yarn:1e999", "2"])
def test_other_spellings_of_rope_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--rope is yarn or yarn:FACTOR, not"):
        rope_request(text)


@pytest.mark.parametrize("text", ["yarn:1", "yarn:0", "yarn:-2", "yarn:64.5"])
def test_factors_out_of_bounds_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="the factor is above 1 and at most 64"):
        rope_request(text)


def test_rope_is_spelled_with_and_without_a_factor() -> None:
    assert rope_request(None) is None
    assert rope_request("yarn") == RopeRequest()
    assert rope_request("yarn:2.5") == RopeRequest(2.5)
