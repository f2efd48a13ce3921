"""Requests that the page makes beyond those of other programs."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dsr.serve.openai.from_api import options_of
from dsr.serve.own_field import DsrOptions
from runtime.engine.prompt_options import PromptOptions

CONVERSATIONS = "/api/dsr/conversations"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSR_HOME", str(tmp_path))


def test_a_conversation_is_replaced_as_a_whole_and_keeps_the_branches_in_its_stats(client: TestClient) -> None:
    first = {"role": "user", "content": "q"}
    number = client.post(CONVERSATIONS, json={"model": "nano", "title": "kept", "messages": [first]}).json()["id"]
    branches = {"branches": {"at": 1, "others": [{**first, "after": [], "active": 0}]}}
    turns = [
        {"role": "user", "content": "q2", "stats": branches},
        {"role": "assistant", "content": "a", "thinking": "t"},
    ]
    put = client.put(f"{CONVERSATIONS}/{number}", json={"model": "other", "system": "be brief", "messages": turns})
    assert (put.status_code, put.json()) == (200, {"id": number})
    found = client.get(f"{CONVERSATIONS}/{number}").json()
    assert (found["title"], found["model"], found["system"]) == ("kept", "other", "be brief")
    assert found["messages"] == [{"thinking": "", **turns[0]}, {**turns[1], "stats": None}]


def test_an_exported_conversation_can_be_created_again(client: TestClient) -> None:
    turn = {"role": "user", "content": "q"}
    number = client.post(CONVERSATIONS, json={"model": "nano", "messages": [turn]}).json()["id"]
    exported = client.get(f"{CONVERSATIONS}/{number}/export?format=json").json()
    again = client.post(CONVERSATIONS, json=exported).json()["id"]
    assert again != number
    assert client.get(f"{CONVERSATIONS}/{again}").json()["messages"] == exported["messages"]


@pytest.mark.parametrize(("number", "status"), [(99, 404), (2**63, 404)])
def test_a_conversation_that_is_not_there_is_not_replaced(client: TestClient, number: int, status: int) -> None:
    body = {"model": "nano", "messages": [{"role": "user", "content": "q"}]}
    assert client.put(f"{CONVERSATIONS}/{number}", json=body).status_code == status


def test_a_conversation_without_turns_is_refused(client: TestClient) -> None:
    assert client.put(f"{CONVERSATIONS}/1", json={"model": "nano", "messages": []}).status_code == 400


def test_models_come_with_the_memory_of_the_machine(client: TestClient) -> None:
    memory = client.get("/api/dsr/models").json()["memory"]
    assert 0 < memory["available"] <= memory["total"]


def test_a_download_is_looked_at_by_names_only(client: TestClient) -> None:
    for name in ("", "/etc/passwd", "../x", "--help", "~/x"):
        assert client.get("/api/dsr/pull", params={"model": name}).status_code == 400


def test_the_last_message_can_be_an_answer_that_goes_on() -> None:
    own = DsrOptions.model_validate({"continue": True})
    assert options_of(None, own) == PromptOptions(continues=True)
    assert options_of("none", own) == PromptOptions(thinking=False, continues=True)
    assert options_of(None, DsrOptions()) == PromptOptions()
