"""What `dsr plan` plans: a model here, on the hub or in the catalogue; and what would run at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dsr.hub.client import Hub
from dsr.hub.http import Patience
from dsr.loading.options import LoadOptions
from dsr.models.catalog import load
from dsr.plan import subject
from dsr.plan.sketch import mixtures, sketched
from dsr.plan.survey import survey
from runtime.base.errors import BadModelFile, NetworkError, NotFound
from runtime.machine.machine import free_for
from runtime.placement.memory import need
from tests.dsr.plan.planning import GIB, MIB, NANO, a_machine, cpu
from tests.gguf_writer import header, llama_metadata, llama_tensors
from tests.hub_server import HubServer

# The model


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add("org/nano", {"nano-Q8_0.gguf": NANO.path.read_bytes(), "nano-Q2_K.gguf": NANO.path.read_bytes()})
        yield hub


@pytest.fixture
def hub(server: HubServer, tmp_path: Path) -> Hub:
    return Hub(server.url, tmp_path / "hub", patience=Patience(tries=1, stall_seconds=0.5, sleep=lambda seconds: None))


def test_a_model_on_the_hub_is_planned_from_its_header_and_nothing_is_kept(hub: Hub, tmp_path: Path) -> None:
    found = subject.find("org/nano:Q2_K", hub, 8 * GIB)
    assert (found.reference, found.quant, found.card.layers) == ("org/nano:Q2_K", "Q2_K", 4)
    assert found.origin == "its header on the hub (org/nano); nothing was downloaded"
    assert [choice.quant for choice in found.choices] == ["Q2_K", "Q8_0"]
    assert not (tmp_path / "hub").exists()


def test_without_a_quantization_it_is_the_largest_that_fits_or_else_the_smallest(hub: Hub) -> None:
    assert subject.find("org/nano", hub, 8 * GIB).quant == "Q8_0"
    assert subject.find("org/nano", hub, 1 * MIB).quant == "Q2_K"


def test_without_the_hub_the_catalogue_has_to_do_and_that_is_said(tmp_path: Path) -> None:
    said: list[Any] = []
    nowhere = Hub("http://127.0.0.1:9", tmp_path, offline=True)
    found = subject.find("qwen3:8b:Q8_0", nowhere, 8 * GIB, said.append)
    assert found.origin == "the catalogue's figures, not the model's header: take it as an estimate"
    assert found.card.weights_size == pytest.approx(8.2e9 * 8.5 / 8, rel=0.01)
    assert "HF_HUB_OFFLINE" in said[0].text
    assert subject.find("gpt-oss:20b", nowhere, 8 * GIB).quant == "MXFP4"
    assert [subject.find("qwen3:8b", nowhere, int(free * GIB)).quant for free in (1, 5.2, 64)] == [
        "Q2_K",
        "Q3_K_M",
        "Q4_K_M",
    ]
    with pytest.raises(NetworkError):
        subject.find("some/repository", nowhere, 8 * GIB)
    with pytest.raises(NotFound, match="what Q4_0 would weigh can only be read on the hub"):
        subject.find("qwen3:8b:Q4_0", nowhere, 8 * GIB)


def test_a_file_of_which_only_the_header_is_here_can_be_planned(tmp_path: Path, hub: Hub) -> None:
    path = tmp_path / "cut-Q8_0.gguf"
    path.write_bytes(header(llama_metadata(), llama_tensors()))
    found = subject.find(str(path), hub, GIB)
    assert found.origin == "the file's header: its weights are not here"
    assert found.card.size == found.card.weights_size
    path.write_bytes(NANO.path.read_bytes()[:1000])
    with pytest.raises(BadModelFile):
        subject.find(str(path), hub, GIB)


@pytest.mark.parametrize("entry", load().entries, ids=lambda entry: entry.name)
def test_a_sketch_has_the_weights_that_the_catalogue_tells(entry: Any) -> None:
    for quant in mixtures(entry):
        card = sketched(entry, quant)
        assert card.parameters == pytest.approx(entry.parameters, rel=0.03)
        # Half of what a token meets is guessed to be routed; DeepSeek V2 Lite is off most.
        assert card.active_parameters == pytest.approx(entry.active_parameters, rel=0.25)
        assert need(card, 8192).total > card.weights_size


def test_a_sketch_weighs_about_what_published_files_do() -> None:
    """Qwen3-8B-Q4_K_M.gguf has 5.03 GB, gpt-oss-20b-mxfp4.gguf 12.1 GB, DeepSeek-R1-Q4_K_M 404 GB (their pages)."""
    sizes = {("qwen3:8b", "Q4_K_M"): 5.03e9, ("gpt-oss:20b", "MXFP4"): 12.1e9, ("deepseek-r1:671b", "Q4_K_M"): 404e9}
    for (name, quant), size in sizes.items():
        entry = next(e for e in load().entries if e.name == name)
        assert sketched(entry, quant).weights_size == pytest.approx(size, rel=0.05)


# What can I run?


def test_the_survey_ranks_what_fits_the_slow_last(monkeypatch: pytest.MonkeyPatch) -> None:
    here, catalogue = survey(a_machine(cpu(free_for(12 * GIB))), LoadOptions())
    assert [row.name for row in here] == ["nano"]
    assert not here[0].estimated
    by_name = {row.name: row for row in catalogue}
    assert "deepseek-r1:671b" not in by_name
    assert by_name["qwen3:8b"].quant == "Q4_K_M"
    assert by_name["qwen3:8b"].larger == ("Q5_K_M", "Q6_K", "Q8_0")
    assert all(row.memory <= 12 * GIB and row.estimated for row in catalogue)
    fast = [row.tokens_per_second >= 5 for row in catalogue]
    assert fast == sorted(fast, reverse=True)
    parameters = [row.parameters for row, is_fast in zip(catalogue, fast, strict=True) if is_fast]
    assert parameters == sorted(parameters, reverse=True)


def test_where_the_usual_quantization_does_not_fit_a_smaller_one_is_named() -> None:
    _, catalogue = survey(a_machine(cpu(free_for(15 * GIB))), LoadOptions(2048))
    by_name = {row.name: row for row in catalogue}
    assert by_name["deepseek-r1:32b"].quant in ("Q2_K", "Q3_K_M")


def test_where_nothing_fits_the_survey_is_empty() -> None:
    assert survey(a_machine(cpu(8 * MIB)), LoadOptions()) == ((), ())
