"""POST /v1/chat/completions: literal bodies in, asks and literal bodies out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.testclient import TestClient

from dsr.serve.ask import Ask
from dsr.serve.told import Done, Told
from runtime.base.events import TextDrawn, TokenDrawn
from runtime.base.types import Message, OneTool, TokenLogprob, Tool, ToolCall
from tests.dsr.serve.fake_engine import FakeEngines, begun, calling, ended, failing, saying

ROUTE = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "2+2?"}]
USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 4,
    "total_tokens": 11,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": PARAMETERS}}]
OSLO = ToolCall("call_1", "weather", '{"city": "Oslo"}')


def post(client: TestClient, **body: Any) -> Any:
    answer = client.post(ROUTE, json={"model": "nano", "messages": QUESTION, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def streamed(client: TestClient, **body: Any) -> list[Any]:
    """The events, without what the frame of each chunk has; dsr's own comments as {"dsr": ...}."""
    answer = client.post(ROUTE, json={"model": "nano", "messages": QUESTION, "stream": True, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [_event(text) for text in answer.text.split("\n\n") if text]


def _event(text: str) -> Any:
    if text.startswith(": dsr "):
        return {"dsr": json.loads(text.removeprefix(": dsr "))["type"]}
    data = text.removeprefix("data: ")
    if data == "[DONE]":
        return data
    value = json.loads(data)
    frame = {value.pop(name, None) for name in ("id", "object", "created", "model", "system_fingerprint")}
    assert "chat.completion.chunk" in frame or "error" in value
    return value


def chunk(index: int = 0, finish: str | None = None, **delta: Any) -> Any:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {"choices": [choice]}


def refusal(client: TestClient, **body: Any) -> tuple[int, str | None, str]:
    answer = client.post(ROUTE, json={"model": "nano", "messages": QUESTION, **body})
    error = answer.json()["error"]
    return answer.status_code, error["param"], error["message"]


def test_a_whole_answer(client: TestClient) -> None:
    answer = post(client)
    assert answer.pop("id").startswith("chatcmpl-") and answer.pop("created") > 0
    assert answer.pop("system_fingerprint").startswith("dsr-")
    answer.pop("timings", None)
    assert answer == {
        "object": "chat.completion",
        "model": "nano",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Four.", "reasoning_content": "Two and two."},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }


def test_a_streamed_answer(client: TestClient) -> None:
    events = streamed(client, stream_options={"include_usage": True})
    assert events[-1] == "[DONE]"
    assert events[:-2] == [
        chunk(role="assistant", content=None),
        chunk(reasoning_content="Two"),
        chunk(reasoning_content=" and"),
        chunk(reasoning_content=" two."),
        chunk(content="Four."),
        chunk(finish="stop"),
    ]
    assert (events[-2]["choices"], events[-2]["usage"]) == ([], USAGE)


def test_without_a_wish_for_it_a_stream_has_no_usage(client: TestClient) -> None:
    assert streamed(client)[-2:] == [chunk(finish="stop"), "[DONE]"]


def test_several_answers_whole_and_streamed(client: TestClient, engines: FakeEngines) -> None:
    engines.script = saying("Four.")
    assert [(each["index"], each["message"]["content"]) for each in post(client, n=2)["choices"]] == [
        (0, "Four."),
        (1, "Four."),
    ]
    assert engines.asked.samples == 2
    assert streamed(client, n=2)[:4] == [
        chunk(0, role="assistant", content=None),
        chunk(1, role="assistant", content=None),
        chunk(0, content="Four."),
        chunk(0, finish="stop"),
    ]


def test_a_cut_answer_says_length(client: TestClient, engines: FakeEngines) -> None:
    engines.script = saying("Fo", finish_reason="length")
    assert post(client)["choices"][0]["finish_reason"] == "length"
    assert streamed(client)[-2] == chunk(finish="length")


def test_every_sampling_field_reaches_the_ask(client: TestClient, engines: FakeEngines) -> None:
    post(
        client, temperature=0.5, top_p=0.9, top_k=7, min_p=0.1, seed=-1, stop="END", max_tokens=5, presence_penalty=0.2,
        max_completion_tokens=6, frequency_penalty=0.3, repeat_penalty=1.1, typical_p=0.8,
        logit_bias={"12": -5, "a": 2}, reasoning_effort="xhigh", dsr={"think_budget": 9, "keep_thoughts": True},
    )  # fmt: skip
    sampling, options = engines.asked.sampling, engines.asked.options
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 7, 0.1)
    assert (sampling.seed, sampling.stop, sampling.max_tokens, sampling.think_budget) == (None, ("END",), 6, 9)
    assert (sampling.presence_penalty, sampling.frequency_penalty, sampling.repeat_penalty) == (0.2, 0.3, 1.1)
    assert (sampling.typical_p, sampling.logit_bias) == (0.8, ((12, -5), ("a", 2)))
    assert (options.effort, options.keep_thoughts, options.thinking, options.continues) == ("max", True, None, False)


def test_no_effort_is_no_thought_and_minus_one_no_limit(client: TestClient, engines: FakeEngines) -> None:
    post(client, reasoning_effort="none", max_tokens=-1)
    assert (engines.asked.options.thinking, engines.asked.sampling.max_tokens) == (False, None)


def test_an_answer_goes_on(client: TestClient, engines: FakeEngines) -> None:
    last = {"role": "assistant", "content": "Fo", "reasoning_content": "Two."}
    post(client, messages=[*QUESTION, last], dsr={"continue": True})
    assert engines.asked.options.continues is True
    assert engines.asked.messages[-1] == Message("assistant", "Fo", "Two.")


def test_messages_of_every_role(client: TestClient, engines: FakeEngines) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    said = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": parts, "name": "Ada"},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning": "Hm."},
        {"role": "tool", "tool_call_id": "call_1", "content": "7"},
    ]
    post(client, messages=said)
    assert engines.asked.messages == (
        Message("system", "Be short."),
        Message("user", "a\nb"),
        Message("assistant", "", "Hm.", calls=(OSLO,)),
        Message("tool", "7", call_id="call_1"),
    )


