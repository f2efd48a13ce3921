"""/api/dsr: models, conversations and strategies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

ROUTE = "/api/dsr/conversations"
TURNS = [
    {"role": "user", "content": "2+2?", "thinking": "", "stats": None},
    {"role": "assistant", "content": "Four.", "thinking": "Two\nand two.", "stats": {"tokens": 4}},
]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSR_HOME", str(tmp_path))


@pytest.fixture
def number(client: TestClient) -> int:
    """A conversation of two turns."""
    answer = client.post(ROUTE, json={"model": "nano", "system": "Be short.", "title": "Sums", "messages": TURNS})
    assert answer.status_code == 201, answer.text
    id: int = answer.json()["id"]
    return id


def test_a_conversation_is_kept(client: TestClient, number: int) -> None:
    found = client.get(f"{ROUTE}/{number}").json()
    assert found.pop("started")
    assert found == {
        "schema": "dsr.conversation/1",
        "id": number,
        "model": "nano",
        "system": "Be short.",
        "title": "Sums",
        "messages": TURNS,
    }
    assert [each["id"] for each in client.get(ROUTE).json()["conversations"]] == [number]


def test_conversations_are_found_by_what_they_say(client: TestClient, number: int) -> None:
    assert [each["id"] for each in client.get(ROUTE, params={"search": "Four"}).json()["conversations"]] == [number]
    assert client.get(ROUTE, params={"search": "zebra"}).json() == {"conversations": []}


def test_turns_are_added_and_replaced(client: TestClient, number: int) -> None:
    more = [{"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes."}]
    client.post(f"{ROUTE}/{number}/turns", json={"messages": more})
    assert len(client.get(f"{ROUTE}/{number}").json()["messages"]) == 4
    other = [{"role": "user", "content": "Really?"}, {"role": "assistant", "content": "Really."}]
    client.post(f"{ROUTE}/{number}/turns", json={"messages": other, "replace_last": True})
    contents = [each["content"] for each in client.get(f"{ROUTE}/{number}").json()["messages"]]
    assert contents == ["2+2?", "Four.", "Really?", "Really."]


def test_a_conversation_is_renamed_and_deleted(client: TestClient, number: int) -> None:
    assert client.patch(f"{ROUTE}/{number}", json={"title": "Four"}).json() == {"id": number, "title": "Four"}
    assert client.get(f"{ROUTE}/{number}").json()["title"] == "Four"
    assert client.delete(f"{ROUTE}/{number}").json() == {"deleted": number}
    assert client.get(f"{ROUTE}/{number}").status_code == 404


def test_what_is_exported_can_be_imported(client: TestClient, number: int) -> None:
    exported = client.get(f"{ROUTE}/{number}/export", params={"format": "json"})
    assert exported.headers["Content-Disposition"] == f'attachment; filename="dsr-conversation-{number}.json"'
    copy = client.post(ROUTE, json=exported.json()).json()["id"]
    kept: Any = ("model", "system", "title", "messages")
    one, other = (client.get(f"{ROUTE}/{each}").json() for each in (number, copy))
    assert copy != number and [one[name] for name in kept] == [other[name] for name in kept]


def test_a_conversation_as_markdown(client: TestClient, number: int) -> None:
    text = client.get(f"{ROUTE}/{number}/export").text
    assert "# Sums" in text and "> Two\n> and two." in text and text.endswith("Four.\n")
    assert client.get(f"{ROUTE}/{number}/export", params={"format": "pdf"}).status_code == 400


@pytest.mark.parametrize("method", ["get", "delete", "patch"])
def test_what_is_not_there_is_404(client: TestClient, method: str) -> None:
    body = {"json": {"title": "x"}} if method == "patch" else {}
    for id in ("7", str(2**70)):
        answer = getattr(client, method)(f"{ROUTE}/{id}", **body)
        assert answer.status_code == 404, (method, answer.text)


def test_a_body_that_is_wrong_is_400_with_its_place(client: TestClient) -> None:
    answer = client.post(ROUTE, json={"model": "nano", "messages": [{"role": "robot", "content": "x"}]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages.0.role")


def test_models_are_loaded_and_unloaded(client: TestClient) -> None:
    def state() -> Any:
        told = client.get("/api/dsr/models").json()
        assert told["default"] == "nano"
        return next(each for each in told["models"] if each["reference"] == "nano")["state"]

    assert state() == "closed"
    assert client.post("/api/dsr/models/load", json={"model": "nano"}).json()["state"] == "open"
    assert state() == "open"
    assert client.post("/api/dsr/models/unload", json={"model": "nano"}).status_code == 200
    assert client.post("/api/dsr/models/unload", json={"model": "nano"}).status_code == 409
    assert client.post("/api/dsr/models/load", json={"model": "gpt-9"}).status_code == 404


def test_strategies_have_their_settings(client: TestClient) -> None:
    found = {each["name"]: each for each in client.get("/api/dsr/strategies").json()["strategies"]}
    assert found["vote"]["settings"]["n"] and found["vote"]["draws"]


@pytest.mark.parametrize("name", ["--help", "/etc/passwd", "../x", "a\\b", "~/x", "a\nb", ""])
def test_a_name_is_no_option_and_no_path(client: TestClient, name: str) -> None:
    for answer in (
        client.get("/api/dsr/pull", params={"model": name}),
        client.post("/api/dsr/pull", json={"model": name}),
    ):
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
