"""The model to plan for: a file here, a header on the hub, or the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dsr.hub.client import Hub
from dsr.hub.http import RetryPolicy
from dsr.plan import planned_model
from runtime.base.errors import BadModelFile, NetworkError, NotFound
from tests.dsr.plan.planning import GIB, MIB, NANO
from tests.gguf_writer import header, llama_metadata, llama_tensors
from tests.hub_server import HubServer


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add("org/nano", {"nano-Q8_0.gguf": NANO.path.read_bytes(), "nano-Q2_K.gguf": NANO.path.read_bytes()})
        yield hub


@pytest.fixture
def hub(server: HubServer, tmp_path: Path) -> Hub:
    return Hub(server.url, tmp_path / "hub", policy=RetryPolicy(tries=1, stall_seconds=0.5, sleep=lambda seconds: None))


def test_a_model_on_the_hub_is_planned_from_its_header_and_nothing_is_kept(hub: Hub, tmp_path: Path) -> None:
    found = planned_model.find_model("org/nano:Q2_K", hub, 8 * GIB)
    assert (found.reference, found.quant, found.card.layers) == ("org/nano:Q2_K", "Q2_K", 4)
    assert found.origin == "the model's header on the hub (org/nano); dsr downloaded nothing else"
    assert [choice.quant for choice in found.choices] == ["Q2_K", "Q8_0"]
    assert not (tmp_path / "hub").exists()


def test_without_a_quantization_it_is_the_largest_that_fits_or_else_the_smallest(hub: Hub) -> None:
    assert planned_model.find_model("org/nano", hub, 8 * GIB).quant == "Q8_0"
    assert planned_model.find_model("org/nano", hub, 1 * MIB).quant == "Q2_K"


def test_without_the_hub_the_catalogue_has_to_do_and_that_is_said(tmp_path: Path) -> None:
    said: list[Any] = []
    nowhere = Hub("http://127.0.0.1:9", tmp_path, offline=True)
    found = planned_model.find_model("qwen3:8b:Q8_0", nowhere, 8 * GIB, said.append)
    assert found.origin == "an estimate from the catalogue's figures, not from the model's header"
    assert found.card.weights_size == pytest.approx(8.2e9 * 8.5 / 8, rel=0.01)
    assert "HF_HUB_OFFLINE" in said[0].text
    assert planned_model.find_model("gpt-oss:20b", nowhere, 8 * GIB).quant == "MXFP4"
    assert [planned_model.find_model("qwen3:8b", nowhere, int(free * GIB)).quant for free in (1, 5.2, 64)] == [
        "Q2_K",
        "Q3_K_M",
        "Q4_K_M",
    ]
    with pytest.raises(NetworkError):
        planned_model.find_model("some/repository", nowhere, 8 * GIB)
    with pytest.raises(NotFound, match="dsr cannot estimate Q4_0 offline"):
        planned_model.find_model("qwen3:8b:Q4_0", nowhere, 8 * GIB)


def test_a_file_of_which_only_the_header_is_here_can_be_planned(tmp_path: Path, hub: Hub) -> None:
    path = tmp_path / "cut-Q8_0.gguf"
    path.write_bytes(header(llama_metadata(), llama_tensors()))
    found = planned_model.find_model(str(path), hub, GIB)
    assert found.origin == "the header of a file without its weights"
    assert found.card.size == found.card.weights_size
    path.write_bytes(NANO.path.read_bytes()[:1000])
    with pytest.raises(BadModelFile):
        planned_model.find_model(str(path), hub, GIB)
