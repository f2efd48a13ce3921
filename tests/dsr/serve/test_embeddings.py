"""Vectors over HTTP: OpenAI's, Ollama's and llama-server's routes, with a scripted engine and with real ones."""

from __future__ import annotations

import base64
import math
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from dsr.serve.told import Failed
from tests.dsr.serve.conftest import Live, start_server, stop_server
from tests.dsr.serve.fake_engine import FakeEngines
from tests.embedding_gguf import write_embedder

VECTOR = base64.b64encode(array("f", [0.6, -0.8]).tobytes()).decode()


@pytest.fixture
def embeds(engines: FakeEngines) -> FakeEngines:
    """Every text has the same vector, and two tokens."""
    engines.answers["embed"] = lambda given: {
        "vectors": [VECTOR] * len(given["texts"]),
        "tokens": [2] * len(given["texts"]),
    }
    return engines


def post(client: TestClient, path: str, **body: Any) -> Any:
    answer = client.post(path, json={"model": "nano", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def refusal(client: TestClient, path: str, **body: Any) -> tuple[int, str]:
    answer = client.post(path, json={"model": "nano", **body})
    error = answer.json()["error"]
    return answer.status_code, error if isinstance(error, str) else error["message"]


def test_openai_gets_numbers_with_usage(client: TestClient, embeds: FakeEngines) -> None:
    vector = [0.600000024, -0.800000012]  # all digits of float32
    assert post(client, "/v1/embeddings", input=["one", "two"]) == {
        "object": "list",
        "data": [{"object": "embedding", "index": number, "embedding": vector} for number in (0, 1)],
        "model": "nano",
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }
    assert embeds.queried == [("embed", {"texts": ["one", "two"], "dimensions": None, "truncate": False})]


def test_openai_gets_base64_of_float32(client: TestClient, embeds: FakeEngines) -> None:
    [row] = post(client, "/v1/embeddings", input="one", encoding_format="base64", dimensions=2)["data"]
    assert row["embedding"] == VECTOR
    assert embeds.queried[0][1]["dimensions"] == 2


@pytest.mark.parametrize(
    ("given", "texts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1, 2], [3]], [[1, 2], [3]]),
     (["a", [3]], ["a", [3]])],
)  # fmt: skip
def test_an_input_is_a_text_its_tokens_or_several(
    client: TestClient, embeds: FakeEngines, given: Any, texts: list[Any]
) -> None:
    assert len(post(client, "/v1/embeddings", input=given)["data"]) == len(texts)
    assert embeds.queried[0][1]["texts"] == texts


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "input: there is no text"),
        ("", "input.0: the text is empty"),
        (["a", ""], "input.1: the text is empty"),
        (["a", []], "input.1: the text is empty"),
        (["a"] * 2049, "input: 2049 texts, and at most 2048 are embedded at once"),
    ],
)
def test_an_input_without_a_text_is_refused_with_its_place(
    client: TestClient, embeds: FakeEngines, given: Any, said: str
) -> None:
    assert refusal(client, "/v1/embeddings", input=given) == (400, said)
    assert embeds.queried == []


def test_inputs_of_another_kind_are_refused(client: TestClient, embeds: FakeEngines) -> None:
    for given in (None, 3, {"a": 1}, [1.5], [["a"]], [True]):
        assert refusal(client, "/v1/embeddings", input=given)[0] == 400
    assert refusal(client, "/v1/embeddings", input="a", dimensions=0)[0] == 400
    assert refusal(client, "/v1/embeddings", input="a", encoding_format="int8")[0] == 400
    assert embeds.queried == []


def test_what_the_engine_says_of_a_text_reaches_the_client(client: TestClient, engines: FakeEngines) -> None:
    engines.answers["embed"] = Failed("DoesNotFit", "text 1 has 9 tokens", "shorten it")
    assert refusal(client, "/v1/embeddings", input=["a", "b"]) == (400, "text 1 has 9 tokens; shorten it")
    assert refusal(client, "/api/embed", input=["a", "b"]) == (400, "text 1 has 9 tokens; shorten it")


