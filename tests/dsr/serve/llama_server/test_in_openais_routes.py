"""What clients of llama-server send to OpenAI's routes, and read there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from dsr.models import library
from dsr.serve.names import Named
from dsr.serve.told import Failed
from tests.dsr.serve.fake_engine import FakeEngines, saying

PATH = "/v1/chat/completions"
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
TIMES = {"first_token_seconds": 0.25, "latency": 1.25}


@pytest.mark.parametrize(
    ("given", "thinking", "effort"),
    [
        ({"enable_thinking": False}, False, None),
        ({"thinking": True, "reasoning_effort": "high"}, True, "high"),
        ({}, None, None),
    ],
)
def test_variables_of_the_template_turn_the_thought_on_and_off(
    client: TestClient, engines: FakeEngines, given: dict[str, Any], thinking: bool | None, effort: str | None
) -> None:
    assert client.post(PATH, json={**ASKED, "chat_template_kwargs": given}).status_code == 200
    assert (engines.asked.options.thinking, engines.asked.options.effort) == (thinking, effort)


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"tone": "kind"}, "chat_template_kwargs.tone"),
        ({"enable_thinking": "no"}, "chat_template_kwargs.enable_thinking"),
        ({"reasoning_effort": 3}, "chat_template_kwargs.reasoning_effort"),
    ],
)
def test_other_variables_are_refused(client: TestClient, given: dict[str, Any], place: str) -> None:
    refused = client.post(PATH, json={**ASKED, "chat_template_kwargs": given})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == place


def _ending_in(**fields: Any) -> dict[str, Any]:
    return {"messages": [*ASKED["messages"], {"role": "assistant", "content": "It is"}], **fields}


@pytest.mark.parametrize(
    ("fields", "continues"),
    [
        ({}, True),
        ({"continue_final_message": True, "add_generation_prompt": False}, True),
        ({"continue_final_message": False}, False),
        ({"add_generation_prompt": True}, False),
    ],
)
def test_an_answer_at_the_end_goes_on(
    client: TestClient, engines: FakeEngines, fields: dict[str, Any], continues: bool
) -> None:
    assert client.post(PATH, json=_ending_in(**fields)).status_code == 200
    assert engines.asked.options.continues is continues


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (_ending_in(continue_final_message=True, add_generation_prompt=True), "continue_final_message"),
        ({**ASKED, "continue_final_message": True}, "continue_final_message"),
        (_ending_in(dsr={"vote": 2}), "messages"),
        ({**ASKED, "add_generation_prompt": False}, "add_generation_prompt"),
        ({"messages": _ending_in()["messages"] + _ending_in()["messages"][1:]}, "messages"),
    ],
)
def test_an_answer_cannot_begin_and_go_on(client: TestClient, body: dict[str, Any], place: str) -> None:
    refused = client.post(PATH, json=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == place


@pytest.mark.parametrize("path", [PATH, "/v1/completions"])
def test_replies_and_streams_have_timings_of_one_sample(client: TestClient, engines: FakeEngines, path: str) -> None:
    engines.script = saying("a b c", **TIMES)
    body = {**ASKED, "prompt": "hi"}
    answer = client.post(path, json=body).json()
    assert answer["timings"]["predicted_per_second"] == 2.0
    assert (answer["timings"]["prompt_n"], answer["timings"]["cache_n"]) == (4, 3)
    assert "timings" not in client.post(path, json={**body, "n": 2}).json()
    stream = client.post(path, json={**body, "stream": True, "stream_options": {"include_usage": True}}).text
    usage = json.loads(stream.split("data: ")[-2])
    assert usage["choices"] == []
    assert usage["timings"] == answer["timings"]


def test_a_prompt_that_is_too_long_has_openais_code_and_llama_servers_numbers(
    client: TestClient, engines: FakeEngines
) -> None:
    engines.script = lambda ask: [Failed("TooLong", "too long", "shorten it", 900, 512)]
    for stream in (False, True):
        refused = client.post(PATH, json={**ASKED, "stream": stream})
        assert refused.status_code == 400
        assert refused.json()["error"] == {
            "message": "too long; shorten it", "type": "exceed_context_size_error", "param": None,
            "code": "context_length_exceeded", "n_prompt_tokens": 900, "n_ctx": 512,
        }  # fmt: skip


def test_clients_see_no_folders_of_a_file_that_was_given() -> None:
    model = library.find("nano")
    assert Named(model).shown == "nano"
    assert Named(library.find(str(model.path))).shown == "nano.gguf"
