"""The scripted engines do as engine processes do: a test of a route may trust them."""

from __future__ import annotations

import inspect

from starlette.testclient import TestClient

from dsr.serve.pool.engine import EngineProcess
from tests.dsr.serve.fake_engine import FakeEngine, FakeEngines, failing, saying
from tests.dsr.serve.live_server import Live

_ASK = {"model": "nano", "messages": [{"role": "user", "content": "2+2?"}]}


def test_a_scripted_engine_has_the_interface_of_an_engine_process() -> None:
    public = {name for name in vars(EngineProcess) if not name.startswith("_")}
    for name in public:
        real, fake = getattr(EngineProcess, name), getattr(FakeEngine, name)
        if callable(real):
            assert [*inspect.signature(real).parameters] == [*inspect.signature(fake).parameters], name
    assert public <= {*vars(FakeEngine)}
    assert {*vars(EngineProcess())} - {name for name in vars(EngineProcess()) if name.startswith("_")} <= {
        *vars(FakeEngine(FakeEngines()))
    }


def test_the_client_gets_what_is_scripted(client: TestClient, engines: FakeEngines) -> None:
    engines.script = saying("Four.", "Two and two.")
    message = client.post("/v1/chat/completions", json=_ASK).json()["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "Four.", "reasoning_content": "Two and two."}
    assert [each.content for each in engines.asked.messages] == ["2+2?"]


def test_a_script_may_fail(client: TestClient, engines: FakeEngines) -> None:
    engines.script = failing("Busy", "the queue is full")
    answer = client.post("/v1/chat/completions", json=_ASK)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "2")


def test_the_live_server_answers(live: Live) -> None:
    with live.client() as client:
        answer = client.post("/v1/chat/completions", json={**_ASK, "max_tokens": 8, "seed": 1}).json()
    assert answer["usage"]["completion_tokens"] == 8
