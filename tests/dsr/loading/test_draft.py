"""`--draft`: what may draft for a model, what it costs in memory, and what is said about it afterwards."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dsr.chat import session
from dsr.chat.summary import drafts_json, stats_line
from dsr.loading.context import context_for_memory
from dsr.loading.draft import check_mtp, find_draft_model
from dsr.loading.load import load
from dsr.loading.options import LoadOptions
from dsr.models import library
from dsr.models.sampling import SamplingRequest
from dsr.ui.console import Console
from runtime.base.errors import EngineFailed, Incompatible, NotFound, UsageError
from runtime.base.run import Run
from runtime.base.types import ByteCount
from runtime.engine.speculation import DraftStatistics, ModelDrafter, MtpDrafter, NgramDrafter
from runtime.gguf.card import ModelCard
from runtime.gguf.reader import read_card
from runtime.placement import memory
from tests.dsr.chat.chatting import card, conversation
from tests.gguf_writer import write
from tests.nextn import round_robin, with_mtp

QUESTION = "What is 347 + 586?"


@pytest.mark.parametrize("draft", ["ngram", "mtp"])
def test_the_text_and_the_model_itself_need_no_second_model(nano_path: Path, draft: str) -> None:
    assert find_draft_model(draft, read_card(nano_path), None) is None


@pytest.fixture(scope="module")
def ahead(tmp_path_factory: pytest.TempPathFactory, nano_path: Path) -> Path:
    """A file whose MTP layer guesses right."""
    return round_robin(tmp_path_factory.mktemp("mtp") / "ahead.gguf", nano_path)


def test_a_file_without_mtp_layers_says_so(nano_path: Path) -> None:
    with pytest.raises(Incompatible, match=r"^Nano: this file carries no MTP layers to draft with$") as caught:
        check_mtp(read_card(nano_path), nodes=False)
    assert caught.value.exit_code == 7
    assert caught.value.hint == "try --draft ngram"


def test_a_file_with_one_mtp_layer_will_do(ahead: Path) -> None:
    check_mtp(read_card(ahead), nodes=False)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tensors": ()}, "Nano: this file names MTP layers, but their weights were left out"),
        ({"architecture": "qwen3next"}, "Nano: the engine cannot draft with the MTP layers of qwen3next"),
        ({"layers": 3, "nextn_layers": 2}, "Nano: this file carries 2 MTP layers; drafts are made with one"),
    ],
)
def test_other_mtp_layers_are_refused_by_their_header(ahead: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(Incompatible) as caught:
        check_mtp(replace(read_card(ahead), **changes), nodes=False)  # type: ignore[arg-type]
    assert (caught.value.message, caught.value.hint) == (said, "try --draft ngram")


def test_mtp_layers_are_not_shared_with_nodes(ahead: Path) -> None:
    with pytest.raises(UsageError, match="--draft mtp and --nodes exclude each other"):
        check_mtp(read_card(ahead), nodes=True)


def test_a_model_on_which_the_engine_aborts_is_refused(tmp_path: Path, nano_path: Path) -> None:
    """The engine opens it, and has an assertion against this scale when it decodes."""
    path = with_mtp(tmp_path / "scaled.gguf", nano_path, **{"attention.temperature_scale": 0.1})
    for draft in ("mtp", None):
        with (
            pytest.raises(EngineFailed, match=r"scaled\.gguf: it crashes the engine \(SIGABRT\)$"),
            load(library.find(str(path)), LoadOptions(context=512, draft=draft), Run(threads=1)),
        ):
            pass


def test_mtp_layers_on_which_the_engine_aborts_are_refused(ahead: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crashes(card: ModelCard, *_: object, mtp: bool = False, **options: object) -> None:
        if mtp:
            raise EngineFailed(f"{card.path}: it crashes the engine (SIGABRT)")

    monkeypatch.setattr("dsr.loading.tried_files.try_file", crashes)
    local = library.find(str(ahead))
    with (
        pytest.raises(Incompatible) as caught,
        load(local, LoadOptions(context=512, draft="mtp"), Run(threads=1)),
    ):
        pass
    said = f"{ahead}: the engine cannot use the MTP layers of this file: it crashes the engine (SIGABRT)"
    assert (caught.value.message, caught.value.hint) == (said, "try --draft ngram")
    with load(local, LoadOptions(context=512), Run(threads=1)) as model:
        assert model.drafter is None


def test_the_second_context_is_counted(ahead: Path) -> None:
    card = read_card(ahead)
    request = LoadOptions(draft="mtp")
    enough = memory.need(card, 2048, drafted=request.drafted, mtp=True).total
    assert context_for_memory(card, ByteCount(enough), request) == 2048
    less = ByteCount(enough - 1)
    assert context_for_memory(card, less, request) < 2048 == context_for_memory(card, less, LoadOptions())


def test_a_second_model_is_found_like_any_model(nano_path: Path) -> None:
    found = find_draft_model("nano", read_card(nano_path), None)
    assert found is not None
    assert found.vocabulary == 640
    assert found.context == read_card(nano_path).context_length
    assert found.memory == memory.need(found.model.card, found.context).total > 0
    with pytest.raises(NotFound):
        find_draft_model("no-such-model", read_card(nano_path), None)


def test_an_empty_name_of_a_second_model_is_refused(nano_path: Path) -> None:
    options = LoadOptions(context=512, draft="")
    with (
        pytest.raises(UsageError, match="the model's name is empty"),
        load(library.find(str(nano_path)), options, Run(threads=1)),
    ):
        pass


def test_a_second_model_follows_no_further_than_it_can_see(nano_path: Path) -> None:
    long = replace(read_card(nano_path), context_length=1_000_000)
    found = find_draft_model("nano", long, None)
    assert found is not None
    assert found.context == read_card(nano_path).context_length
    found = find_draft_model("nano", long, 700)
    assert found is not None
    assert found.context == 700


def test_another_vocabulary_is_refused(tmp_path: Path, nano_path: Path) -> None:
    other = write(tmp_path / "other.gguf")
    with pytest.raises(Incompatible, match="cannot draft for Nano: their vocabularies differ"):
        find_draft_model(str(other), read_card(nano_path), None)
    with pytest.raises(Incompatible, match="cannot draft for Fake"):
        find_draft_model("nano", card(), None)


def test_an_opened_model_comes_with_its_drafter(ahead: Path) -> None:
    local = library.find("nano")
    with load(local, LoadOptions(context=512), Run(threads=1)) as model:
        assert model.drafter is None
        assert model.backend.most_outputs == 17
    with load(local, LoadOptions(context=512, draft="ngram"), Run(threads=1)) as model:
        assert isinstance(model.drafter, NgramDrafter)
        assert model.backend.most_outputs == 17
    with load(local, LoadOptions(context=512, draft="nano"), Run(threads=1)) as model:
        assert isinstance(model.drafter, ModelDrafter)
    with load(library.find(str(ahead)), LoadOptions(context=512, draft="mtp"), Run(threads=1)) as model:
        assert isinstance(model.drafter, MtpDrafter)
        assert model.backend.most_outputs == 17


def told(capsys: pytest.CaptureFixture[str], draft: str | None = None, **fields: object) -> dict[str, object]:
    options = LoadOptions(context=512, draft=draft)
    fixed = {"prompt": QUESTION, "sampling": SamplingRequest(seed=1), "load": options, "threads": 1, "keep": False}
    request = session.ChatRequest(**fixed | fields)  # type: ignore[arg-type]
    code = session.run(request, Console(json_mode=True, quiet=False), interactive=False)
    body = json.loads(capsys.readouterr().out)
    assert isinstance(body, dict)
    assert code == (0 if body["answer"] else 1)
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


def test_the_model_s_own_layers_draft_for_it(capsys: pytest.CaptureFixture[str], ahead: Path) -> None:
    sampling = SamplingRequest(temperature=0, max_tokens=150)
    plain = told(capsys, model=str(ahead), sampling=sampling)
    drafted = told(capsys, model=str(ahead), sampling=sampling, draft="mtp")
    assert drafted["thinking"] == plain["thinking"]
    assert drafted["answer"] == plain["answer"]
    counts = drafted["draft"]
    assert isinstance(counts, dict)
    assert counts["kind"] == "mtp"
    assert counts["accepted"] <= counts["drafted"]


def test_reproducible_and_draft_exclude_each_other() -> None:
    request = session.ChatRequest(prompt=QUESTION, reproducible=True, load=LoadOptions(draft="ngram"))
    with pytest.raises(UsageError, match="--reproducible and --draft exclude each other"):
        session.run(request, Console(json_mode=False, quiet=True), interactive=False)


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
