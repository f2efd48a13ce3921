"""The openai package, which checks each answer against its own types here."""

from __future__ import annotations

import base64
import json
from array import array
from typing import Any

import pytest
from pydantic import BaseModel

from runtime.base.types import OneTool, ToolCall
from tests.dsr.serve.clients.conftest import SUM, SUM_ANSWER, client_package
from tests.dsr.serve.conftest import Live
from tests.dsr.serve.fake_engine import FakeEngines, calling, failing, saying

openai = client_package("openai")

QUESTION = [{"role": "user", "content": "2+2?"}]
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": WEATHER}}]
CALLS = (ToolCall("call_1", "weather", '{"city": "Oslo"}'), ToolCall("call_2", "weather", '{"city": "Rome"}'))


def client_of(url: str, *, strict: bool = True) -> Any:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, _strict_response_validation=strict)


@pytest.fixture
def sdk(url: str) -> Any:
    with client_of(url) as client:
        yield client


def test_chat(sdk: Any) -> None:
    answer = sdk.chat.completions.create(model="nano", messages=QUESTION)
    [choice] = answer.choices
    assert (choice.message.content, choice.finish_reason) == ("Four.", "stop")
    assert choice.message.reasoning_content == "Two and two."
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 4)
    assert answer.usage.completion_tokens_details.reasoning_tokens == 3
    assert answer.usage.prompt_tokens_details.cached_tokens == 3


def test_a_streamed_chat(sdk: Any) -> None:
    options = {"include_usage": True}
    chunks = [*sdk.chat.completions.create(model="nano", messages=QUESTION, stream=True, stream_options=options)]
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == "Four."
    assert "".join(getattr(delta, "reasoning_content", "") for delta in deltas) == "Two and two."
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.total_tokens == 11


def test_the_stream_helper_puts_calls_together(sdk: Any, engines: FakeEngines) -> None:
    engines.script = calling(*CALLS)
    with sdk.chat.completions.stream(model="nano", messages=QUESTION, tools=TOOLS) as stream:
        kinds = {event.type for event in stream}
        message = stream.get_final_completion().choices[0].message
    assert "tool_calls.function.arguments.done" in kinds
    assert [(each.id, each.function.arguments) for each in message.tool_calls] == [
        ("call_1", '{"city": "Oslo"}'),
        ("call_2", '{"city": "Rome"}'),
    ]


def test_tools_in_and_out(sdk: Any, engines: FakeEngines) -> None:
    engines.script = calling(*CALLS, then="Cold and warm.")
    choice = {"type": "function", "function": {"name": "weather"}}
    answer = sdk.chat.completions.create(model="nano", messages=QUESTION, tools=TOOLS, tool_choice=choice)
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert engines.asked.tools is not None and engines.asked.tools.choice == OneTool("weather")
    results = [{"role": "tool", "tool_call_id": each.id, "content": "7 degrees"} for each in message.tool_calls]
    answer = sdk.chat.completions.create(model="nano", messages=[*QUESTION, message, *results], tools=TOOLS)
    assert answer.choices[0].message.content == "Cold and warm."
    assert engines.asked.messages[1].calls == CALLS
    assert [(each.role, each.call_id) for each in engines.asked.messages[2:]] == [
        ("tool", "call_1"),
        ("tool", "call_2"),
    ]


class Sum(BaseModel):
    value: int
    steps: list[str]


def test_parse_with_a_pydantic_model(sdk: Any, engines: FakeEngines) -> None:
    engines.script = saying('{"value": 4, "steps": ["2+2"]}')
    answer = sdk.chat.completions.parse(model="nano", messages=QUESTION, response_format=Sum)
    assert answer.choices[0].message.parsed == Sum(value=4, steps=["2+2"])
    assert engines.asked.grammar is not None
    assert json.loads(engines.asked.grammar.text)["required"] == ["value", "steps"]


def test_a_vote_by_the_name_of_the_model(sdk: Any, engines: FakeEngines) -> None:
    answer = sdk.chat.completions.create(model="nano@vote8", messages=QUESTION)
    assert (engines.asked.strategy, engines.asked.settings) == ("vote", ("n=8",))
    assert answer.choices[0].message.content == "Four."
    assert answer.dsr["verdict"]["winner"] == "Four."


def test_a_streamed_vote_has_events_that_the_client_skips(sdk: Any) -> None:
    chunks = [*sdk.chat.completions.create(model="nano@vote2", messages=QUESTION, stream=True)]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "Four."
    assert chunks[-1].dsr["verdict"]["rule"] == "2 of 2 votes"


def test_completions_and_models(sdk: Any) -> None:
    answer = sdk.completions.create(model="nano", prompt=["2+2=", "1+1="], max_tokens=5)
    assert [each.text for each in answer.choices] == ["Four.", "Four."]
    [model] = [each for each in sdk.models.list() if each.id == "nano"]
    assert sdk.models.retrieve("nano") == model


