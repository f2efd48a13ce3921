from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from dsr.serve.http import log, streams
from dsr.serve.http.access import Access
from dsr.serve.http.app import make_app
from dsr.serve.http.limits import Limits
from dsr.serve.http.server import Server
from dsr.serve.told import Done
from runtime.base.events import Progress
from runtime.from_disk.use import DiskUse
from tests.dsr.serve.fake_engine import FakeEngines, begun, drawn, ended, failing

CHAT = "/v1/chat/completions"
HELLO = {"model": "nano", "messages": [{"role": "user", "content": "a secret question"}]}


def a_client(server: Server) -> TestClient:
    return TestClient(make_app(server), base_url="http://127.0.0.1:11500", client=("127.0.0.1", 50000))


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[Path]:
    loggers = [logging.getLogger(name) for name in ("dsr.serve", "asyncio", "uvicorn.error")]
    before = [(each, each.handlers, each.propagate, each.level) for each in loggers]
    log.start_log(tmp_path / "log")
    yield tmp_path / "log"
    for each in {handler for logger in loggers for handler in logger.handlers}:
        each.close()
    for each, handlers, propagate, level in before:
        each.handlers, each.propagate = handlers, propagate
        each.setLevel(level)


def test_health_tells_how_many_models_are_open(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "models": {"open": 0, "loading": 0}}
    client.post(CHAT, json=HELLO)
    assert client.get("/health").json() == {"status": "ok", "models": {"open": 1, "loading": 0}}


def test_unknown_paths_and_methods_are_errors_in_the_form_of_the_nearest_api(client: TestClient) -> None:
    assert client.get("/v1/nothing").json()["error"]["message"] == "there is no GET /v1/nothing here"
    assert client.get("/api/nothing").json() == {"error": "there is no GET /api/nothing here"}
    assert client.post("/v1/messages/nothing").json()["type"] == "error"
    wrong = client.delete(CHAT)
    assert (wrong.status_code, wrong.headers["Allow"]) == (405, "POST")


def test_a_wrong_key_is_an_error_in_the_form_of_each_api(server: Server) -> None:
    with a_client(replace(server, access=Access(key="k"))) as client:
        openai, ollama, anthropic = client.post(CHAT), client.post("/api/chat"), client.post("/v1/messages")
        assert [each.status_code for each in (openai, ollama, anthropic)] == [401, 401, 401]
        assert openai.json()["error"]["type"] == "authentication_error"
        assert isinstance(ollama.json()["error"], str)
        assert anthropic.json()["error"]["type"] == "authentication_error"
        assert openai.headers["WWW-Authenticate"] == "Bearer"
        assert client.get("/v1/models", headers={"Authorization": "Bearer k"}).status_code == 200


def test_listed_pages_may_read_answers_and_errors(server: Server) -> None:
    access = Access(key="k", origins=("https://chat.example",))
    with a_client(replace(server, access=access)) as client:
        asks = {"Origin": "https://chat.example", "Access-Control-Request-Method": "POST"}
        told = client.options(CHAT, headers={**asks, "Access-Control-Request-Headers": "authorization,x-stainless-os"})
        assert told.status_code == 204
        assert told.headers["Access-Control-Allow-Origin"] == "https://chat.example"
        assert told.headers["Access-Control-Allow-Headers"] == "authorization,x-stainless-os"
        refused = client.get("/v1/models", headers={"Origin": "https://chat.example"})
        assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, "https://chat.example")
        other = client.options(CHAT, headers={**asks, "Origin": "https://evil.example"})
        assert other.status_code == 403 and "Access-Control-Allow-Origin" not in other.headers
        assert other.headers["Vary"] == "Origin"


def test_a_full_queue_is_429_with_a_time_also_for_streams(client: TestClient, engines: FakeEngines) -> None:
    engines.script = failing("Busy", "64 requests wait already")
    for stream in (False, True):
        answer = client.post(CHAT, json={**HELLO, "stream": stream})
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "2")


def test_an_error_in_the_middle_of_a_stream_is_its_last_event(client: TestClient, engines: FakeEngines) -> None:
    engines.script = failing("EngineDied", "it ended", after=[begun(), *drawn("Four.")[:1], 0.05])
    answer = client.post(CHAT, json={**HELLO, "stream": True})
    last = answer.text.strip().splitlines()[-1]
    assert answer.status_code == 200
    assert json.loads(last.removeprefix("data: "))["error"]["message"] == "it ended"


def test_an_answer_that_takes_too_long_fails(client: TestClient, engines: FakeEngines) -> None:
    engines.script = lambda ask: [begun(), 0.01, Done()]
    assert client.post(CHAT, json={**HELLO, "dsr": {"timeout": 30}}).status_code == 200
    assert engines.asked.seconds == 30
    assert client.post(CHAT, json={**HELLO, "dsr": {"timeout": 0}}).status_code == 400


def test_too_many_requests_and_too_much_memory_are_503(server: Server) -> None:
    with a_client(replace(server, limits=Limits(requests=0))) as client:
        answer = client.post(CHAT, json=HELLO)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
        assert client.get("/health").status_code == 200
    with a_client(replace(server, limits=Limits(bodies=10))) as client:
        assert client.post(CHAT, json=HELLO).status_code == 503


