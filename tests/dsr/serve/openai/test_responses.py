"""/v1/responses: items, the order of events, and conversations that go on by an id."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from dsr.serve.http.app import make_app
from dsr.serve.http.server import Server
from dsr.serve.pool.pool import Pool, PoolOptions
from dsr.serve.pool.room import Memory
from runtime.base.events import TextDrawn
from runtime.base.types import Message, ToolCall
from tests.dsr.serve.fake_engine import FakeEngines, begun, calling, failing, saying

ROUTE = "/v1/responses"
OSLO = ToolCall("call_1", "weather", '{"city": "Oslo"}')
TOOLS = [{"type": "function", "name": "weather", "parameters": {"type": "object"}}]


def post(client: TestClient, **body: Any) -> Any:
    answer = client.post(ROUTE, json={"model": "nano", "input": "2+2?", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(client: TestClient, **body: Any) -> list[Any]:
    answer = client.post(ROUTE, json={"model": "nano", "input": "2+2?", "stream": True, **body})
    assert answer.status_code == 200, answer.text
    lines = [text.split("\n") for text in answer.text.split("\n\n") if text and not text.startswith(":")]
    told = [json.loads(data.removeprefix("data: ")) for _, data in lines]
    assert [name for name, _ in lines] == [f"event: {each['type']}" for each in told]
    assert [each["sequence_number"] for each in told] == [*range(len(told))]
    return told


def without_ids(items: Any) -> Any:
    return [{name: value for name, value in item.items() if name != "id"} for item in items]


THOUGHT = {
    "type": "reasoning",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "Two and two."}],
    "status": "completed",
}
ANSWER = {
    "type": "message",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "Four.", "annotations": [], "logprobs": []}],
    "status": "completed",
}


def test_a_whole_response(client: TestClient) -> None:
    response = post(client, metadata={"a": "b"}, instructions="Be short.")
    assert without_ids(response["output"]) == [THOUGHT, ANSWER]
    assert (response["object"], response["status"], response["metadata"]) == ("response", "completed", {"a": "b"})
    assert response["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 11,
    }


def test_the_events_of_a_thought_and_an_answer_in_their_order(client: TestClient) -> None:
    told = events(client)
    assert [each["type"].removeprefix("response.") for each in told] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert without_ids(told[-1]["response"]["output"]) == [THOUGHT, ANSWER]
    assert told[0]["response"]["status"] == "in_progress"
    assert [each["output_index"] for each in told if "output_index" in each] == [0] * 8 + [1] * 6


def test_the_events_of_a_call(client: TestClient, engines: FakeEngines) -> None:
    engines.script = calling(OSLO)
    told = events(client, tools=TOOLS)
    assert [each["type"].removeprefix("response.") for each in told[2:]] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    item = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Oslo"}'}
    assert without_ids(told[-1]["response"]["output"]) == [{**item, "status": "completed"}]
    assert without_ids(post(client, tools=TOOLS)["output"]) == [{**item, "status": "completed"}]


@pytest.mark.parametrize("answer", ["Fo", ""])
def test_a_cut_answer_is_incomplete_in_its_last_item(client: TestClient, engines: FakeEngines, answer: str) -> None:
    engines.script = saying(answer, "Two.", finish_reason="length")
    whole, streamed = post(client), events(client)[-1]
    assert streamed["type"] == "response.incomplete"
    for response in (whole, streamed["response"]):
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}
        assert response["output"][-1]["status"] == "incomplete"
        assert [item["type"] for item in response["output"]] == ["reasoning", "message"][: 2 if answer else 1]


def test_a_conversation_goes_on_by_the_id_of_a_response(client: TestClient, engines: FakeEngines) -> None:
    """Instructions hold for one response alone."""
    first = post(client, instructions="Be short.")
    assert engines.asked.messages[0] == Message("system", "Be short.")
    post(client, input="Sure?", previous_response_id=first["id"], instructions="Be long.")
    assert engines.asked.messages == (
        Message("system", "Be long."),
        Message("user", "2+2?"),
        Message("assistant", "Four.", "Two and two."),
        Message("user", "Sure?"),
    )


def test_what_is_not_stored_is_not_found(client: TestClient) -> None:
    for id in (post(client, store=False)["id"], "resp_1"):
        assert client.get(f"{ROUTE}/{id}").status_code == 404
        refused = client.post(ROUTE, json={"model": "nano", "input": "?", "previous_response_id": id})
        assert refused.status_code == 404


def test_a_stored_response_can_be_read_and_deleted(client: TestClient) -> None:
    for id in (post(client)["id"], events(client)[-1]["response"]["id"]):
        assert client.get(f"{ROUTE}/{id}").json()["id"] == id
        assert client.delete(f"{ROUTE}/{id}").json() == {"id": id, "object": "response", "deleted": True}
        assert client.get(f"{ROUTE}/{id}").status_code == 404


def test_a_server_keeps_its_own_responses(client: TestClient, server: Server) -> None:
    id = post(client)["id"]
    other = Server(server.names, Pool(PoolOptions(), lambda: Memory(1 << 40, 1 << 40), make=FakeEngines()))
    with TestClient(make_app(other), base_url="http://127.0.0.1:11500", client=("127.0.0.1", 50000)) as second:
        assert second.get(f"{ROUTE}/{id}").status_code == 404


def test_items_become_messages(client: TestClient, engines: FakeEngines) -> None:
    items = [
        {"role": "developer", "content": "Be short."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Oslo?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Oslo"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "7"},
    ]
    post(client, input=items, instructions="Be kind.")
    assert engines.asked.messages == (
        Message("system", "Be kind.\n\nBe short."),
        Message("user", "Oslo?"),
        Message("assistant", "", "Hm.", calls=(OSLO,)),
        Message("tool", "7", call_id="call_1"),
    )


def test_a_sealed_thought_comes_back(client: TestClient, engines: FakeEngines) -> None:
    thought = post(client, include=["reasoning.encrypted_content"])["output"][0]
    streamed = events(client, include=["reasoning.encrypted_content"])[-1]["response"]["output"][0]
    assert streamed["encrypted_content"] == thought["encrypted_content"]
    sealed = {"type": "reasoning", "encrypted_content": thought["encrypted_content"]}
    post(client, input=[{"role": "user", "content": "2+2?"}, sealed, {"role": "assistant", "content": "4"}])
    assert engines.asked.messages[1] == Message("assistant", "4", "Two and two.")
    refused = client.post(ROUTE, json={"model": "nano", "input": [{"type": "reasoning", "encrypted_content": "gAAA"}]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input.0.encrypted_content")


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"max_tool_calls": 3}, "max_tool_calls"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"moderation": {"model": "m"}}, "moderation"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"tools": [{"type": "web_search"}]}, "tools.0"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0.type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content.0"),
        ({"input": [{"role": "robot"}]}, "input.0.role"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_its_place(client: TestClient, body: Any, place: str) -> None:
    answer = client.post(ROUTE, json={"model": "nano", "input": "2+2?", **body})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, place)


def test_what_fails_in_the_middle_is_the_last_event(client: TestClient, engines: FakeEngines) -> None:
    engines.script = failing("EngineDied", "it ended", after=[begun(), TextDrawn(0, "answer", "Fo"), 0.02])
    *_, last = events(client)
    del last["sequence_number"]
    assert last == {"type": "error", "code": "503", "message": "it ended", "param": None}


def test_a_streamed_vote_ends_with_its_answer(client: TestClient) -> None:
    told = events(client, dsr={"vote": 2})
    assert without_ids(told[-1]["response"]["output"]) == [THOUGHT, ANSWER]
    assert told[-1]["response"]["dsr"]["verdict"]["winner"] == "Four."