def test_streamed_completions_and_embeddings(url: str, engines: FakeEngines) -> None:
    """The client's own types know neither chunks without a reason to finish, nor the base64 that it asks for."""
    vector = base64.b64encode(array("f", [0.6, -0.8]).tobytes()).decode()
    engines.answers["embed"] = {"vectors": [vector], "tokens": [2]}
    engines.script = saying("Four.")
    with client_of(url, strict=False) as sdk:
        [row] = sdk.embeddings.create(model="nano", input="hello").data
        assert row.embedding == pytest.approx([0.6, -0.8])
        chunks = [*sdk.completions.create(model="nano", prompt="2+2=", stream=True)]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Four."
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, "stop"]


def test_responses(sdk: Any, engines: FakeEngines) -> None:
    first = sdk.responses.create(model="nano", input="2+2?", instructions="Be short.")
    assert (first.output_text, first.status) == ("Four.", "completed")
    assert [item.type for item in first.output] == ["reasoning", "message"]
    second = sdk.responses.create(model="nano", input="Sure?", previous_response_id=first.id)
    assert [(each.role, each.content) for each in engines.asked.messages] == [
        ("user", "2+2?"),
        ("assistant", "Four."),
        ("user", "Sure?"),
    ]
    assert sdk.responses.retrieve(second.id).output_text == "Four."
    sdk.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(second.id)


def test_streamed_responses(sdk: Any) -> None:
    with sdk.responses.stream(model="nano", input="2+2?") as stream:
        events = [*stream]
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == [*range(len(events))]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "Four."
    assert final.output_text == "Four."
    assert final.usage.output_tokens_details.reasoning_tokens == 3


def test_responses_with_tools_and_thoughts_that_go_back(sdk: Any, engines: FakeEngines) -> None:
    engines.script = calling(CALLS[0], thinking="Look it up.", then="Cold.")
    tools = [{"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}]
    asked: list[Any] = [{"role": "user", "content": "Oslo?"}]
    seal = ["reasoning.encrypted_content"]
    first = sdk.responses.create(model="nano", input=asked, tools=tools, store=False, include=seal)
    assert [item.type for item in first.output] == ["reasoning", "function_call"]
    first.output[0].content = None  # as clients do that keep what is sealed alone
    asked += [*first.output, {"type": "function_call_output", "call_id": "call_1", "output": "7 degrees"}]
    second = sdk.responses.create(model="nano", input=asked, tools=tools, store=False)
    assert second.output_text == "Cold."
    assert [(each.role, each.thinking, each.calls) for each in engines.asked.messages] == [
        ("user", "", ()),
        ("assistant", "Look it up.", CALLS[:1]),
        ("tool", "", ()),
    ]


def test_responses_parse_with_a_pydantic_model(sdk: Any, engines: FakeEngines) -> None:
    engines.script = saying('{"value": 4, "steps": []}', "Hm.")
    assert sdk.responses.parse(model="nano", input="2+2?", text_format=Sum).output_parsed == Sum(value=4, steps=[])
    assert engines.asked.grammar is not None


def test_errors_are_those_of_the_client(sdk: Any, engines: FakeEngines) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-9' here"):
        sdk.chat.completions.create(model="gpt-9", messages=QUESTION)
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.chat.completions.create(model="nano", messages=QUESTION, modalities=["text", "audio"])
    assert refused.value.param == "modalities"
    engines.script = failing("Busy", "the queue is full")
    with pytest.raises(openai.RateLimitError) as busy:
        sdk.chat.completions.create(model="nano", messages=QUESTION, stream=True)
    assert busy.value.response.headers["retry-after"] == "2"
    engines.script = failing("EngineDied", "it ended", after=saying("Four.")(engines.asked)[:-2])
    with pytest.raises(openai.APIError, match="it ended"):
        [*sdk.chat.completions.create(model="nano", messages=QUESTION, stream=True)]


def test_the_real_server(live: Live) -> None:
    asked: Any = {"model": "nano", "messages": SUM, "temperature": 0}
    with client_of(live.url) as sdk:
        chat = sdk.chat.completions.create(**asked, logprobs=True, top_logprobs=2).choices[0]
        chunks = [chunk.choices[0].delta for chunk in sdk.chat.completions.create(**asked, stream=True)]
        response = sdk.responses.create(model="nano", input=SUM, temperature=0)
        vote = sdk.chat.completions.create(model="nano@vote4", messages=SUM)
    text = "".join(delta.content or "" for delta in chunks)
    assert text == chat.message.content == response.output_text == SUM_ANSWER
    assert "".join(each.token for each in chat.logprobs.content).strip().startswith(SUM_ANSWER)
    assert vote.dsr["verdict"]["winner"] == "42"
