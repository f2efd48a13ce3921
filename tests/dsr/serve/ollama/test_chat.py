"""POST /api/chat and /api/generate: literal bodies in, asks and lines out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.testclient import TestClient

from dsr.serve.ask import Ask
from dsr.serve.ollama.from_api import seconds_of
from dsr.serve.told import Done, Told
from runtime.base.events import TextDrawn, TokenDrawn
from runtime.base.types import Message, TokenLogprob, ToolCall
from tests.dsr.serve.fake_engine import FakeEngines, begun, calling, ended, failing, saying

QUESTION = [{"role": "user", "content": "2+2?"}]
OSLO = ToolCall("call_1", "weather", '{"city": "Oslo"}')
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def send(client: TestClient, path: str, **body: Any) -> Any:
    usual: dict[str, Any] = {"messages": QUESTION} if path == "chat" else {"prompt": "2+2?"}
    return client.post(f"/api/{path}", json={"model": "nano", **usual, **body})


def post(client: TestClient, path: str = "chat", **body: Any) -> Any:
    answer = send(client, path, stream=False, **body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def lines(client: TestClient, path: str = "chat", **body: Any) -> list[Any]:
    answer = send(client, path, **body)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson"), answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_a_whole_answer(client: TestClient) -> None:
    answer = post(client)
    assert answer.pop("created_at").endswith("Z")
    assert answer.pop("total_duration") > 0 and answer.pop("prompt_eval_duration") >= 0
    assert answer == {
        "model": "nano",
        "message": {"role": "assistant", "content": "Four.", "thinking": "Two and two."},
        "done": True,
        "done_reason": "stop",
        "load_duration": 0,
        "prompt_eval_count": 7,
        "eval_count": 4,
        "eval_duration": 500_000_000,
    }


def test_the_lines_of_an_answer(client: TestClient) -> None:
    *told, last = lines(client)
    assert [(each["message"], each["done"]) for each in told] == [
        ({"role": "assistant", "content": "", "thinking": "Two"}, False),
        ({"role": "assistant", "content": "", "thinking": " and"}, False),
        ({"role": "assistant", "content": "", "thinking": " two."}, False),
        ({"role": "assistant", "content": "Four."}, False),
    ]
    assert (last["message"]["content"], last["done"], last["done_reason"], last["eval_count"]) == ("", True, "stop", 4)


def test_generate_whole_and_streamed(client: TestClient, engines: FakeEngines) -> None:
    answer = post(client, "generate", system="Be short.")
    assert (answer["response"], answer["thinking"]) == ("Four.", "Two and two.")
    assert engines.asked.messages == (Message("system", "Be short."), Message("user", "2+2?"))
    assert [each["response"] for each in lines(client, "generate")] == ["", "", "", "Four.", ""]
    post(client, "generate", raw=True)
    assert (engines.asked.prompt, engines.asked.messages) == ("2+2?", ())


def test_every_option_reaches_the_ask(client: TestClient, engines: FakeEngines) -> None:
    options = {
        "temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "typical_p": 0.8, "seed": -1, "num_predict": 9,
        "stop": ["END"], "repeat_last_n": 32, "repeat_penalty": 1.1, "presence_penalty": 0.2, "num_ctx": 512,
        "frequency_penalty": 0.3, "mirostat": 0,
    }  # fmt: skip
    post(client, options=options, think="high")
    sampling = engines.asked.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 7, 0.1)
    assert (sampling.typical_p, sampling.seed, sampling.max_tokens, sampling.stop) == (0.8, None, 9, ("END",))
    assert (sampling.penalty_last_n, sampling.repeat_penalty) == (32, 1.1)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.2, 0.3)
    assert engines.asked.options.effort == "high"
    post(client, options={"num_predict": -1}, think=False)
    assert (engines.asked.sampling.max_tokens, engines.asked.options.thinking) == (None, False)


def test_calls_and_results(client: TestClient, engines: FakeEngines) -> None:
    engines.script = calling(OSLO)
    call = {"id": "call_1", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    assert post(client, tools=TOOLS)["message"]["tool_calls"] == [call]
    assert [each["message"].get("tool_calls") for each in lines(client, tools=TOOLS)] == [[call], None]
    said = [
        *QUESTION,
        {"role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": [call]},
        {"role": "tool", "tool_name": "weather", "content": "7"},
    ]
    post(client, messages=said)
    assert engines.asked.messages[1:] == (
        Message("assistant", "", "Hm.", calls=(OSLO,)),
        Message("tool", "7", name="weather"),
    )


@pytest.mark.parametrize(
    ("format", "text"), [("json", '{"type": "object"}'), ({"type": "integer"}, '{"type": "integer"}')]
)
def test_the_form_of_an_answer(client: TestClient, engines: FakeEngines, format: Any, text: str) -> None:
    post(client, format=format)
    assert engines.asked.grammar is not None and engines.asked.grammar.text == text


def _with_logprobs(ask: Ask) -> Iterable[Told]:
    yield begun()
    yield TokenDrawn(0, "answer", 5, b"4", -0.1, (TokenLogprob(5, b"4", -0.1),))
    yield TextDrawn(0, "answer", "4")
    yield ended("4")
    yield Done()


def test_logprobs_whole_and_streamed(client: TestClient, engines: FakeEngines) -> None:
    engines.script = _with_logprobs
    four = {"id": 5, "token": "4", "bytes": [52], "logprob": -0.1}
    row = {**four, "top_logprobs": [four]}
    assert post(client, logprobs=True, top_logprobs=1)["logprobs"] == [row]
    assert [each.get("logprobs") for each in lines(client, logprobs=True, top_logprobs=1)] == [[row], None]
    assert engines.asked.sampling.top_logprobs == 1


def test_a_vote_is_sent_once_decided(client: TestClient) -> None:
    told = lines(client, model="nano@vote2")
    assert [each["message"]["content"] for each in told] == ["Four.", ""]
    assert told[-1]["dsr"]["verdict"]["winner"] == "Four."


def test_a_cut_answer_and_one_that_goes_on(client: TestClient, engines: FakeEngines) -> None:
    engines.script = saying("Fo", finish_reason="length")
    assert post(client)["done_reason"] == "length"
    post(client, messages=[*QUESTION, {"role": "assistant", "content": "Fo"}])
    assert engines.asked.options.continues is True


def test_without_a_question_a_model_is_opened_or_leaves(client: TestClient) -> None:
    assert send(client, "generate", prompt="").json()["done_reason"] == "load"
    assert [each["name"] for each in client.get("/api/ps").json()["models"]] == ["nano"]
    assert send(client, "chat", messages=[], keep_alive=0).json()["done_reason"] == "unload"
    assert client.get("/api/ps").json() == {"models": []}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m", 300), ("1h30m", 5400), ("1.5h", 5400), ("300", 300), ("-1", -1), ("500ms", 0.5), (0, 0)],
)
def test_times_are_those_of_go(text: Any, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("chat", {"options": {"mirostat": 2}}, "options.mirostat"),
        ("chat", {"options": {"tfs_z": 0.5}}, "options.tfs_z"),
        ("chat", {"options": {"num_ctx": 9000}}, "options.num_ctx"),
        ("chat", {"truncate": True}, "truncate"),
        ("chat", {"shift": True}, "shift"),
        ("chat", {"top_logprobs": 2}, "top_logprobs"),
        ("chat", {"format": "yaml"}, "format"),
        ("chat", {"keep_alive": "soon"}, "keep_alive"),
        ("chat", {"messages": [{"role": "user", "content": "?", "images": ["aGk="]}]}, "messages.0.images"),
        ("chat", {"think": "extreme"}, "think"),
        ("generate", {"suffix": "x"}, "suffix"),
        ("generate", {"template": "x"}, "template"),
        ("generate", {"context": [1]}, "context"),
        ("generate", {"images": ["aGk="]}, "images"),
        ("generate", {"raw": True, "system": "x"}, "system"),
        ("generate", {"raw": True, "think": True}, "think"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_honoured_is_refused(client: TestClient, path: str, body: Any, place: str, stream: bool) -> None:
    answer = send(client, path, stream=stream, **body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(place)


def test_options_that_only_ollama_has_are_told(client: TestClient) -> None:
    answer = send(client, "chat", options={"num_gpu": 1, "num_thread": 4}, stream=False)
    assert answer.headers["X-Dsr-Unknown-Fields"] == "options.num_gpu,options.num_thread"


def test_errors_have_ollamas_form(client: TestClient, engines: FakeEngines) -> None:
    missing = send(client, "chat", model="gpt-9")
    assert (missing.status_code, missing.json()) == (
        404,
        {"error": "there is no model 'gpt-9' here; GET /v1/models lists what is here"},
    )
    for kind, status in (("Busy", 429), ("EngineDied", 503)):
        engines.script = failing(kind, "no")
        for stream in (False, True):
            answer = send(client, "chat", stream=stream)
            assert (answer.status_code, answer.headers["Retry-After"]) == (status, "2")
            assert answer.json() == {"error": "no"}
    engines.script = failing("EngineDied", "it ended", after=[begun(), TextDrawn(0, "answer", "Fo"), 0.02])
    assert lines(client)[-1] == {"error": "it ended"}


def test_the_lists_of_models(client: TestClient) -> None:
    [row] = [each for each in client.get("/api/tags").json()["models"] if each["name"] == "nano"]
    assert row["details"]["format"] == "gguf" and row["size"] > 0
    shown = client.post("/api/show", json={"model": "nano"}).json()
    assert {"completion", "thinking"} <= {*shown["capabilities"]}
    assert "tokenizer.chat_template" not in shown["model_info"]
    assert client.post("/api/show", json={}).status_code == 400
    assert [*client.get("/api/version").json()] == ["version"]
