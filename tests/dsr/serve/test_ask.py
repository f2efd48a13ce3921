"""Asks that contradict themselves, or want more than a client may have."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from dsr.serve.ask import Ask
from runtime.base.errors import UsageError
from runtime.base.types import Message
from tests.dsr.serve.fake_engine import FakeEngines

_QUESTION = {"messages": [{"role": "user", "content": "2+2?"}]}
_RUN = {"check": "touch /tmp/owned"}


def test_no_client_names_a_file_of_this_machine() -> None:
    with pytest.raises(UsageError, match="solution names a file or command of this machine"):
        Ask(messages=(Message("user", "x"),), strategy="verify", settings=(" solution=/etc/passwd",))
    Ask(messages=(Message("user", "x"),), strategy="verify", settings=("most=30",))


@pytest.mark.parametrize("name", ["repeated-sampling", "monkeys"])
def test_no_client_can_choose_a_strategy_that_runs_a_command(name: str) -> None:
    with pytest.raises(UsageError, match="runs a command, which no client of a server may choose"):
        Ask((Message("user", "2+2?"),), strategy=name, settings=("check=true",))


@pytest.mark.parametrize("name", ["repeated-sampling", "monkeys"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", _QUESTION),
        ("/v1/responses", {"input": "2+2?"}),
        ("/v1/messages", {**_QUESTION, "max_tokens": 9}),
        ("/api/chat", {**_QUESTION, "model": "nano"}),
        ("/api/generate", {"prompt": "2+2?", "model": "nano"}),
    ],
)
def test_no_api_lets_a_command_through(
    client: TestClient, engines: FakeEngines, path: str, body: dict[str, object], name: str
) -> None:
    answer = client.post(path, json={**body, "dsr": {"strategy": name, "set": _RUN}})
    assert (answer.status_code, engines.asks) == (400, [])
    assert "runs a command" in answer.text


def test_the_list_of_strategies_has_those_that_a_client_may_choose(client: TestClient) -> None:
    names = [each["name"] for each in client.get("/api/dsr/strategies").json()["strategies"]]
    assert "vote" in names
    assert "repeated-sampling" not in names


def test_a_model_name_cannot_choose_it_either(client: TestClient, engines: FakeEngines) -> None:
    answer = client.post("/v1/chat/completions", json={**_QUESTION, "model": "nano@repeated-sampling"})
    assert (answer.status_code, engines.asks) == (400, [])
