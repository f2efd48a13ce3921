"""The ollama package."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from runtime.base.types import ToolCall
from tests.dsr.serve.clients.conftest import SUM, SUM_ANSWER, client_package
from tests.dsr.serve.conftest import Live
from tests.dsr.serve.fake_engine import FakeEngines, calling, failing, saying

ollama = client_package("ollama")

QUESTION = [{"role": "user", "content": "2+2?"}]
OSLO = ToolCall("call_1", "weather", '{"city": "Oslo"}')


def weather(city: str) -> str:
    """The weather of a city."""
    return f"7 degrees in {city}"


@pytest.fixture
def sdk(url: str) -> Any:
    return ollama.Client(host=url)


def test_chat(sdk: Any) -> None:
    answer = sdk.chat("nano", QUESTION, think=True, options={"temperature": 0.5, "num_predict": 50})
    assert (answer.message.content, answer.message.thinking) == ("Four.", "Two and two.")
    assert (answer.done, answer.done_reason, answer.prompt_eval_count, answer.eval_count) == (True, "stop", 7, 4)
    assert answer.eval_duration == 500_000_000


def test_a_streamed_chat(sdk: Any) -> None:
    parts = [*sdk.chat("nano", QUESTION, stream=True)]
    assert "".join(part.message.content or "" for part in parts) == "Four."
    assert "".join(part.message.thinking or "" for part in parts) == "Two and two."
    assert [part.done for part in parts] == [*[False] * (len(parts) - 1), True]


def test_generate(sdk: Any, engines: FakeEngines) -> None:
    answer = sdk.generate("nano", "2+2?", system="Be short.", think=False)
    assert answer.response == "Four."
    assert [(each.role, each.content) for each in engines.asked.messages] == [
        ("system", "Be short."),
        ("user", "2+2?"),
    ]
    assert engines.asked.options.thinking is False
    assert "".join(part.response for part in sdk.generate("nano", "2+2=", raw=True, stream=True)) == "Four."
    assert engines.asked.prompt == "2+2="


def test_a_function_is_a_tool(sdk: Any, engines: FakeEngines) -> None:
    engines.script = calling(OSLO, then="Cold.")
    answer = sdk.chat("nano", QUESTION, tools=[weather])
    [call] = answer.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", {"city": "Oslo"})
    assert engines.asked.tools is not None
    assert [*engines.asked.tools.tools[0].parameters["properties"]] == ["city"]
    result = {"role": "tool", "tool_name": "weather", "content": weather(**call.function.arguments)}
    assert sdk.chat("nano", [*QUESTION, answer.message, result], tools=[weather]).message.content == "Cold."
    assert [each.name for each in engines.asked.messages[1].calls] == ["weather"]


def test_streamed_calls(sdk: Any, engines: FakeEngines) -> None:
    engines.script = calling(OSLO, thinking="Look it up.")
    parts = sdk.chat("nano", QUESTION, tools=[weather], stream=True)
    calls = [call for part in parts for call in part.message.tool_calls or ()]
    assert [call.function.arguments for call in calls] == [{"city": "Oslo"}]


class Sum(BaseModel):
    value: int


def test_a_format_holds_the_answer(sdk: Any, engines: FakeEngines) -> None:
    engines.script = saying('{"value": 4}')
    answer = sdk.chat("nano", QUESTION, format=Sum.model_json_schema())
    assert Sum.model_validate_json(answer.message.content) == Sum(value=4)
    assert engines.asked.grammar is not None and engines.asked.grammar.kind == "json_schema"


def test_models(sdk: Any) -> None:
    assert "nano" in [model.model for model in sdk.list().models]
    assert sdk.ps().models == []
    sdk.generate("nano", keep_alive=-1)
    [row] = sdk.ps().models
    assert (row.model, row.context_length) == ("nano", 1024)
    sdk.generate("nano", keep_alive=0)
    assert sdk.ps().models == []
    shown = sdk.show("nano")
    assert {"completion", "thinking"} <= {*shown.capabilities}
    assert shown.details.format == "gguf"
    assert shown.modelinfo["general.architecture"]


def test_errors_are_those_of_the_client(sdk: Any, engines: FakeEngines) -> None:
    with pytest.raises(ollama.ResponseError, match="there is no model") as missing:
        sdk.chat("gpt-9", QUESTION)
    assert missing.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="num_ctx: the model is open with 1024 tokens of context, not 9000"):
        sdk.chat("nano", QUESTION, options={"num_ctx": 9000})
    engines.script = failing(
        "EngineDied", "it ended", after=saying("Four.")(engines.asked)[:-2] if engines.asks else ()
    )
    with pytest.raises(ollama.ResponseError, match="it ended"):
        [*sdk.chat("nano", QUESTION, stream=True)]


def test_the_real_server(live: Live) -> None:
    sdk = ollama.Client(host=live.url)
    options = {"temperature": 0}
    answer = sdk.chat("nano", SUM, options=options)
    assert answer.message.content == SUM_ANSWER
    assert answer.message.thinking.endswith("T:1+3=4=>42")
    assert sdk.generate("nano", SUM[0]["content"], options=options).response == SUM_ANSWER
    assert sdk.chat("nano", SUM, think=False, options=options).message.thinking is None
    held = sdk.chat("nano", SUM, format=Sum.model_json_schema(), options={**options, "num_predict": 60})
    assert held.message.content.startswith("{")
