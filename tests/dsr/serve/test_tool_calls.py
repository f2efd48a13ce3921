"""Calls of tools from a program to a model and back, through the real engine: tiny models say what a test dictates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dsr.serve.calling_models import ADD, MODELS, SEEN, SUM, THOUGHT, TIME, WORLD
from tests.dsr.serve.live_server import Live, start_server, stop_server

TOOLS = [{"type": "function", "function": each} for each in (WORLD, ADD)]
FLAT = [{"type": "function", **each} for each in (WORLD, ADD)]
ANTHROPIC = [
    {"name": each["name"], "description": each["description"], "input_schema": each["parameters"]}
    for each in (WORLD, ADD)
]
ASKED = [{"role": "user", "content": "Q"}]
REPAIRED = '{"zone":"UTC"}'
Json = dict[str, Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("calls")
    models = [str(folder / f"{name}.gguf") for name in MODELS]
    for name, path in zip(MODELS, models, strict=True):
        Path(path).write_bytes(MODELS[name].model(name))
    options = ("--max-models", "8", "--slots", "4", "--ctx-size", "2048")
    live = start_server(*options, log=folder / "log", home=folder / "home", models=models)
    yield live
    stop_server(live)


def post(server: Live, path: str, body: Json) -> Any:
    with server.client() as client:
        answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer


def chat(server: Live, model: str, **more: Any) -> Json:
    """The answer of OpenAI's API, which has `tools` unless `more` says otherwise."""
    body = {"model": model, "messages": ASKED, "tools": TOOLS, "temperature": 0, "max_tokens": 300, **more}
    answer: Json = post(server, "/v1/chat/completions", body).json()
    return answer


