"""The anthropic package, which checks each answer against its own types here."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from runtime.base.types import ToolCall
from tests.dsr.serve.clients.conftest import SUM, SUM_ANSWER, client_package
from tests.dsr.serve.conftest import Live
from tests.dsr.serve.fake_engine import FakeEngines, calling, failing, saying

anthropic = client_package("anthropic")

QUESTION = [{"role": "user", "content": "2+2?"}]
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"name": "weather", "description": "of a city", "input_schema": WEATHER}]
OSLO = ToolCall("call_1", "weather", '{"city": "Oslo"}')


def client_of(url: str) -> Any:
    return anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, _strict_response_validation=True)


@pytest.fixture
def sdk(url: str) -> Any:
    with client_of(url) as client:
        yield client


def test_messages(sdk: Any) -> None:
    message = sdk.messages.create(model="nano", max_tokens=100, messages=QUESTION, system="Be short.")
    thought, text = message.content
    assert (thought.thinking, text.text) == ("Two and two.", "Four.")
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (4, 3, 4)


def test_a_stream_gives_the_same_message(sdk: Any) -> None:
    with sdk.messages.stream(model="nano", max_tokens=100, messages=QUESTION) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == "Four."
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", 4)


@pytest.mark.parametrize("streamed", [False, True])
def test_tools_in_and_out(sdk: Any, engines: FakeEngines, streamed: bool) -> None:
    engines.script = calling(OSLO, thinking="Look it up.", then="Cold.")
    asked: Any = {"model": "nano", "max_tokens": 100, "tools": TOOLS}
    if streamed:
        with sdk.messages.stream(messages=QUESTION, **asked) as stream:
            message = stream.get_final_message()
    else:
        message = sdk.messages.create(messages=QUESTION, **asked)
    assert message.stop_reason == "tool_use"
    [_, use] = message.content
    assert (use.id, use.name, use.input) == ("call_1", "weather", {"city": "Oslo"})
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "7 degrees"}
    said = [*QUESTION, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    assert sdk.messages.create(messages=said, **asked).content[-1].text == "Cold."
    called, answered = engines.asked.messages[1:]
    assert (called.thinking, called.calls) == ("Look it up.", (OSLO,))
    assert (answered.role, answered.content, answered.call_id) == ("tool", "7 degrees", "call_1")


def test_thinking_has_a_budget(sdk: Any, engines: FakeEngines) -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    sdk.messages.create(model="nano", max_tokens=2000, messages=QUESTION, thinking=thinking)
    assert engines.asked.sampling.think_budget == 1024
    assert engines.asked.options.thinking is True
    sdk.messages.create(model="nano", max_tokens=2000, messages=QUESTION, thinking={"type": "disabled"})
    assert engines.asked.options.thinking is False


def test_the_stop_sequence_is_told(sdk: Any, engines: FakeEngines) -> None:
    engines.script = saying("One", stop_string="two")
    message = sdk.messages.create(model="nano", max_tokens=9, messages=QUESTION, stop_sequences=["two"])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "two")
    assert engines.asked.sampling.stop == ("two",)


def test_tokens_are_counted(sdk: Any) -> None:
    assert sdk.messages.count_tokens(model="nano", messages=QUESTION, tools=TOOLS).input_tokens == 7


class Sum(BaseModel):
    value: int


def test_parse_with_a_pydantic_model(sdk: Any, engines: FakeEngines) -> None:
    engines.script = saying('{"value": 4}')
    message = sdk.messages.parse(model="nano", max_tokens=100, messages=QUESTION, output_format=Sum)
    assert message.parsed_output == Sum(value=4)
    assert engines.asked.grammar is not None and engines.asked.grammar.kind == "json_schema"


def test_errors_are_those_of_the_client(sdk: Any, engines: FakeEngines) -> None:
    with pytest.raises(anthropic.NotFoundError, match="there is no model"):
        sdk.messages.create(model="claude-9", max_tokens=1, messages=QUESTION)
    image = {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}}
    with pytest.raises(anthropic.BadRequestError, match=r"messages\.0\.content\.0: dsr reads text"):
        sdk.messages.create(model="nano", max_tokens=1, messages=[{"role": "user", "content": [image]}])
    engines.script = failing("Busy", "the queue is full")
    with pytest.raises(anthropic.RateLimitError):
        sdk.messages.create(model="nano", max_tokens=1, messages=QUESTION)
    engines.script = failing("EngineDied", "it ended", after=saying("Four.")(engines.asked)[:-2])
    with pytest.raises(anthropic.APIStatusError, match="it ended"):
        [*sdk.messages.create(model="nano", max_tokens=1, messages=QUESTION, stream=True)]


def test_the_real_server(live: Live) -> None:
    with client_of(live.url) as sdk:
        asked: Any = {"model": "nano", "messages": SUM, "max_tokens": 200, "extra_body": {"temperature": 0}}
        message = sdk.messages.create(**asked)
        with sdk.messages.stream(**asked) as stream:
            streamed = stream.get_final_message()
        stopped = sdk.messages.create(**asked, stop_sequences=["boxed"])
        begun = [*SUM, {"role": "assistant", "content": "The answer is"}]
        goes_on = sdk.messages.create(**{**asked, "messages": begun})
        count = sdk.messages.count_tokens(model="nano", messages=SUM).input_tokens
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert streamed.content[1].text == message.content[1].text == SUM_ANSWER
    assert (stopped.stop_sequence, stopped.content[-1].text) == ("boxed", "The answer is \\")
    assert goes_on.content[0].text.startswith(" \\boxed{")
    assert count == message.usage.input_tokens + message.usage.cache_read_input_tokens
