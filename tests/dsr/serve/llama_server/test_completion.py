"""POST /completion in llama-server's form: what is asked of the engine, and what the reply says."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.testclient import TestClient

from dsr.serve.ask import Ask
from dsr.serve.told import Done, Told
from runtime.base.events import Progress, TextDrawn, TokenDrawn
from runtime.base.types import TokenLogprob
from tests.dsr.serve.fake_engine import FakeEngines, begun, drawn, ended, saying

PATH = "/completion"


def data_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def token(number: int, piece: bytes) -> TokenDrawn:
    return TokenDrawn(
        0, "answer", number, piece, -0.5, (TokenLogprob(number, piece, -0.5), TokenLogprob(9, b"x", -2.0))
    )


def two_tokens(ask: Ask) -> Iterable[Told]:
    return [
        begun(),
        Progress("reading the prompt", "", 3, 6, "tokens"),
        Progress("reading the prompt", "", 6, 6, "tokens"),
        token(5, b"Four"),
        TextDrawn(0, "answer", "Four"),
        token(6, b"\n"),
        TextDrawn(0, "answer", "\n"),
        ended("Four\n", tokens=2, cached=3, finish_reason="length", first_token_seconds=0.25, latency=0.75),
        Done(),
    ]


def test_a_completion_has_llama_servers_fields(client: TestClient, engines: FakeEngines) -> None:
    engines.script = two_tokens
    answer = client.post(PATH, json={"prompt": "2+2 is ", "n_predict": 2, "return_tokens": True}).json()
    settings, timings = answer.pop("generation_settings"), answer.pop("timings")
    assert answer == {
        "index": 0, "content": "Four\n", "tokens": [5, 6], "id_slot": -1, "stop": True, "model": "nano",
        "tokens_predicted": 2, "tokens_evaluated": 7, "prompt": "2+2 is ", "has_new_line": True, "truncated": False,
        "stop_type": "limit", "stopping_word": "", "tokens_cached": 3,
    }  # fmt: skip
    assert (settings["n_predict"], settings["temperature"], settings["seed"]) == (2, 0.6, 1)
    assert settings["adaptive_target"] == -1.0
    assert timings == {
        "cache_n": 3, "prompt_n": 4, "prompt_ms": 250.0, "prompt_per_token_ms": 62.5, "prompt_per_second": 16.0,
        "predicted_n": 2, "predicted_ms": 500.0, "predicted_per_token_ms": 500.0, "predicted_per_second": 2.0,
    }  # fmt: skip


def test_its_other_path_is_completions_without_v1(client: TestClient) -> None:
    assert client.post("/completions", json={"prompt": "hi"}).json()["content"] == "Four."


def test_a_stream_has_tokens_with_their_text_and_ends_without_done(client: TestClient, engines: FakeEngines) -> None:
    engines.script = two_tokens
    body = {"prompt": "2+2 is ", "n_predict": 2, "stream": True, "n_probs": 2, "return_progress": True}
    chunks = data_of(client.post(PATH, json={**body, "timings_per_token": True}).text)
    assert [each["stop"] for each in chunks] == [False, False, False, False, True]
    assert [each["content"] for each in chunks] == ["", "", "Four", "\n", ""]
    assert [each["tokens"] for each in chunks] == [[], [], [5], [6], []]
    progress = [{**each["prompt_progress"], "time_ms": 0} for each in chunks[:2]]
    assert progress == [
        {"total": 6, "cache": 3, "processed": 3, "time_ms": 0},
        {"total": 6, "cache": 3, "processed": 6, "time_ms": 0},
    ]
    assert [each["timings"]["predicted_n"] for each in chunks] == [0, 0, 1, 2, 2]
    [probability] = chunks[2]["completion_probabilities"]
    assert probability["top_logprobs"][1] == {"id": 9, "token": "x", "bytes": [120], "logprob": -2.0}
    assert chunks[-1]["stop_type"] == "limit"
    assert chunks[-1]["generation_settings"]["stream"] is True


def test_a_stop_string_is_told(client: TestClient, engines: FakeEngines) -> None:
    engines.script = saying("Four.", stop_string="\nQ")
    answer = client.post(PATH, json={"prompt": "hi", "stop": ["\nQ", ""]}).json()
    assert (answer["stop_type"], answer["stopping_word"]) == ("word", "\nQ")
    assert engines.asked.sampling.stop == ("\nQ",)


def test_an_end_of_the_model_is_eos_and_an_end_of_the_context_truncates(
    client: TestClient, engines: FakeEngines
) -> None:
    assert client.post(PATH, json={"prompt": "hi"}).json()["stop_type"] == "eos"
    engines.script = saying("Four.", finish_reason="length")
    assert client.post(PATH, json={"prompt": "hi"}).json()["truncated"] is True


def test_the_settings_reach_the_sampler_under_their_own_names(client: TestClient, engines: FakeEngines) -> None:
    body = {"prompt": "hi", "repeat_last_n": 32, "top_n_sigma": -1, "top_k": -1, "temperature": -1, "seed": -1}
    assert client.post(PATH, json={**body, "n_predict": -1, "min_p": 0.1}).status_code == 200
    sampling = engines.asked.sampling
    assert (sampling.penalty_last_n, sampling.top_n_sigma, sampling.top_k, sampling.temperature) == (32, 0, 0, 0)
    assert (sampling.seed, sampling.max_tokens, sampling.min_p, sampling.top_logprobs) == (None, None, 0.1, None)


def test_samplers_that_are_left_out_change_nothing(client: TestClient, engines: FakeEngines) -> None:
    client.post(PATH, json={"prompt": "hi", "samplers": ["top_k", "temperature"], "top_p": 0.5, "temperature": 0.7})
    sampling = engines.asked.sampling
    assert (sampling.top_p, sampling.min_p, sampling.repeat_penalty, sampling.temperature) == (1.0, 0.0, 1.0, 0.7)


@pytest.mark.parametrize(
    ("bias", "read"),
    [
        ([[5, -1.5], ["Hello", False]], ((5, -1.5), ("Hello", -math.inf))),
        ({"5": 2, "Hello": 1.0}, ((5, 2.0), ("Hello", 1.0))),
    ],
)
def test_biases_come_as_pairs_or_as_an_object(
    client: TestClient, engines: FakeEngines, bias: Any, read: tuple[Any, ...]
) -> None:
    assert client.post(PATH, json={"prompt": "hi", "logit_bias": bias}).status_code == 200
    assert engines.asked.sampling.logit_bias == read


def test_ignoring_the_end_forbids_the_tokens_that_end_a_reply(client: TestClient, engines: FakeEngines) -> None:
    engines.answers["ends"] = [1, 2]
    for _ in range(2):
        client.post(PATH, json={"prompt": "hi", "ignore_eos": True})
    assert engines.asked.sampling.logit_bias == ((1, -math.inf), (2, -math.inf))
    assert [kind for kind, _ in engines.queried] == ["ends"]  # it is asked once for each open model


def test_no_tokens_are_told_where_none_are_wanted(client: TestClient, engines: FakeEngines) -> None:
    engines.script = lambda ask: [begun(), *drawn("Four", tokens=1), Done()]
    answer = client.post(PATH, json={"prompt": "hi", "n_predict": 0}).json()
    assert (answer["content"], answer["tokens_predicted"], answer["stop_type"]) == ("", 0, "limit")
    assert engines.asked.sampling.max_tokens == 1  # the prompt is read, and stays cached


def test_prompts_mix_tokens_and_texts(client: TestClient, engines: FakeEngines) -> None:
    answer = client.post(PATH, json={"prompt": [72, "i!", 33]}).json()
    assert engines.asked.prompt == (72, 105, 33, 33)
    assert answer["prompt"] == "Hi!!"
    several = client.post(PATH, json={"prompt": ["a", [72, 105], {"prompt_string": "c"}]}).json()
    assert [(each["index"], each["prompt"]) for each in several] == [(0, "a"), (1, "Hi"), (2, "c")]


def test_several_completions_of_a_prompt_are_a_list(client: TestClient, engines: FakeEngines) -> None:
    assert [each["index"] for each in client.post(PATH, json={"prompt": "a", "n_cmpl": 2}).json()] == [0, 1]


def test_fields_can_be_chosen_also_inside_of_others(client: TestClient) -> None:
    fields = ["content", "generation_settings/n_predict", "nothing/here"]
    answer = client.post(PATH, json={"prompt": "a", "n_predict": 5, "response_fields": fields}).json()
    assert answer == {"content": "Four.", "generation_settings/n_predict": 5}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mirostat", 2),
        ("t_max_predict_ms", 100),
        ("post_sampling_probs", True),
        ("samplers", ["temperature", "top_k"]),
        ("samplers", ["tfs_z"]),
        ("logit_bias", [[5]]),
        ("logit_bias", [[5, True]]),
        ("prompt", {"prompt_string": "x", "multimodal_data": ["AA=="]}),
        ("prompt", []),
        ("prompt", [True]),
        ("prompt", 5),
    ],
)
def test_what_dsr_does_not_have_is_refused(client: TestClient, field: str, value: Any) -> None:
    refused = client.post(PATH, json={"prompt": "hi", field: value})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"].split(".")[0] == field


def test_fields_without_effect_are_told(client: TestClient) -> None:
    answer = client.post(PATH, json={"prompt": "hi", "id_slot": 0, "mirostat": 0, "cache_prompt": False})
    assert answer.headers["X-Dsr-Unknown-Fields"] == "id_slot,cache_prompt"
