"""POST /v1/completions: text that goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.testclient import TestClient

from dsr.serve.ask import Ask
from dsr.serve.told import Done, Told
from runtime.base.events import TextDrawn, TokenDrawn
from tests.dsr.serve.fake_engine import FakeEngines, begun, ended, saying

ROUTE = "/v1/completions"


@pytest.fixture(autouse=True)
def _plain(engines: FakeEngines) -> None:
    engines.script = saying("Four or so.")


def post(client: TestClient, **body: Any) -> Any:
    answer = client.post(ROUTE, json={"model": "nano", "prompt": "2+2=", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def choices(client: TestClient, **body: Any) -> list[Any]:
    answer = client.post(ROUTE, json={"model": "nano", "prompt": "2+2=", "stream": True, **body})
    *events, done = [text.removeprefix("data: ") for text in answer.text.split("\n\n") if text]
    assert done == "[DONE]"
    return [json.loads(each)["choices"][0] for each in events]


def test_a_whole_completion(client: TestClient, engines: FakeEngines) -> None:
    answer = post(client)
    assert answer["object"] == "text_completion"
    assert answer["choices"] == [{"index": 0, "text": "Four or so.", "logprobs": None, "finish_reason": "stop"}]
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (7, 3)
    assert (engines.asked.prompt, engines.asked.sampling.max_tokens) == ("2+2=", 16)


def test_a_streamed_completion_repeats_its_prompt_once(client: TestClient) -> None:
    assert [(each["text"], each["finish_reason"]) for each in choices(client, echo=True)] == [
        ("2+2=Four", None),
        (" or", None),
        (" so.", None),
        ("", "stop"),
    ]


def test_several_prompts_are_numbered(client: TestClient, engines: FakeEngines) -> None:
    answer = post(client, prompt=["a", "b"], n=2, echo=True)
    assert [(each["index"], each["text"][0]) for each in answer["choices"]] == [(0, "a"), (1, "a"), (2, "b"), (3, "b")]
    assert answer["usage"]["prompt_tokens"] == 14
    post(client, prompt=[[5, 6], [7]])
    assert [each.prompt for each in engines.asks[-2:]] == [(5, 6), (7,)]
    post(client, prompt=[5, 6])
    assert engines.asked.prompt == (5, 6)


def _with_logprobs(ask: Ask) -> Iterable[Told]:
    yield begun()
    for token, text in ((5, "Four"), (6, " so")):
        yield TokenDrawn(0, "answer", token, text.encode(), -0.5, ())
        yield TextDrawn(0, "answer", text)
    yield ended("Four so")
    yield Done()


def test_logprobs_know_where_their_token_begins(client: TestClient, engines: FakeEngines) -> None:
    engines.script = _with_logprobs
    whole = {"tokens": ["Four", " so"], "token_logprobs": [-0.5, -0.5], "top_logprobs": [{}, {}], "text_offset": [0, 4]}
    assert post(client, logprobs=1)["choices"][0]["logprobs"] == whole
    assert [each["logprobs"]["text_offset"] for each in choices(client, logprobs=1)] == [[0], [4], []]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"echo": True, "prompt": [1, 2]}, "echo"),
        ({"model": "nano@vote8"}, "model"),
        ({"dsr": {"vote": 8}}, "dsr"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"prompt": []}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"logprobs": 50}, "logprobs"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_its_place(client: TestClient, body: Any, place: str) -> None:
    answer = client.post(ROUTE, json={"model": "nano", "prompt": "2+2=", **body})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, place)