def test_ollama_gets_a_list_of_vectors_and_cuts_long_texts(client: TestClient, embeds: FakeEngines) -> None:
    told = post(client, "/api/embed", input=["a", "b"], dimensions=2)
    assert told["embeddings"] == [[pytest.approx(0.6), pytest.approx(-0.8)]] * 2
    assert (told["model"], told["prompt_eval_count"], told["load_duration"]) == ("nano", 4, 0)
    assert embeds.queried[0][1] == {"texts": ["a", "b"], "dimensions": 2, "truncate": True}
    post(client, "/api/embed", input="a", truncate=False)
    assert embeds.queried[1][1]["truncate"] is False


def test_ollama_opens_a_model_with_an_empty_text(client: TestClient, embeds: FakeEngines) -> None:
    assert post(client, "/api/embed", input="")["embeddings"] == []
    assert post(client, "/api/embeddings", prompt="") == {"embedding": []}
    assert embeds.queried == []


def test_ollamas_older_route_gives_one_vector(client: TestClient, embeds: FakeEngines) -> None:
    assert post(client, "/api/embeddings", prompt="a") == {"embedding": [pytest.approx(0.6), pytest.approx(-0.8)]}


@pytest.mark.parametrize("path", ["/embedding", "/embeddings"])
def test_llama_servers_route_gives_lists_of_lists(client: TestClient, embeds: FakeEngines, path: str) -> None:
    told = post(client, path, content=["a", "b"])
    assert told == [{"index": n, "embedding": [[pytest.approx(0.6), pytest.approx(-0.8)]]} for n in (0, 1)]
    assert post(client, path, input="a")[0]["index"] == 0
    assert refusal(client, path) == (400, '"input" or "content" must be given')
    assert refusal(client, path, input="a", embd_normalize=-1)[0] == 400


def test_ollama_is_told_that_a_model_which_answers_completes(client: TestClient) -> None:
    assert "completion" in post(client, "/api/show", model="nano")["capabilities"]


@pytest.fixture(scope="module")
def with_bert(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder: Path = tmp_path_factory.mktemp("bert")
    path = write_embedder("bert", folder / "bert.gguf")
    live = start_server(str(path), log=folder / "log", home=folder / "home")
    yield live
    stop_server(live)


def test_an_encoder_and_a_model_that_answers_embed_in_real_processes(with_bert: Live) -> None:
    with with_bert.client() as client:
        for model, size in (("bert", 64), ("nano", 256)):
            told = client.post(
                "/v1/embeddings", json={"model": model, "input": ["the cat sat", "a dog", "the cat sat"]}
            )
            assert told.status_code == 200, told.text
            one, other, same = (each["embedding"] for each in told.json()["data"])
            assert len(one) == size
            assert math.sqrt(math.fsum(number * number for number in one)) == pytest.approx(1, abs=1e-5)
            assert same == pytest.approx(one, abs=1e-4)
            assert other != pytest.approx(one, abs=1e-2)
        told = client.post("/api/embed", json={"model": "bert", "input": "cat " * 700})
        assert told.json()["prompt_eval_count"] == 600
        told = client.post("/api/show", json={"model": "bert"})
        assert told.json()["capabilities"] == ["embedding"]


def test_an_encoder_refuses_to_answer_and_goes_on(with_bert: Live) -> None:
    asked = {"model": "bert", "messages": [{"role": "user", "content": "Hello"}]}
    with with_bert.client() as client:
        refused = client.post("/v1/chat/completions", json=asked)
        assert refused.status_code == 400
        assert "bert.gguf is open for embeddings, and writes no text" in refused.json()["error"]["message"]
        assert client.post("/v1/embeddings", json={"model": "bert", "input": "cat"}).status_code == 200


def test_a_model_answers_while_it_embeds(with_bert: Live) -> None:
    asked = {"model": "nano", "messages": [{"role": "user", "content": "What is 2 + 2?"}], "stream": True, "seed": 1}
    with with_bert.client() as client, client.stream("POST", "/v1/chat/completions", json=asked) as answer:
        lines = answer.iter_lines()
        next(lines)
        with with_bert.client() as second:
            told = second.post("/v1/embeddings", json={"model": "nano", "input": ["2 + 2"] * 40})
        assert len(told.json()["data"]) == 40
        assert [*lines][-2:] == ["data: [DONE]", ""]
