"""The settings of a person hold for `dsr serve` as for `dsr chat`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsr.models import library
from dsr.serve.serve import ServeRequest, _usual
from tests.dsr.serve.live_server import start_server, stop_server

_BODY = {"messages": [{"role": "user", "content": "2+2?"}], "max_tokens": 2, "stream": True, "dsr": {"events": True}}


def test_asks_that_say_nothing_are_drawn_with_the_sampling_of_the_settings(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "config").mkdir(parents=True)
    (home / "config" / "config.toml").write_text('temperature = 0.25\ntop_k = 7\nctx_size = 600\neffort = "high"\n')
    live = start_server(log=tmp_path / "log", home=home, DSR_TOP_K="9")
    try:
        with live.client() as client:
            begun = [_sampling(client.post("/v1/chat/completions", json=_BODY | more).text) for more in _MORE]
            opened = client.post("/api/dsr/models/load", json={"model": "nano"}).json()["props"]["longest"]
    finally:
        stop_server(live)
    assert [(each["temperature"], each["top_k"]) for each in begun] == [(0.25, 9), (1.0, 9)]
    assert opened == 600


_MORE: tuple[dict[str, float], ...] = ({}, {"temperature": 1.0})


def _sampling(stream: str) -> dict[str, float]:
    begun = next(line for line in stream.splitlines() if '"begun"' in line)
    found: dict[str, float] = json.loads(begun.removeprefix(": dsr "))["sampling"]
    return found


def test_the_model_of_the_settings_answers_requests_that_name_none_if_it_is_here() -> None:
    assert [model.reference for model in _usual("nano")] == [library.find("nano").reference]
    assert _usual("nobody/has-it") == []
    assert _usual(None) == []


def test_the_command_passes_the_settings_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from dsr.cli import app
    from dsr.serve import serve

    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text(
        'model = "nano"\nthreads = 3\nkv_type = "q8_0"\neffort = "low"\nkeep_thoughts = true\nmin_p = 0.1\n'
    )
    monkeypatch.setenv("DSR_HOME", str(tmp_path))
    got: list[ServeRequest] = []
    monkeypatch.setattr(serve, "run", got.append)
    assert CliRunner().invoke(app, ["serve"]).exit_code == 0
    assert CliRunner().invoke(app, ["serve", "-t", "1", "--kv-type", "f16"]).exit_code == 0
    first, second = got
    assert first.default_model == "nano"
    assert (first.pool.threads, first.pool.load["kv_type"]) == (3, "q8_0")
    assert first.pool.usual == {"sampling": {"min_p": 0.1}, "effort": "low", "keep_thoughts": True}
    assert (second.pool.threads, second.pool.load["kv_type"]) == (1, "f16")
