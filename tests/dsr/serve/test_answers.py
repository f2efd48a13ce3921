"""Whole answers from what is told."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from dsr.serve import answers
from dsr.serve.told import Done
from runtime.base.events import TokenDrawn
from runtime.base.types import TokenLogprob
from tests.dsr.serve.fake_engine import FakeEngines, begun, ended


def test_the_log_probabilities_that_one_request_keeps_are_bounded(
    client: TestClient, engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tuple(TokenLogprob(token, b"a", -1.0) for token in range(3))
    engines.script = lambda ask: [begun(), *[TokenDrawn(0, "answer", 1, b"a", -1.0, top)] * 5, ended("a"), Done()]
    body = {"messages": [{"role": "user", "content": "2+2?"}], "logprobs": True, "top_logprobs": 3}
    monkeypatch.setattr(answers, "_MOST_LOGPROBS", 20)
    assert client.post("/v1/chat/completions", json=body).status_code == 200
    monkeypatch.setattr(answers, "_MOST_LOGPROBS", 19)
    refused = client.post("/v1/chat/completions", json=body)
    assert refused.status_code == 400
    assert "log-probabilities" in refused.text