def test_tools_and_their_choice(client: TestClient, engines: FakeEngines) -> None:
    post(client, tools=TOOLS, parallel_tool_calls=False)
    use = engines.asked.tools
    assert use is not None
    assert (use.tools, use.choice, use.parallel) == ((Tool("weather", "of a city", PARAMETERS),), "auto", False)
    post(client, tools=TOOLS, tool_choice={"type": "function", "function": {"name": "weather"}})
    assert engines.asked.tools is not None and engines.asked.tools.choice == OneTool("weather")
    post(client, tools=[], tool_choice="auto")
    assert engines.asked.tools is None


def test_calls_whole_and_streamed(client: TestClient, engines: FakeEngines) -> None:
    engines.script = calling(OSLO)
    [choice] = post(client, tools=TOOLS)["choices"]
    called = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    assert choice["message"] == {"role": "assistant", "content": None, "tool_calls": [called]}
    assert choice["finish_reason"] == "tool_calls"
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":'}}
    assert streamed(client, tools=TOOLS)[1:] == [
        chunk(tool_calls=[first]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": ' "Oslo"}'}}]),
        chunk(finish="tool_calls"),
        "[DONE]",
    ]


def _with_logprobs(ask: Ask) -> Iterable[Told]:
    top = (TokenLogprob(5, b"4", -0.1), TokenLogprob(6, b"5", -2.5))
    yield begun()
    yield TokenDrawn(0, "thinking", 3, b"Hm", -0.5, ())
    yield TextDrawn(0, "thinking", "Hm")
    yield TokenDrawn(0, "answer", 5, b"4", -0.1, top)
    yield TextDrawn(0, "answer", "4")
    yield ended("4", "Hm")
    yield Done()


def test_logprobs_whole_and_streamed(client: TestClient, engines: FakeEngines) -> None:
    engines.script = _with_logprobs
    four = {"id": 5, "token": "4", "bytes": [52], "logprob": -0.1}
    five = {"id": 6, "token": "5", "bytes": [53], "logprob": -2.5}
    thought = {"id": 3, "token": "Hm", "bytes": [72, 109], "logprob": -0.5, "top_logprobs": []}
    answer = {"content": [{**four, "top_logprobs": [four, five]}], "refusal": None}
    whole = post(client, logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]
    assert whole == {**answer, "reasoning": [thought]}
    assert engines.asked.sampling.top_logprobs == 2
    rows = [event["choices"][0]["logprobs"] for event in streamed(client, logprobs=True, top_logprobs=2)[1:-1]]
    assert rows == [{"content": [], "refusal": None, "reasoning": [thought]}, answer, None]


@pytest.mark.parametrize(
    ("format", "kind"),
    [
        ({"type": "json_object"}, '{"type": "object"}'),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}}, '{"type": "integer"}'),
    ],
)
def test_the_form_of_an_answer(client: TestClient, engines: FakeEngines, format: Any, kind: str) -> None:
    post(client, response_format=format)
    assert engines.asked.grammar is not None
    assert (engines.asked.grammar.kind, engines.asked.grammar.text) == ("json_schema", kind)
    post(client, response_format={"type": "text"})
    assert engines.asked.grammar is None


