"""/tokenize, /detokenize, /apply-template, /props and /slots."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from runtime.engine.standing import Standing
from tests.dsr.serve.conftest import Live
from tests.dsr.serve.fake_engine import PROPS, FakeEngines


def test_a_text_becomes_tokens_and_tokens_a_text(live: Live) -> None:
    with live.client() as client:
        tokens = client.post("/tokenize", json={"content": "What is 2+2?"}).json()["tokens"]
        assert len(tokens) > 3
        assert client.post("/detokenize", json={"tokens": tokens}).json() == {"content": "What is 2+2?"}
        refused = client.post("/detokenize", json={"tokens": [10**6]})
        assert refused.status_code == 400
        assert "there is no token 1000000 in a vocabulary of 640" in refused.json()["error"]["message"]


def test_pieces_are_texts_or_the_bytes_of_a_part_of_a_character(live: Live) -> None:
    with live.client() as client:
        found = client.post("/tokenize", json={"content": "é!", "with_pieces": True}).json()["tokens"]
    assert [each["piece"] for each in found] == [[195], [169], "!"]


def test_special_tokens_can_be_text(live: Live) -> None:
    with live.client() as client:
        special = client.post("/tokenize", json={"content": "<think>"}).json()["tokens"]
        plain = client.post("/tokenize", json={"content": "<think>", "parse_special": False}).json()["tokens"]
    assert len(special) == 1 < len(plain)


def test_a_completion_of_a_real_model(live: Live) -> None:
    with live.client() as client:
        body = {"prompt": "2+2", "n_predict": 4, "temperature": 0, "n_probs": 3, "ignore_eos": True}
        answer = client.post("/completion", json=body).json()
    assert answer["tokens_predicted"] == 4
    assert len(answer["completion_probabilities"]) == 4
    assert [len(each["top_logprobs"]) for each in answer["completion_probabilities"]] == [3, 3, 3, 3]
    assert answer["timings"]["prompt_ms"] > 0
    assert answer["timings"]["predicted_ms"] > 0


@pytest.mark.parametrize("path", ["/v1/chat/completions/input_tokens", "/chat/completions/input_tokens"])
def test_the_tokens_of_a_chat_are_counted(client: TestClient, path: str) -> None:
    answer = client.post(path, json={"messages": [{"role": "user", "content": "hi"}]}).json()
    assert answer == {"object": "response.input_tokens", "input_tokens": 7}


def test_the_template_is_applied(client: TestClient) -> None:
    body = {"messages": [{"role": "system", "content": "Be brief. "}, {"role": "user", "content": "Hi"}]}
    assert client.post("/apply-template", json=body).json() == {"prompt": "Be brief. Hi"}


def test_props_tell_the_model_and_its_settings(client: TestClient, engines: FakeEngines) -> None:
    engines.props = {**PROPS, "sampling": {"temperature": 0.6, "top_p": 0.95, "top_k": 20}}
    found = client.get("/props").json()
    assert (found["model_path"], found["total_slots"], found["chat_template"]) == ("nano.gguf", 8, "{{ messages }}")
    settings = found["default_generation_settings"]
    assert settings["n_ctx"] == 1024
    assert (settings["params"]["temperature"], settings["params"]["top_k"], settings["params"]["min_p"]) == (0.6, 20, 0)


def test_slots_never_load_a_model(client: TestClient, engines: FakeEngines) -> None:
    assert client.get("/slots").json() == []
    assert not engines.made
    assert client.get("/slots?fail_on_no_slot=1").status_code == 503


def test_as_many_slots_are_busy_as_answers_are_read_and_drawn(client: TestClient, engines: FakeEngines) -> None:
    client.post("/completion", json={"prompt": "hi"})
    engines.made[0].standing = Standing(drawing=2, reading=1)
    busy = [each["is_processing"] for each in client.get("/slots").json()]
    assert busy == [True, True, True, False, False, False, False, False]
    engines.made[0].standing = Standing(drawing=8)
    assert client.get("/slots?fail_on_no_slot=1").status_code == 503


def test_infill_is_refused_plainly(client: TestClient) -> None:
    refused = client.post("/infill", json={})
    assert refused.status_code == 501
    assert refused.json()["error"]["type"] == "not_supported_error"


@pytest.mark.parametrize("path", ["/models", "/chat/completions", "/responses"])
def test_openais_routes_answer_without_v1(client: TestClient, path: str) -> None:
    asked = {"messages": [{"role": "user", "content": "hi"}], "input": "hi"}
    answer = client.get(path) if path == "/models" else client.post(path, json=asked)
    assert answer.status_code == 200