def events(text: str) -> list[Json]:
    """The data of a stream of events; comments are left out."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(each) for each in data if each != "[DONE]"]


def chunks(server: Live, model: str, **more: Any) -> list[Json]:
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    body = {"model": model, "messages": ASKED, "tools": TOOLS, "temperature": 0, "max_tokens": 300, **stream, **more}
    return events(post(server, "/v1/chat/completions", body).text)


def collected(found: list[Json]) -> list[Json]:
    """The choices that the chunks of a stream add up to, as clients put them together."""
    choices: dict[int, Json] = {}
    for each in [choice for chunk in found for choice in chunk["choices"]]:
        choice = choices.setdefault(each["index"], {"content": "", "thought": "", "calls": {}, "finish": None})
        delta = each["delta"]
        choice["content"] += delta.get("content") or ""
        choice["thought"] += delta.get("reasoning_content") or ""
        choice["finish"] = choice["finish"] or each["finish_reason"]
        for call in delta.get("tool_calls", ()):
            known = choice["calls"].setdefault(call["index"], {"id": "", "name": "", "arguments": ""})
            known["id"] += call.get("id", "")
            known["name"] += call["function"].get("name", "")
            known["arguments"] += call["function"]["arguments"]
    return [choices[number] for number in sorted(choices)]


def calls(choice: Json) -> list[tuple[str, str]]:
    """Names and arguments, of a whole answer or a collected one."""
    if "message" in choice:
        functions = [each["function"] for each in choice["message"].get("tool_calls", ())]
    else:
        functions = [*choice["calls"].values()]
    return [(each["name"], each["arguments"]) for each in functions]


# OpenAI's chat


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, [("time", TIME), ("add", SUM)]),
        ({"parallel_tool_calls": False}, [("time", TIME)]),
        ({"tool_choice": "required"}, [("time", TIME), ("add", SUM)]),
        ({"tool_choice": "required", "parallel_tool_calls": False}, [("time", TIME)]),
        ({"tool_choice": {"type": "function", "function": {"name": "add"}}}, [("add", SUM)]),
    ],
    ids=["auto", "auto, one", "required", "required, one", "named"],
)
def test_the_choice_decides_which_calls_come(server: Live, more: Json, expected: list[tuple[str, str]]) -> None:
    [choice] = chat(server, "caller", **more)["choices"]
    assert (calls(choice), choice["finish_reason"]) == (expected, "tool_calls")
    assert choice["message"]["content"] is None
    [streamed] = collected(chunks(server, "caller", **more))
    assert (calls(streamed), streamed["finish"], streamed["content"]) == (expected, "tool_calls", "")


def test_ids_differ_within_an_answer_and_come_once_in_a_stream(server: Live) -> None:
    [choice] = collected(chunks(server, "caller"))
    ids = [each["id"] for each in choice["calls"].values()]
    assert len({*ids}) == 2
    assert all(each.startswith("call_") and len(each) == 29 for each in ids)


def test_without_a_choice_for_tools_the_answer_is_text_and_the_prompt_lists_none(server: Live) -> None:
    none, listed = chat(server, "caller", tool_choice="none"), chat(server, "caller")
    [choice] = none["choices"]
    assert choice["message"]["content"].startswith('<tool_call>\n{"name": "time"')
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "stop"
    assert none["usage"]["prompt_tokens"] < listed["usage"]["prompt_tokens"] / 10


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_a_thought_comes_before_the_call(server: Live, choice: str) -> None:
    [whole] = chat(server, "thinker", tool_choice=choice)["choices"]
    assert (whole["message"]["reasoning_content"], calls(whole)) == (THOUGHT, [("time", TIME)])
    [streamed] = collected(chunks(server, "thinker", tool_choice=choice))
    assert (streamed["thought"], calls(streamed), streamed["finish"]) == (THOUGHT, [("time", TIME)], "tool_calls")


def test_a_call_with_a_mistake_is_drawn_once_more(server: Live) -> None:
    answer = chat(server, "breaker")
    [whole] = answer["choices"]
    expected = [("time", REPAIRED), ("add", SUM)]
    assert (calls(whole), whole["finish_reason"]) == (expected, "tool_calls")
    found = chunks(server, "breaker")
    [streamed] = collected(found)
    assert (calls(streamed), streamed["finish"]) == (expected, "tool_calls")
    order = [
        call["index"] for chunk in found for each in chunk["choices"] for call in each["delta"].get("tool_calls", ())
    ]
    assert order == sorted(order)
    # Five tokens of the first try, two of the second.
    assert found[-1]["usage"]["completion_tokens"] == answer["usage"]["completion_tokens"] == 5 + 2


def test_a_reply_that_ends_within_a_call_is_drawn_further(server: Live) -> None:
    [whole] = chat(server, "quitter")["choices"]
    assert (whole["message"]["content"], calls(whole), whole["finish_reason"]) == (
        "Now.", [("time", REPAIRED)], "tool_calls",
    )  # fmt: skip
    [streamed] = collected(chunks(server, "quitter"))
    assert (streamed["content"], calls(streamed)) == ("Now.", [("time", REPAIRED)])


def test_every_sample_of_several_is_repaired(server: Live) -> None:
    expected = [[("time", REPAIRED), ("add", SUM)]] * 3
    answer = chat(server, "breaker", n=3)
    assert [calls(each) for each in answer["choices"]] == expected
    assert answer["usage"]["completion_tokens"] == 3 * 7
    streamed = collected(chunks(server, "breaker", n=3))
    assert [calls(each) for each in streamed] == expected
    assert [each["finish"] for each in streamed] == ["tool_calls"] * 3


@pytest.mark.parametrize(("most", "arguments"), [(1, '{"zone":'), (5, '{"zone":'), (6, '{"zone":"UTC"')])
def test_a_call_without_its_end_has_the_reason_length(server: Live, most: int, arguments: str) -> None:
    [whole] = chat(server, "breaker", max_tokens=most, parallel_tool_calls=False)["choices"]
    assert (calls(whole), whole["finish_reason"]) == ([("time", arguments)], "length")
    [streamed] = collected(chunks(server, "breaker", max_tokens=most, parallel_tool_calls=False))
    assert (calls(streamed), streamed["finish"]) == ([("time", arguments)], "length")


def test_calls_and_results_of_earlier_turns_reach_the_model(server: Live) -> None:
    [choice] = chat(server, "caller")["choices"]
    first, second = choice["message"]["tool_calls"]
    results = [{"role": "tool", "tool_call_id": each["id"], "content": "12:00"} for each in (first, second)]
    answer = chat(server, "caller", messages=[*ASKED, choice["message"], *results])
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": SEEN}
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["prompt_tokens"] > chat(server, "caller")["usage"]["prompt_tokens"] + len(TIME + SUM)


def test_a_template_without_tools_gets_them_in_the_system_prompt_and_dsrs_events_say_so(server: Live) -> None:
    [choice] = chat(server, "simple")["choices"]
    assert (calls(choice), choice["finish_reason"]) == ([("time", TIME)], "tool_calls")
    body = {"model": "simple", "messages": ASKED, "tools": TOOLS, "stream": True, "dsr": {"events": True}}
    text = post(server, "/v1/chat/completions", body).text
    [notice] = [line for line in text.splitlines() if '"type":"notice"' in line.replace('": "', '":"')]
    assert "knows no tools: the system prompt lists them, and calls may fail" in notice


# Other APIs


def test_responses_have_calls_as_items_whole_and_streamed(server: Live) -> None:
    body = {"model": "breaker", "input": "Q", "tools": FLAT, "temperature": 0}
    whole = post(server, "/v1/responses", body).json()
    expected = [("time", REPAIRED), ("add", SUM)]
    assert [(each["name"], each["arguments"]) for each in whole["output"]] == expected
    assert {each["type"] for each in whole["output"]} == {"function_call"}

    found = events(post(server, "/v1/responses", {**body, "stream": True}).text)
    assert [(each["name"], each["arguments"]) for each in found[-1]["response"]["output"]] == expected
    grown: dict[int, str] = {}
    for each in found:
        if each["type"] == "response.function_call_arguments.delta":
            grown[each["output_index"]] = grown.get(each["output_index"], "") + each["delta"]
    assert [*grown.values()] == [REPAIRED, SUM]


def test_a_response_goes_on_with_the_results_of_its_calls(server: Live) -> None:
    first = post(server, "/v1/responses", {"model": "caller", "input": "Q", "tools": FLAT, "temperature": 0}).json()
    results = [
        {"type": "function_call_output", "call_id": each["call_id"], "output": "12:00"} for each in first["output"]
    ]
    body = {"model": "caller", "previous_response_id": first["id"], "input": results, "tools": FLAT, "temperature": 0}
    second = post(server, "/v1/responses", body).json()
    assert [each["content"][0]["text"] for each in second["output"]] == [SEEN]


@pytest.mark.parametrize(("model", "thought"), [("breaker", ""), ("thinker", THOUGHT)])
def test_anthropics_messages_have_calls_as_blocks_whole_and_streamed(server: Live, model: str, thought: str) -> None:
    body = {"model": model, "messages": ASKED, "tools": ANTHROPIC, "temperature": 0, "max_tokens": 300}
    whole = post(server, "/v1/messages", body).json()
    expected = [("time", {"zone": "UTC"}), *([("add", {"a": 2, "b": 2})] if model == "breaker" else [])]
    used = [(each["name"], each["input"]) for each in whole["content"] if each["type"] == "tool_use"]
    assert (used, whole["stop_reason"]) == (expected, "tool_use")
    assert [each["thinking"] for each in whole["content"] if each["type"] == "thinking"] == [thought] * bool(thought)

    blocks: list[Json] = []
    for each in events(post(server, "/v1/messages", {**body, "stream": True}).text):
        if each["type"] == "content_block_start":
            assert each["index"] == len(blocks)
            blocks.append({**each["content_block"], "text": ""})
        elif each["type"] == "content_block_delta":
            assert each["index"] == len(blocks) - 1
            delta = each["delta"]
            blocks[-1]["text"] += delta.get("partial_json", "") + delta.get("thinking", "")
        elif each["type"] == "message_delta":
            assert each["delta"]["stop_reason"] == "tool_use"
    assert [(b["name"], json.loads(b["text"])) for b in blocks if b["type"] == "tool_use"] == expected
    assert [b["text"] for b in blocks if b["type"] == "thinking"] == [thought] * bool(thought)


def test_anthropics_choices_and_results(server: Live) -> None:
    body = {"model": "caller", "messages": ASKED, "tools": ANTHROPIC, "temperature": 0, "max_tokens": 300}

    def names(choice: Json) -> list[str]:
        whole = post(server, "/v1/messages", {**body, "tool_choice": choice}).json()
        return [each["name"] for each in whole["content"] if each["type"] == "tool_use"]

    assert names({"type": "any"}) == ["time", "add"]
    assert names({"type": "any", "disable_parallel_tool_use": True}) == ["time"]
    assert names({"type": "tool", "name": "add"}) == ["add"]
    assert names({"type": "none"}) == []
    first = post(server, "/v1/messages", body).json()
    results = [{"type": "tool_result", "tool_use_id": each["id"], "content": "12:00"} for each in first["content"]]
    history = [*ASKED, {"role": "assistant", "content": first["content"]}, {"role": "user", "content": results}]
    second = post(server, "/v1/messages", {**body, "messages": history}).json()
    assert [each["text"] for each in second["content"]] == [SEEN]


def test_a_cut_call_is_left_out_where_its_arguments_are_an_object(server: Live) -> None:
    body = {"model": "breaker", "messages": ASKED, "tools": ANTHROPIC, "temperature": 0, "max_tokens": 1}
    whole = post(server, "/v1/messages", body).json()
    assert (whole["content"], whole["stop_reason"]) == ([{"type": "text", "text": ""}], "max_tokens")
    asked = {"model": "breaker", "messages": ASKED, "tools": TOOLS, "options": {"num_predict": 1, "temperature": 0}}
    answer = post(server, "/api/chat", {**asked, "stream": False}).json()
    assert (answer["message"], answer["done_reason"]) == ({"role": "assistant", "content": ""}, "length")
    lines = [json.loads(line) for line in post(server, "/api/chat", asked).text.splitlines()]
    assert not any("tool_calls" in each["message"] for each in lines)


def test_ollamas_chat_has_calls_with_objects_whole_and_streamed(server: Live) -> None:
    body = {"model": "breaker", "messages": ASKED, "tools": TOOLS, "options": {"temperature": 0}}
    expected = [("time", {"zone": "UTC"}), ("add", {"a": 2, "b": 2})]
    whole = post(server, "/api/chat", {**body, "stream": False}).json()
    functions = [each["function"] for each in whole["message"]["tool_calls"]]
    assert [(each["name"], each["arguments"]) for each in functions] == expected

    lines = [json.loads(line) for line in post(server, "/api/chat", body).text.splitlines()]
    functions = [each["function"] for line in lines for each in line["message"].get("tool_calls", ())]
    assert [(each["name"], each["arguments"]) for each in functions] == expected

    results = [{"role": "tool", "tool_name": name, "content": "12:00"} for name, _ in expected]
    history = [*ASKED, whole["message"], *results]
    second = post(server, "/api/chat", {**body, "messages": history, "stream": False}).json()
    assert second["message"]["content"] == SEEN
