"""Libraries that speak OpenAI's API to any server: each sends and expects a little more than the next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from runtime.base.types import ToolCall
from tests.dsr.serve.clients.conftest import SUM, SUM_ANSWER, client_package
from tests.dsr.serve.conftest import Live
from tests.dsr.serve.fake_engine import FakeEngines, calling, saying

QUESTION = [{"role": "user", "content": "2+2?"}]
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
OSLO = ToolCall("call_1", "weather", '{"city": "Oslo"}')
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": WEATHER}}]


class Sum(BaseModel):
    value: int


@pytest.mark.parametrize("api", ["openai", "ollama_chat", "anthropic"])
def test_litellm(url: str, engines: FakeEngines, api: str) -> None:
    litellm = client_package("litellm")
    base = f"{url}/v1" if api == "openai" else url
    asked: Any = {"model": f"{api}/nano", "api_base": base, "api_key": "none", "messages": QUESTION}
    answer = litellm.completion(**asked)
    assert answer.choices[0].message.content == "Four."
    assert answer.choices[0].message.reasoning_content == "Two and two."
    assert answer.usage.completion_tokens == 4
    streamed = litellm.completion(**asked, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == "Four."
    engines.script = calling(OSLO)
    answer = litellm.completion(**asked, tools=TOOLS)
    assert answer.choices[0].finish_reason == "tool_calls"
    [call] = answer.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})
    engines.script = saying('{"value": 4}')
    answer = litellm.completion(**asked, response_format=Sum)
    assert Sum.model_validate_json(answer.choices[0].message.content) == Sum(value=4)


def test_llm(live: Live, tmp_path: Path) -> None:
    """The command `llm`, with the file that its manual describes for other servers of OpenAI's API."""
    client_package("llm")
    model = {"model_id": "here", "model_name": "nano", "api_base": f"{live.url}/v1"}
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([{**model, "supports_schema": True}]))

    def llm(*arguments: str) -> str:
        environment = {**os.environ, "LLM_USER_PATH": str(tmp_path)}
        command = [sys.executable, "-m", "llm", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    question = SUM[0]["content"]
    assert llm("-m", "here", "-o", "temperature", "0", question) == SUM_ANSWER
    assert llm("-m", "here", "-o", "temperature", "0", "--no-stream", question) == SUM_ANSWER
    assert (
        llm("-m", "here", "-o", "temperature", "0", "-o", "max_tokens", "90", "--schema", "value int", question)[0]
        == "{"
    )
    assert llm("-c", "-o", "temperature", "0", "What is 20 + 7?").startswith("The answer is")


def test_langchain(url: str, engines: FakeEngines) -> None:
    langchain = client_package("langchain_openai")
    model = langchain.ChatOpenAI(model="nano", base_url=f"{url}/v1", api_key="none", max_retries=0)
    answer = model.invoke("2+2?")
    assert answer.content == "Four."
    assert answer.usage_metadata["output_token_details"]["reasoning"] == 3
    assert "".join(chunk.content for chunk in model.stream("2+2?")) == "Four."
    engines.script = calling(OSLO)
    answer = model.bind_tools(TOOLS).invoke("Oslo?")
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("weather", {"city": "Oslo"})]
    engines.script = saying('{"value": 4}')
    assert model.with_structured_output(Sum).invoke("2+2?") == Sum(value=4)
    engines.script = saying("Four.", "Two and two.")
    responses = langchain.ChatOpenAI(model="nano", base_url=f"{url}/v1", api_key="none", use_responses_api=True)
    assert responses.invoke("2+2?").text == "Four."
    assert "".join(chunk.text for chunk in responses.stream("2+2?")) == "Four."


@pytest.mark.parametrize("mode", ["TOOLS", "JSON", "JSON_SCHEMA"])
def test_instructor(url: str, engines: FakeEngines, mode: str) -> None:
    instructor, openai = client_package("instructor"), client_package("openai")
    call = ToolCall("call_1", "Sum", '{"value": 4}')
    engines.script = calling(call) if mode == "TOOLS" else saying('{"value": 4}', "Hm.")
    client = instructor.from_openai(
        openai.OpenAI(base_url=f"{url}/v1", api_key="none"), mode=getattr(instructor.Mode, mode)
    )
    assert client.chat.completions.create(model="nano", messages=QUESTION, response_model=Sum).value == 4


@pytest.mark.parametrize("kind", ["OpenAIChatModel", "OpenAIResponsesModel"])
def test_pydantic_ai(url: str, engines: FakeEngines, kind: str) -> None:
    pydantic_ai = client_package("pydantic_ai")
    models, providers = client_package("pydantic_ai.models.openai"), client_package("pydantic_ai.providers.openai")
    provider = providers.OpenAIProvider(base_url=f"{url}/v1", api_key="none")
    model = getattr(models, kind)("nano", provider=provider)
    assert pydantic_ai.Agent(model).run_sync("2+2?").output == "Four."

    asked: list[str] = []

    def weather(city: str) -> str:
        asked.append(city)
        return "7 degrees"

    engines.script = calling(OSLO, thinking="Look it up.", then="Cold.")
    assert pydantic_ai.Agent(model, tools=[weather]).run_sync("Oslo?").output == "Cold."
    assert asked == ["Oslo"]
    engines.script = saying('{"value": 4}', "Hm.")
    agent = pydantic_ai.Agent(model, output_type=pydantic_ai.NativeOutput(Sum))
    assert agent.run_sync("2+2?").output == Sum(value=4)
    engines.script = calling(ToolCall("call_1", "final_result", '{"value": 4}'))
    assert pydantic_ai.Agent(model, output_type=Sum).run_sync("2+2?").output == Sum(value=4)
