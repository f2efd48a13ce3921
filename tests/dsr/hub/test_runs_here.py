"""What names and headers tell before a download: quantizations of other programs, models the engine does not know."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dsr.hub.client import Hub
from dsr.hub.http import RetryPolicy
from dsr.hub.pull import PullRequest, download, plan
from dsr.models.references import parse
from dsr.plan.planned_model import find_model
from runtime.base.errors import Incompatible
from runtime.base.events import Event, Notice
from tests.gguf_writer import T, gguf, llama_metadata, llama_tensors
from tests.hub_server import HubServer

GIB = 1 << 30
SOUND = gguf(llama_metadata(), llama_tensors())


def llama(**changes: Any) -> bytes:
    return gguf(llama_metadata(**changes), llama_tensors())


def foreign() -> bytes:
    return gguf(llama_metadata(), [T("token_embd.weight", (64, 8), 139)])


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add("org/newer", {"m-Q4_K_M.gguf": llama(**{"tokenizer.ggml.pre": "next9"}), "m-Q8_0.gguf": SOUND})
        hub.add("org/both", {"m-IQ4_K.gguf": foreign(), "m-Q4_K_R4.gguf": foreign(), "m-Q2_K.gguf": SOUND})
        hub.add("org/foreign", {"m-IQ4_KS.gguf": foreign(), "m-IQ2_K.gguf": foreign()})
        hub.add("org/adapter", {"m-Q8_0.gguf": gguf({"general.architecture": "llama", "general.type": "adapter"})})
        yield hub


@pytest.fixture
def hub(server: HubServer, tmp_path: Path) -> Hub:
    return Hub(server.url, tmp_path / "hub", policy=RetryPolicy(stall_seconds=0.5, sleep=lambda seconds: None))


def refused(text: str, hub: Hub) -> Incompatible:
    with pytest.raises(Incompatible) as caught:
        plan(PullRequest(parse(text)), hub, 8 * GIB)
    assert caught.value.exit_code == 7
    assert "use --force" in str(caught.value.hint)
    return caught.value


def test_a_named_quantization_that_the_engine_does_not_know_is_refused_before_the_weights(hub: Hub) -> None:
    said = "m-Q4_K_M.gguf: llama-cpp-python 0.3.36 does not know its pre-tokenizer, 'next9'; the file itself is sound"
    assert refused("org/newer:Q4_K_M", hub).message == f"org/newer: {said}"
    assert plan(PullRequest(parse("org/newer:Q8_0")), hub, 8 * GIB).quant == "Q8_0"
    with pytest.raises(Incompatible, match="next9"):
        find_model("org/newer:Q4_K_M", hub, 8 * GIB)


def test_force_downloads_it_and_says_what_is_wrong(hub: Hub) -> None:
    said: list[Event] = []
    planned = plan(PullRequest(parse("org/newer:Q4_K_M"), force=True), hub, 8 * GIB, said.append)
    [notice] = [each.text for each in said if isinstance(each, Notice)]
    assert "does not know its pre-tokenizer, 'next9'" in notice
    assert notice.endswith("dsr downloads it because of --force")
    [place] = download(planned, hub)
    assert place.is_file()


@pytest.mark.parametrize("quant", ["IQ4_K", "Q4_K_R4"])
def test_a_quantization_for_another_program_is_refused_by_its_name(quant: str, server: HubServer, hub: Hub) -> None:
    error = refused(f"org/both:{quant}", hub)
    assert error.message == (
        f"org/both: {quant} is a quantization for ik_llama.cpp, which the engine of dsr cannot read"
    )
    assert error.hint == "take another one: Q2_K; to download it anyway, use --force"
    assert not server.ranges()


def test_dsr_never_chooses_a_quantization_for_another_program(hub: Hub) -> None:
    assert plan(PullRequest(parse("org/both")), hub, 8 * GIB).quant == "Q2_K"
    assert find_model("org/both", hub, 8 * GIB).quant == "Q2_K"
    assert "for ik_llama.cpp" in refused("org/foreign", hub).message
    with pytest.raises(Incompatible, match="for ik_llama"):
        find_model("org/foreign", hub, 8 * GIB)
    assert plan(PullRequest(parse("org/foreign"), force=True), hub, 8 * GIB).quant in ("IQ4_KS", "IQ2_K")


def test_other_kinds_of_files_are_named_before_the_download(hub: Hub) -> None:
    assert "a LoRA adapter, not a model" in refused("org/adapter:Q8_0", hub).message


def test_a_download_that_began_goes_on_without_another_look_at_the_header(server: HubServer, hub: Hub) -> None:
    partial = hub.cache("org/newer").partial(hub.listing("org/newer").file("m-Q8_0.gguf"))
    partial.plain.parent.mkdir(parents=True)
    partial.plain.write_bytes(SOUND[:1000])
    planned = plan(PullRequest(parse("org/newer:Q8_0")), hub, 8 * GIB)
    assert planned.files[0].here == 1000
    assert not server.ranges()
