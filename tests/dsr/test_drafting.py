"""`--draft`: what may draft for a model, what it costs in memory, and what is said about it afterwards."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dsr import library
from dsr.console import Console
from dsr.services import asking
from dsr.services.chat import SamplingRequest
from dsr.services.drafting import draft_model
from dsr.services.opening import OpenRequest, opened
from dsr.services.report import drafts_json, stats_line
from runtime import memory
from runtime.errors import Incompatible, NotFound, UsageError
from runtime.gguf import read_card
from runtime.speculation import DraftStatistics, ModelDrafter, NgramDrafter
from tests.dsr.chatting import card, conversation
from tests.gguf_writer import write

QUESTION = "What is 347 + 586?"


@pytest.mark.parametrize("draft", [None, "ngram"])
def test_the_text_itself_needs_no_second_model(nano_path: Path, draft: str | None) -> None:
    assert draft_model(draft, read_card(nano_path), None) is None


def test_a_file_without_mtp_layers_says_so(nano_path: Path) -> None:
    with pytest.raises(Incompatible, match=r"^Nano: this file carries no MTP layers to draft with$") as caught:
        draft_model("mtp", read_card(nano_path), None)
    assert caught.value.exit_code == 7
    assert caught.value.hint == "try --draft ngram"


def test_a_file_with_mtp_layers_is_told_that_they_are_not_used(nano_path: Path) -> None:
    with pytest.raises(Incompatible, match=r"^drafting with MTP layers is not supported$"):
        draft_model("mtp", replace(read_card(nano_path), nextn_layers=1), None)


def test_a_second_model_is_found_like_any_model(nano_path: Path) -> None:
    found = draft_model("nano", read_card(nano_path), None)
    assert found is not None
    assert found.vocabulary == 640
    assert found.context == read_card(nano_path).context_length
    assert found.memory == memory.need(found.card, found.context).total > 0
    with pytest.raises(NotFound):
        draft_model("no-such-model", read_card(nano_path), None)


def test_a_second_model_follows_no_further_than_it_can_see(nano_path: Path) -> None:
    long = replace(read_card(nano_path), context_length=1_000_000)
    found = draft_model("nano", long, None)
    assert found is not None
    assert found.context == read_card(nano_path).context_length
    found = draft_model("nano", long, 700)
    assert found is not None
    assert found.context == 700


def test_another_vocabulary_is_refused(tmp_path: Path, nano_path: Path) -> None:
    other = write(tmp_path / "other.gguf")
    with pytest.raises(Incompatible, match="cannot draft for Nano: their vocabularies differ"):
        draft_model(str(other), read_card(nano_path), None)
    with pytest.raises(Incompatible, match="cannot draft for Fake"):
        draft_model("nano", card(), None)


def test_an_opened_model_comes_with_its_drafter() -> None:
    local = library.find("nano")
    with opened(local, OpenRequest(context=512, threads=1)) as model:
        assert model.drafter is None
        assert model.backend.most_outputs == 2
    with opened(local, OpenRequest(context=512, threads=1, draft="ngram")) as model:
        assert isinstance(model.drafter, NgramDrafter)
        assert model.backend.most_outputs == 16
    with opened(local, OpenRequest(context=512, threads=1, draft="nano")) as model:
        assert isinstance(model.drafter, ModelDrafter)


def told(capsys: pytest.CaptureFixture[str], **fields: object) -> dict[str, object]:
    request = asking.ChatRequest(
        prompt=QUESTION,
        sampling=SamplingRequest(seed=1),
        ctx_size=512,
        threads=1,
        keep=False,
        **fields,  # type: ignore[arg-type]
    )
    assert asking.run(request, Console(json_mode=True, quiet=False), interactive=False) == 0
    body = json.loads(capsys.readouterr().out)
    assert isinstance(body, dict)
    return body


def test_the_answer_is_the_same_and_the_drafts_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    plain = told(capsys)
    assert plain["draft"] is None
    for draft, kind in (("ngram", "ngram"), ("nano", "model")):
        drafted = told(capsys, draft=draft)
        assert drafted["answer"] == plain["answer"]
        assert drafted["thinking"] == plain["thinking"]
        counts = drafted["draft"]
        assert isinstance(counts, dict)
        assert counts["kind"] == kind
        assert counts["accepted"] <= counts["drafted"]


def test_reproducible_and_draft_exclude_each_other() -> None:
    request = asking.ChatRequest(prompt=QUESTION, reproducible=True, draft="ngram")
    with pytest.raises(UsageError, match="--reproducible and --draft exclude each other"):
        asking.run(request, Console(json_mode=False, quiet=True), interactive=False)


def test_the_stats_tell_what_became_of_the_drafts() -> None:
    talk = conversation("Hi.")
    list(talk.ask("x"))
    assert talk.last is not None
    assert "draft" not in stats_line(talk.last)
    went_on = DraftStatistics("ngram", drafted=180, accepted=120, steps=150, tokens=270)
    assert stats_line(replace(talk.last, drafts=went_on)).endswith(
        " tokens/s, draft: 120 of 180 accepted, 1.8 tokens per step"
    )
    ended = replace(went_on, off="after 200 tokens: it did not pay")
    assert stats_line(replace(talk.last, drafts=ended)).endswith("; off after 200 tokens: it did not pay")
    assert drafts_json(ended) == {
        "kind": "ngram",
        "drafted": 180,
        "accepted": 120,
        "off": "after 200 tokens: it did not pay",
    }
