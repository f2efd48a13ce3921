"""The header that tells which fields changed nothing."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.dsr.serve.fake_engine import PROPS, FakeEngines

SAID = [{"role": "user", "content": "2+2?"}]
ROUTES: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/chat/completions", {"messages": SAID, "reasoning_effort": "high"}, "reasoning_effort"),
    ("/v1/responses", {"input": "2+2?", "reasoning": {"effort": "high"}}, "reasoning.effort"),
    (
        "/v1/messages",
        {"messages": SAID, "max_tokens": 9, "output_config": {"effort": "high"}},
        "output_config.effort",
    ),
    ("/api/chat", {"messages": SAID, "think": "high"}, "think"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("route", "body", "field"), ROUTES)
def test_an_effort_is_told_as_unread_where_the_model_knows_no_levels(
    client: TestClient, engines: FakeEngines, route: str, body: dict[str, Any], field: str, stream: bool
) -> None:
    answer = client.post(route, json={"model": "nano", "stream": stream, "zebra": 1, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Dsr-Unknown-Fields"] == f"zebra,{field}"


@pytest.mark.parametrize(("route", "body", "field"), ROUTES)
def test_an_effort_is_read_where_the_model_knows_levels(
    client: TestClient, engines: FakeEngines, route: str, body: dict[str, Any], field: str
) -> None:
    engines.props = {**PROPS, "efforts": ["low", "high"]}
    answer = client.post(route, json={"model": "nano", "stream": False, **body})
    assert "X-Dsr-Unknown-Fields" not in answer.headers


def test_no_effort_is_no_thought_and_so_read(client: TestClient) -> None:
    body = {"model": "nano", "messages": SAID, "reasoning_effort": "none"}
    assert "X-Dsr-Unknown-Fields" not in client.post("/v1/chat/completions", json=body).headers
