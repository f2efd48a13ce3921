"""POST /v1/messages and count_tokens: literal bodies in, asks and events out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from runtime.base.events import TextDrawn
from runtime.base.types import Message, OneTool, Tool, ToolCall
from tests.dsr.serve.fake_engine import FakeEngines, begun, calling, failing, saying

ROUTE = "/v1/messages"
QUESTION = [{"role": "user", "content": "2+2?"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [{"name": "weather", "description": "of a city", "input_schema": SCHEMA}]
OSLO = ToolCall("call_1", "weather", '{"city": "Oslo"}')


def send(client: TestClient, **body: Any) -> Any:
    return client.post(ROUTE, json={"model": "nano", "max_tokens": 50, "messages": QUESTION, **body})


def post(client: TestClient, **body: Any) -> Any:
    answer = send(client, **body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(client: TestClient, **body: Any) -> list[Any]:
    answer = send(client, stream=True, **body)
    assert answer.status_code == 200, answer.text
    lines = [text.split("\n") for text in answer.text.split("\n\n") if text and not text.startswith(":")]
    told = [json.loads(data.removeprefix("data: ")) for _, data in lines]
    assert [name for name, _ in lines] == [f"event: {each['type']}" for each in told]
    return told


def test_a_whole_message(client: TestClient) -> None:
    message = post(client)
    assert message.pop("id").startswith("msg_")
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": "nano",
        "content": [
            {"type": "thinking", "thinking": "Two and two.", "signature": ""},
            {"type": "text", "text": "Four."},
        ],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 4,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 3,
            "output_tokens": 4,
        },
    }


def test_the_events_of_a_message(client: TestClient, engines: FakeEngines) -> None:
    engines.script = saying("Four.", "Two.")
    started, *blocks, delta, stopped = events(client)
    assert started["message"]["content"] == [] and started["message"]["usage"]["output_tokens"] == 0
    thinking = {"type": "thinking", "thinking": "", "signature": ""}
    assert blocks == [
        {"type": "content_block_start", "index": 0, "content_block": thinking},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Two."}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": ""}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Four."}},
        {"type": "content_block_stop", "index": 1},
    ]
    assert delta["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert delta["usage"]["output_tokens"] == 2
    assert stopped == {"type": "message_stop"}


def test_calls_whole_and_streamed(client: TestClient, engines: FakeEngines) -> None:
    engines.script = calling(OSLO)
    message = post(client, tools=TOOLS)
    assert message["content"] == [{"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Oslo"}}]
    assert message["stop_reason"] == "tool_use"
    told = events(client, tools=TOOLS)
    assert told[1]["content_block"] == {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}}
    assert "".join(each["delta"]["partial_json"] for each in told[2:4]) == '{"city": "Oslo"}'
    assert told[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("ended", "reason", "sequence"),
    [
        ({"finish_reason": "length"}, "max_tokens", None),
        ({"stop_string": "END"}, "stop_sequence", "END"),
        ({}, "end_turn", None),
    ],
)
def test_why_a_message_ended(client: TestClient, engines: FakeEngines, ended: Any, reason: str, sequence: Any) -> None:
    engines.script = saying("Four.", **ended)
    message = post(client)
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, sequence)
    assert events(client)[-2]["delta"] == {"stop_reason": reason, "stop_sequence": sequence}


def test_a_thought_without_an_answer_has_an_empty_text(client: TestClient, engines: FakeEngines) -> None:
    engines.script = saying("", "Two", finish_reason="length")
    assert [block["type"] for block in post(client)["content"]] == ["thinking", "text"]
    blocks = [each["content_block"]["type"] for each in events(client) if each["type"] == "content_block_start"]
    assert blocks == ["thinking", "text"]


def test_every_field_reaches_the_ask(client: TestClient, engines: FakeEngines) -> None:
    post(
        client, temperature=0.5, top_p=0.9, top_k=7, stop_sequences=["END"], tools=TOOLS,
        system=[{"type": "text", "text": "Short."}], thinking={"type": "enabled", "budget_tokens": 9},
        tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
        output_config={"effort": "xhigh"},
    )  # fmt: skip
    asked = engines.asked
    sampling = asked.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_tokens) == (0.5, 0.9, 7, 50)
    assert (sampling.stop, sampling.think_budget) == (("END",), 9)
    assert (asked.options.thinking, asked.options.effort) == (True, "max")
    assert asked.messages == (Message("system", "Short."), Message("user", "2+2?"))
    assert asked.tools is not None
    assert asked.tools.tools == (Tool("weather", "of a city", SCHEMA),)
    assert (asked.tools.choice, asked.tools.parallel) == (OneTool("weather"), False)


def test_blocks_become_messages(client: TestClient, engines: FakeEngines) -> None:
    used = {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Oslo"}}
    thought = {"type": "thinking", "thinking": "Hm.", "signature": ""}
    failed = {"type": "tool_result", "tool_use_id": "call_1", "content": "no net", "is_error": True}
    turns = [
        {"role": "user", "content": "Oslo?"},
        {"role": "assistant", "content": [thought, {"type": "redacted_thinking", "data": "x"}, used]},
        {"role": "user", "content": [failed, {"type": "text", "text": "Go on."}]},
    ]
    post(client, messages=turns)
    assert engines.asked.messages == (
        Message("user", "Oslo?"),
        Message("assistant", "", "Hm.", calls=(OSLO,)),
        Message("tool", "Error: no net", call_id="call_1"),
        Message("user", "Go on."),
    )


def test_a_last_message_of_the_assistant_goes_on(client: TestClient, engines: FakeEngines) -> None:
    post(client, messages=[*QUESTION, {"role": "assistant", "content": "The sum is"}])
    assert engines.asked.options.continues is True
    post(client)
    assert engines.asked.options.continues is False


@pytest.mark.parametrize("field", [{"output_config": {"format": 0}}, {"output_format": 0}])
def test_the_form_of_an_answer(client: TestClient, engines: FakeEngines, field: Any) -> None:
    format = {"type": "json_schema", "schema": {"type": "integer"}}
    post(client, **json.loads(json.dumps(field).replace("0", json.dumps(format))))
    assert engines.asked.grammar is not None and engines.asked.grammar.text == '{"type": "integer"}'


def test_a_vote_whole_and_streamed(client: TestClient, engines: FakeEngines) -> None:
    message = post(client, dsr={"vote": 4})
    assert (engines.asked.strategy, engines.asked.settings) == ("vote", ("n=4",))
    assert message["dsr"]["verdict"]["winner"] == "Four."
    texts = [each["delta"].get("text") for each in events(client, model="nano@vote4") if "delta" in each]
    assert [text for text in texts if text] == ["Four."]


def test_tokens_are_counted(client: TestClient, engines: FakeEngines) -> None:
    body = {"model": "nano", "messages": QUESTION, "system": "Be short.", "tools": TOOLS}
    answer = client.post(f"{ROUTE}/count_tokens", json=body)
    assert (answer.status_code, answer.json()) == (200, {"input_tokens": 7})
    [(kind, given)] = engines.queried
    assert kind == "count" and given["ask"]["tools"]["tools"][0]["name"] == "weather"


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"container": "c"}, "container"),
        ({"mcp_servers": [{"url": "https://a.example"}]}, "mcp_servers"),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, "context_management.edits"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"speed": "fast"}, "speed"),
        ({"inference_geo": "eu"}, "inference_geo"),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, "thinking.display"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use"}]}]}, "messages.0.content.0"),
        ({"messages": []}, "messages"),
        ({"max_tokens": None}, "max_tokens"),
        ({"thinking": {"type": "always"}}, "thinking.type"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_its_place(client: TestClient, body: Any, place: str) -> None:
    answer = send(client, **body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.json()["error"]["message"].startswith(place)


def test_wishes_that_hold_anyway_are_accepted(client: TestClient) -> None:
    edits = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
    answer = send(client, context_management=edits, cache_control={"type": "ephemeral"}, service_tier="auto", x=1)
    assert (answer.status_code, answer.headers["X-Dsr-Unknown-Fields"]) == (200, "x")


def test_errors_have_anthropics_form(client: TestClient, engines: FakeEngines) -> None:
    message = "there is no model 'claude-9' here; GET /v1/models lists what is here"
    answer = send(client, model="claude-9")
    assert (answer.status_code, answer.json()["type"]) == (404, "error")
    assert answer.json()["error"] == {"type": "not_found_error", "message": message}
    for kind, status, name in (("Busy", 429, "rate_limit_error"), ("EngineDied", 503, "overloaded_error")):
        engines.script = failing(kind, "no")
        for stream in (False, True):
            answer = send(client, stream=stream)
            assert (answer.status_code, answer.headers["Retry-After"]) == (status, "2")
            assert answer.json()["error"] == {"type": name, "message": "no"}
    assert client.post(ROUTE, content=b"x" * (9 << 20)).json()["error"]["type"] == "request_too_large"


def test_what_fails_in_the_middle_is_the_last_event(client: TestClient, engines: FakeEngines) -> None:
    engines.script = failing("EngineDied", "it ended", after=[begun(), TextDrawn(0, "answer", "Fo"), 0.02])
    assert events(client)[-1] == {"type": "error", "error": {"type": "overloaded_error", "message": "it ended"}}
