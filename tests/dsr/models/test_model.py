"""What a model knows about itself: its header, its family, a reference that finds it from everywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dsr.models import model as module
from dsr.models.catalog import Sampling, load
from dsr.models.library import find
from dsr.models.model import ChatFormat
from dsr.models.sampling import ENGINE_DEFAULTS, RecommendedSampling, SamplingRequest, recommended_sampling
from runtime.base.errors import Incompatible, UsageError
from runtime.base.types import Message, SamplingParams
from runtime.engine.template import ChatTemplate
from runtime.gguf.card import ModelCard
from runtime.gguf.reader import read_card
from tests.dsr.chat.chatting import PLAIN, SWITCHED, TAGS, a_model, card, with_card


def test_the_header_is_read_at_the_first_use_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path) -> ModelCard:
        read.append(path)
        return read_card(path)

    monkeypatch.setattr(module, "read_card", counted)
    nano = find("nano")
    assert read == []
    assert nano.card.name == nano.card.name
    assert read == [nano.path]


def test_another_file_has_another_header(tmp_path: Path) -> None:
    nano = replace(find("nano"), digests=("0" * 64,))
    other = tmp_path / "other.gguf"
    other.write_bytes(nano.path.read_bytes())
    assert nano.card.path == nano.path
    moved = nano.with_file(other)
    assert (moved.path, moved.files, moved.size, moved.digests) == (other, (other,), nano.size, ())
    assert moved.card.path == other


def test_a_given_header_is_not_read() -> None:
    known = with_card(a_model(), card("DeepSeek R1"))
    assert known.card.name == "DeepSeek R1"
    assert known == a_model()


def test_the_family_is_the_catalogues_or_the_files_own_name() -> None:
    entry = next(entry for entry in load().entries if entry.name == "qwq:32b")
    assert with_card(replace(a_model(), entry=entry), card("DeepSeek R1")).family == entry.family
    assert with_card(a_model(), card("DeepSeek R1")).family == "deepseek-r1"
    assert with_card(a_model(), card("SmolLM2")).family == ""


def test_a_file_is_found_again_from_any_folder() -> None:
    file = replace(a_model("fake.gguf"), repo=None)
    assert file.absolute_reference == str(file.path.absolute())
    assert a_model().absolute_reference == "fake:1b"
    assert find("nano").absolute_reference == "nano"


def test_the_short_name_is_the_vendors() -> None:
    entry = next(entry for entry in load().entries if entry.name == "qwq:32b")
    assert find("nano").short_name == "nano"
    assert replace(a_model(), entry=entry).short_name == "QwQ-32B"
    assert a_model().short_name == "fake:1b"


def test_a_given_template_replaces_the_files_own() -> None:
    hello = [Message("user", "hello")]
    nano = find("nano")
    assert nano.chat_format().prompt(hello).text.startswith("<｜begin▁of▁sentence｜>")
    assert nano.chat_format().markers == nano.markers()
    assert nano.chat_format("{{ messages[0].content }}").prompt(hello).text == "hello"
    with pytest.raises(Incompatible, match="Fake has no chat template"):
        with_card(a_model(), replace(card(), template=None)).chat_format()


def test_sampling_is_what_the_catalogue_or_the_file_says() -> None:
    r1 = next(entry for entry in load().entries if entry.name == "deepseek-r1:7b")
    found = recommended_sampling(r1, card())
    assert (found.params.temperature, found.params.top_p, found.origin) == (0.6, 0.95, "catalogue")
    said = {"general.sampling.temp": 0.699999988079071, "general.sampling.top_p": 0.8, "general.sampling.top_k": 20}
    found = recommended_sampling(None, card(metadata=said))
    params = found.params
    assert (params.temperature, params.top_p, params.top_k, found.origin) == (0.7, 0.8, 20, "model file")
    assert recommended_sampling(None, card()) == RecommendedSampling(ENGINE_DEFAULTS, "default")


def test_penalties_of_the_catalogue_and_of_the_file_are_recommended() -> None:
    qwq = next(entry for entry in load().entries if entry.name == "qwq:32b")
    advised = replace(qwq, sampling=Sampling(0.6, presence_penalty=1.5, penalty_last_n=-1, repeat_penalty=1.0))
    params = recommended_sampling(advised, card()).params
    assert (params.top_p, params.min_p, params.top_k) == (1.0, 0.0, 40)
    assert (params.presence_penalty, params.penalty_last_n, params.repeat_penalty) == (1.5, -1, 1.0)
    said = {"temp": 0.7, "penalty_repeat": 1.0499999523162842, "penalty_last_n": 256, "min_p": 0.05, "mirostat": 2}
    params = recommended_sampling(None, card(metadata={f"general.sampling.{key}": said[key] for key in said})).params
    assert (params.repeat_penalty, params.penalty_last_n, params.min_p, params.top_p) == (1.05, 256, 0.05, 1.0)


@pytest.mark.parametrize(
    "said",
    [
        {"temp": -1.0},
        {"temp": float("nan")},
        {"temp": 1},
        {"temp": 0.7, "top_p": 0.0},
        {"temp": 0.7, "top_k": -5},
        {"temp": 0.7, "top_k": 2**31},
        {"temp": 0.7, "penalty_repeat": 0.0},
    ],
)
def test_sampling_that_nobody_can_draw_with_is_no_recommendation(said: dict[str, float]) -> None:
    metadata = {f"general.sampling.{key}": value for key, value in said.items()}
    assert recommended_sampling(None, card(metadata=metadata)) == RecommendedSampling(ENGINE_DEFAULTS, "default")


def test_a_truth_value_is_no_number_of_candidates() -> None:
    found = recommended_sampling(None, card(metadata={"general.sampling.temp": 0.7, "general.sampling.top_k": True}))
    assert found.params.top_k == ENGINE_DEFAULTS.top_k
    assert type(found.params.top_k) is int


def test_the_users_options_win_and_zero_is_an_option() -> None:
    params = SamplingRequest(temperature=0.0, seed=0, stop=("X",)).applied_to(ENGINE_DEFAULTS)
    assert params == replace(ENGINE_DEFAULTS, temperature=0.0, seed=0, stop=("X",))
    with pytest.raises(UsageError, match="temperature must be between 0 and 10"):
        SamplingRequest(temperature=99).applied_to(SamplingParams())


def test_without_a_seed_each_request_gets_its_own() -> None:
    seeds = {SamplingRequest().applied_to(ENGINE_DEFAULTS).seed for _ in range(8)}
    assert len(seeds) > 1


def test_thinking_options_that_cannot_be_followed_are_named() -> None:
    note = "this model does not mark thoughts: they cannot be switched on or off, limited or hidden"
    plain = ChatFormat(ChatTemplate(PLAIN, bos="", eos=""), None)
    assert plain.thinking_note(None, None) is None
    assert plain.thinking_note(True, None) == plain.thinking_note(False, None) == note
    assert plain.thinking_note(None, 20) == note
    switched = ChatFormat(ChatTemplate(SWITCHED, bos="", eos=""), None)
    assert switched.thinking_note(False, None) is None
    assert switched.thinking_note(True, 20) == note
    assert ChatFormat(plain.template, TAGS).thinking_note(False, 20) is None


def test_sampling_that_the_catalogue_could_not_verify_gives_way_to_that_of_the_file() -> None:
    qwen = next(entry for entry in load().entries if entry.name == "qwen3:8b")
    told = card(metadata={"general.sampling.temp": 0.25})
    assert recommended_sampling(qwen, told).params.temperature == 0.6
    unsure = replace(qwen, unverified=("sampling",))
    assert recommended_sampling(unsure, told).params.temperature == 0.25
    assert recommended_sampling(unsure, told).origin == "model file"
    assert recommended_sampling(unsure, card()).params.temperature == 0.6


def test_messages_name_the_chat_template_in_use() -> None:
    nano = find("nano")
    assert nano.chat_format().source == "the chat template of nano"
    assert nano.chat_format(PLAIN).source == "the chat template of --template"
