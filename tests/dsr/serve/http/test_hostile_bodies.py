"""Bodies that are cheap to send and dear to read, and values that are no numbers, texts or tokens."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from dsr.serve.http.body import Body, Many
from dsr.serve.pool.pool import Pool
from tests.dsr.serve.fake_engine import FakeEngines

CHAT = "/v1/chat/completions"
QUESTION = {"messages": [{"role": "user", "content": "2+2?"}]}


def said(client: TestClient, path: str, body: bytes | dict[str, Any]) -> str:
    """The message of a request that must be refused."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post(path, content=sent)
    assert answer.status_code == 400, answer.text
    return answer.text


def test_a_request_has_so_many_values_at_most(client: TestClient) -> None:
    body = b'{"prompt":[' + b"1," * 300_000 + b"1]}"
    assert "has 300001 values, and may have 300000" in said(client, "/v1/completions", body)
    text = json.dumps({**QUESTION, "unknown": "," * 400_000}).encode()  # commas in texts do not count
    assert client.post(CHAT, content=text).status_code == 200


def test_the_check_of_a_list_ends_at_its_first_fault() -> None:
    class Numbers(Body):
        numbers: Many[int] | Many[str]

    with pytest.raises(ValidationError) as caught:
        Numbers.model_validate({"numbers": [1.5] * 1000})
    assert caught.value.error_count() == 2  # one for each kind of list


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_a_number_that_no_float_holds_is_refused(client: TestClient, number: str) -> None:
    body = json.dumps({**QUESTION, "metadata": "N"}).replace('"N"', number).encode()
    assert f"{number} is too large a number" in said(client, CHAT, body)


def test_only_utf8_is_read_and_no_half_of_a_surrogate_pair_in_it(client: TestClient) -> None:
    body = json.dumps(QUESTION)
    assert "not valid JSON" in said(client, CHAT, body.encode("utf-16"))
    assert "not valid JSON" in said(client, CHAT, body.replace("2+2?", "\ud800").encode("utf-8", "surrogatepass"))
    assert client.post(CHAT, content=body.encode("utf-8-sig")).status_code == 200


@pytest.mark.parametrize("key", ["--5", "9" * 5000, "²", "-"])
def test_the_key_of_a_bias_that_is_no_number_is_a_text(client: TestClient, engines: FakeEngines, key: str) -> None:
    assert client.post(CHAT, json={**QUESTION, "logit_bias": {key: 1, "17": 2}}).status_code == 200
    assert engines.asked.sampling.logit_bias == ((key, 1.0), (17, 2.0))


def test_a_thousand_biases_are_the_most(client: TestClient) -> None:
    assert "at most 1000 items" in said(client, CHAT, {**QUESTION, "logit_bias": {str(n): 1 for n in range(1001)}})


@pytest.mark.parametrize("content", [[1], {"a": 1}, [{"text": "no type"}], True])
def test_the_result_of_a_tool_is_text_or_blocks(client: TestClient, content: Any) -> None:
    result = {"type": "tool_result", "tool_use_id": "x", "content": content}
    body = {"model": "nano", "max_tokens": 9, "messages": [{"role": "user", "content": [result]}]}
    assert "invalid_request_error" in said(client, "/v1/messages", body)


@pytest.mark.parametrize("keep_alive", [1e300, 10**30, "999999999h"])
def test_a_model_that_is_kept_for_longer_than_dates_last_is_kept_for_ever(client: TestClient, keep_alive: Any) -> None:
    assert client.post("/api/generate", json={"model": "nano", "keep_alive": keep_alive}).status_code == 200
    assert client.get("/api/ps").status_code == 200


def test_the_other_prompts_of_a_request_are_withdrawn_when_one_fails(
    client: TestClient, engines: FakeEngines, server: Any
) -> None:
    from dsr.serve.told import Failed
    from tests.dsr.serve.fake_engine import begun

    engines.script = lambda ask: [Failed("Busy", "full")] if ask.prompt == "b" else [begun(), 60.0]
    answer = client.post("/v1/completions", json={"model": "nano", "prompt": ["a", "b", "c"]})
    assert answer.status_code == 429
    pool: Pool = server.pool
    until = time.monotonic() + 10
    while pool.seats[0].engine.answering and time.monotonic() < until:
        time.sleep(0.01)
    assert (pool.seats[0].engine.answering, engines.made[0].withdrawn) == (0, 2)


@pytest.mark.parametrize("number", ["0", "-1", "1" * 30, "1" * 5000, "1.5", "x", "%00", "١"])
def test_a_conversation_that_cannot_be_is_not_found(client: TestClient, number: str) -> None:
    assert client.get(f"/api/dsr/conversations/{number}").status_code == 404
