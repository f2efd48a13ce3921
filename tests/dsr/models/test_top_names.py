"""Pulls the twenty names at the top of the catalogue from a hub on loopback, with tiny models that talk as theirs do.

tests/peers/top_names.py does the same with the program itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dsr.hub.client import Hub
from dsr.hub.http import RetryPolicy
from dsr.hub.pull import PullRequest, download, plan
from dsr.loading.options import LoadOptions
from dsr.models import library
from dsr.models.catalog import CatalogEntry, load
from dsr.models.model import ChatFormat
from dsr.models.references import parse
from dsr.plan.decide import decide
from dsr.plan.planned_model import find_model
from runtime.base.errors import Incompatible
from runtime.base.types import Message
from runtime.engine.template import build_prompt, prompt_is_thinking
from runtime.engine.template_facts import template_facts
from runtime.engine.thinking import ThinkingSplitter
from tests.dsr.plan.planning import GIB, a_machine, cpu
from tests.hub_server import HubServer
from tests.talking_gguf import ANSWER, KINDS, THOUGHT, Kind, kind_of

TOP = load().entries[:20]
HELLO = [Message("user", "Two and two?")]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with HubServer() as server:
        for entry in TOP:
            server.add(entry.gguf, {f"{entry.model}-Q4_K_M.gguf": kind_of(entry).model()})
        server.add("org/newer", {"newer-Q4_K_M.gguf": KINDS["switched"].model(**{"general.architecture": "qwen9"})})
        yield Hub(server.url, tmp_path / "hub", policy=RetryPolicy(sleep=lambda seconds: None))


def told_apart(chat: ChatFormat, kind: Kind) -> tuple[str, str]:
    """Thought and answer of the kind's reply behind the prompt of a question."""
    prompt = chat.prompt(HELLO).text
    begun = chat.markers is not None and prompt_is_thinking(prompt, chat.markers)
    header = chat.markers.header.open_at_end(prompt) if chat.markers and chat.markers.header else ""
    splitter = ThinkingSplitter(chat.markers, begun, open_header=header)
    parts = [*splitter.feed(kind.reply), *splitter.finish(complete=True)]
    thought, answer = ("".join(said for part, said in parts if part == which) for which in ("thinking", "answer"))
    return thought[: splitter.thought_end].strip(), answer.strip()


def prompt_with(chat: ChatFormat, effort: str) -> str:
    return build_prompt(chat.template, HELLO, chat.markers, thinking=None, no_think_text="", effort=effort).text


@pytest.mark.parametrize("entry", TOP, ids=lambda entry: entry.name)
def test_a_pulled_name_thinks_apart_has_the_vendors_sampling_and_a_true_plan(entry: CatalogEntry, hub: Hub) -> None:
    [path] = download(plan(PullRequest(parse(entry.name)), hub, 8 * GIB), hub)
    model = library.find(entry.name)
    assert (model.entry, model.quant, model.short_name) == (entry, "Q4_K_M", entry.model)
    kind = kind_of(entry)

    assert told_apart(model.chat_format(), kind) == (THOUGHT if kind.thinks else "", ANSWER)
    assert kind.thinks is (entry.thinking != "none")

    sampling = model.sampling
    assert sampling.origin == "catalogue"
    given = entry.sampling.given
    assert {name: getattr(sampling.params, name) for name in given} == given

    decided = decide(find_model(entry.name, hub, 8 * GIB), a_machine(cpu(8 * GIB)), LoadOptions(context=4096))
    [device] = decided.devices
    assert device.weights == model.card.weights_size < path.stat().st_size
    assert device.kv_cache == 4096 * 2 * 320 * 2  # one layer, keys and values of 320 numbers in F16


@pytest.mark.parametrize("entry", [each for each in TOP if each.effort], ids=lambda entry: entry.name)
def test_the_levels_of_effort_are_those_that_the_template_knows(entry: CatalogEntry, hub: Hub) -> None:
    download(plan(PullRequest(parse(entry.name)), hub, 8 * GIB), hub)
    chat = library.find(entry.name).chat_format()
    assert template_facts(chat.template, chat.markers).efforts == entry.effort
    low = prompt_with(chat, "low")
    assert low != prompt_with(chat, "high")


def test_before_the_pull_a_name_is_planned_from_its_header(hub: Hub) -> None:
    found = find_model("gemma4:e4b", hub, 8 * GIB)
    assert (found.name, found.quant, found.card.layers) == ("gemma-4-E4B-it", "Q4_K_M", 1)
    assert "the model's header on the hub (unsloth/gemma-4-E4B-it-GGUF)" in found.origin


def test_a_model_that_the_engine_cannot_run_is_refused_before_its_weights(hub: Hub) -> None:
    with pytest.raises(Incompatible, match="does not know its architecture, 'qwen9'"):
        find_model("org/newer", hub, 8 * GIB)
    with pytest.raises(Incompatible, match="does not know its architecture, 'qwen9'"):
        plan(PullRequest(parse("org/newer")), hub, 8 * GIB)