def test_a_vote_has_its_verdict_whole_and_streamed(client: TestClient, engines: FakeEngines) -> None:
    answer = post(client, dsr={"vote": 8, "set": {"quorum": 0.5}})
    assert (engines.asked.strategy, engines.asked.settings) == ("vote", ("n=8", "quorum=0.5"))
    assert answer["dsr"]["verdict"]["rule"] == "2 of 2 votes"
    assert answer["choices"][0]["message"]["content"] == "Four."
    assert answer["usage"]["completion_tokens"] == 8
    events = streamed(client, dsr={"vote": 8})
    assert {"dsr": "begun"} in events and {"dsr": "verdict"} in events
    told = [event for event in events if event != "[DONE]" and "dsr" not in event]
    assert told == [
        chunk(role="assistant", content=None),
        chunk(reasoning_content="Two and two."),
        chunk(content="Four."),
        chunk(finish="stop"),
    ]
    assert events[-2]["dsr"]["verdict"]["winner"] == "Four."


def test_a_plain_stream_tells_dsrs_events_to_those_who_ask(client: TestClient) -> None:
    assert {"dsr": "text"} not in streamed(client)
    assert {"dsr": "text"} in streamed(client, dsr={"events": True})


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"store": True}, "store"),
        ({"verbosity": "low"}, "verbosity"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"moderation": {"mode": "block"}}, "moderation"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"tools": [{"type": "web_search"}]}, "tools.0"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]}, "messages.0.tool_calls.0"),
        ({"temperature": "hot"}, "temperature"),
        ({"stop": 5}, "stop"),
        ({"n": 0}, "n"),
        ({"dsr": {"votes": 8}}, "dsr.votes"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_its_place(client: TestClient, body: Any, place: str) -> None:
    status, told, message = refusal(client, **body)
    assert (status, told) == (400, place), message


@pytest.mark.parametrize(
    "body",
    [
        {"modalities": ["text"], "store": False, "verbosity": "medium", "service_tier": "auto"},
        {"user": "u", "metadata": {"a": "b"}, "safety_identifier": "s", "prompt_cache_key": "k"},
    ],
)
def test_wishes_that_hold_anyway_are_accepted(client: TestClient, body: Any) -> None:
    assert post(client, **body)["choices"][0]["message"]["content"] == "Four."


@pytest.mark.parametrize(
    "body", [{"n": 2, "dsr": {"vote": 4}}, {"tools": TOOLS, "dsr": {"vote": 4}}, {"tool_choice": "required"}]
)
def test_contradictions_are_refused(client: TestClient, body: Any) -> None:
    assert refusal(client, **body)[0] == 400


def test_unknown_fields_are_told(client: TestClient) -> None:
    body = {"model": "nano", "messages": QUESTION, "mirostat": 1, "stream_options": {"x": 1}, "bad\n": 2}
    answer = client.post(ROUTE, json=body)
    assert answer.status_code == 200
    assert answer.headers["X-Dsr-Unknown-Fields"] == "mirostat,stream_options.x"


def test_errors_have_openais_form(client: TestClient, engines: FakeEngines) -> None:
    missing = client.post(ROUTE, json={"model": "gpt-9", "messages": QUESTION})
    assert missing.status_code == 404
    assert missing.json() == {
        "error": {
            "message": "there is no model 'gpt-9' here; GET /v1/models lists what is here",
            "type": "not_found_error",
            "param": None,
            "code": "model_not_found",
        }
    }
    for kind, status, name in (("Busy", 429, "rate_limit_error"), ("EngineDied", 503, "unavailable_error")):
        engines.script = failing(kind, "no")
        for stream in (False, True):
            answer = client.post(ROUTE, json={"model": "nano", "messages": QUESTION, "stream": stream})
            assert (answer.status_code, answer.headers["Retry-After"]) == (status, "2")
            assert answer.json()["error"] == {"message": "no", "type": name, "param": None, "code": status}


def test_what_fails_in_the_middle_is_the_last_event(client: TestClient, engines: FakeEngines) -> None:
    engines.script = failing("EngineDied", "it ended", after=[begun(), TextDrawn(0, "answer", "Fo"), 0.02])
    last = streamed(client)[-1]
    assert last == {"error": {"message": "it ended", "type": "unavailable_error", "param": None, "code": 503}}


def test_a_body_that_is_too_long_is_413(client: TestClient) -> None:
    answer = client.post(ROUTE, content=b"x" * (9 << 20))
    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "invalid_request_error")