def test_the_log_has_a_line_for_each_request_and_no_content(client: TestClient, log_file: Path) -> None:
    client.post(f"{CHAT}?key=a+secret+query", json=HELLO, headers={"Authorization": "Bearer secret"})
    client.get("/v1/secret-path")
    lines = [json.loads(line) for line in log_file.read_text().splitlines()]
    times = [(line.pop("time"), line.pop("ms")) for line in lines]
    assert lines == [
        {
            "client": "127.0.0.1", "method": "POST", "route": CHAT, "status": 200, "model": "nano",
            "prompt_tokens": 7, "cached_tokens": 3, "tokens": 4,
        },
        {"client": "127.0.0.1", "method": "GET", "route": "", "status": 404},
    ]  # fmt: skip
    assert len(times) == 2 and "secret" not in log_file.read_text()


def test_metrics_tell_what_a_model_read_from_the_disk(client: TestClient, engines: FakeEngines) -> None:
    use = DiskUse(passes=2, chosen=100, hits=43, bytes_read=1 << 20, waited=0.5)
    engines.script = lambda ask: [begun(), *drawn("Four."), ended("Four."), Done(dict(use.as_json()))]
    reply = client.post(CHAT, json=HELLO).json()
    assert (reply["disk_use"]["needed"], reply["disk_use"]["in_memory"]) == (100, 43)
    assert "dsr_disk_needed_total{" not in client.get("/metrics").text
    engines.made[0].disk = dict(use.as_json())
    text = client.get("/metrics").text.splitlines()
    assert 'dsr_disk_needed_total{model="nano"} 100.0' in text
    assert 'dsr_disk_waited_seconds_total{model="nano"} 0.5' in text


def test_metrics_count_requests_tokens_and_models(client: TestClient) -> None:
    client.post(CHAT, json=HELLO)
    client.get("/nowhere/secret")
    text = client.get("/metrics").text
    for line in (
        f'dsr_requests_total{{method="POST",route="{CHAT}",status="200"}} 1.0',
        'dsr_requests_total{method="GET",route="none",status="404"} 1.0',
        'dsr_tokens_total{kind="prompt",model="nano"} 7.0',
        'dsr_tokens_total{kind="drawn",model="nano"} 4.0',
        'dsr_models{state="open"} 1.0',
        'dsr_model_loads_total{result="loaded"} 1.0',
        "dsr_engine_deaths_total 0.0",
    ):
        assert line in text.splitlines()
    assert "secret" not in text


def _scope(body: bytes) -> dict[str, Any]:
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": CHAT, "raw_path": CHAT.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), (b"content-length", str(len(body)).encode())],
        "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 11500), "extensions": {}, "state": {},
    }  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_withdraws_its_ask(server: Server, engines: FakeEngines, stream: bool) -> None:
    engines.script = lambda ask: [begun(), *drawn("Four.")[:1], 30.0, Done()]

    async def leave() -> list[int]:
        app = make_app(server)
        body = json.dumps({**HELLO, "stream": stream}).encode()
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[int] = []

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            while not engines.asks:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.02)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message.get("status", 0))

        async with asyncio.timeout(10):
            await app(_scope(body), receive, send)
            while not engines.made[0].withdrawn:
                await asyncio.sleep(0.001)
        assert [seat.users for seat in server.pool.seats] == [0]
        await server.pool.close()
        return sent

    sent = asyncio.run(leave())
    assert (200 in sent) == stream


@pytest.fixture
def opens_late(server: Server, engines: FakeEngines, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model takes ten times as long to load as a client waits for a sign of life."""
    monkeypatch.setattr(streams, "_PATIENCE", 0.02)
    monkeypatch.setattr(streams, "_SIGN", 0.02)
    engines.loading = (Progress("loading", "nano", 30, 100, "percent"),)
    engines.may_open.clear()

    async def open_soon() -> None:
        await asyncio.sleep(0.2)
        engines.may_open.set()

    pool_start = server.pool.start

    async def start() -> None:
        await pool_start()
        server.pool._spawn(open_soon())

    monkeypatch.setattr(server.pool, "start", start)


@pytest.mark.usefixtures("opens_late")
def test_a_client_of_a_stream_that_waits_gets_signs_of_life(server: Server) -> None:
    with a_client(server) as client:
        lines = client.post(CHAT, json={**HELLO, "stream": True}).text.splitlines()
    assert lines[0] == ': dsr {"type":"waiting","state":"loading","done":30,"total":100,"unit":"percent"}'
    assert lines[-2] == "data: [DONE]"


@pytest.mark.usefixtures("opens_late")
def test_a_client_of_lines_that_waits_gets_answers_without_text(server: Server, engines: FakeEngines) -> None:
    with a_client(server) as client:
        answer = client.post("/api/chat", json=HELLO)
        lines = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.headers["content-type"] == "application/x-ndjson"
    empty = {"role": "assistant", "content": ""}
    assert [(each["model"], each["message"], each["done"]) for each in lines[:2]] == [("nano", empty, False)] * 2
    assert lines[-1]["done"] is True
