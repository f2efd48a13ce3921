"""Names of models from clients: no path, no option, no address, and no fault of the server for any of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dsr.models import library
from dsr.serve.http.app import make_app
from dsr.serve.http.server import Server
from dsr.serve.names import Names
from dsr.serve.told import Failed
from tests.dsr.serve.fake_engine import FakeEngines


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The server runs in a folder with a model and other files."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "m.gguf").write_bytes(library.find("nano").path.read_bytes())
    (tmp_path / "sub" / "secret").write_text("x")
    (tmp_path / "secret").write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["sub/m.gguf", "sub", "sub/secret", "secret", "sub/../secret", "--help", "~", "/etc"])
def test_no_plan_and_no_pull_reads_a_path(client: TestClient, name: str) -> None:
    for answer in (
        client.get("/api/dsr/plan", params={"model": name}),
        client.get("/api/dsr/pull", params={"model": name}),
        client.post("/api/dsr/pull", json={"model": name}),
    ):
        assert answer.status_code in (400, 404), answer.text
        assert "m.gguf is" not in answer.text


@pytest.mark.parametrize("name", ["x" * 300, "x/" + "y" * 290, "https://evil.example/a/b", "\u202e", "a\0b", "@"])
def test_a_name_that_no_model_has_is_the_clients_fault(client: TestClient, name: str) -> None:
    body = {"model": name, "messages": [{"role": "user", "content": "2+2?"}]}
    assert client.post("/v1/chat/completions", json=body).status_code in (400, 404)
    assert client.post("/api/dsr/pull", json={"model": name}).status_code in (400, 404, 413)


def test_a_model_whose_file_is_gone_is_no_longer_listed(folder: Path) -> None:
    names = Names([library.find("./sub/m.gguf")])
    before = {model.path.name for model in names.models()}
    (folder / "sub" / "m.gguf").unlink()
    assert before - {model.path.name for model in names.models()} == {"m.gguf"}


def test_no_client_sees_where_a_model_lies(server: Server, engines: FakeEngines, folder: Path) -> None:
    given = library.find(str(folder / "sub" / "m.gguf"))
    named = replace(server, names=Names([given]))
    engines.fails_to_open = Failed("EngineDied", "it died")
    with TestClient(make_app(named), base_url="http://127.0.0.1:11500", client=("127.0.0.1", 50000)) as client:
        listed = client.get("/api/dsr/models").json()
        assert (listed["default"], listed["models"][0]["reference"]) == ("m.gguf", "m.gguf")
        body = {"model": "m.gguf", "messages": [{"role": "user", "content": "2+2?"}]}
        client.post("/v1/chat/completions", json=body)
        engines.fails_to_open = None
        assert client.post("/api/dsr/models/load", json={"model": "m.gguf"}).json()["model"] == "m.gguf"
        texts = [client.get(path).text for path in ("/api/dsr/models", "/metrics", "/v1/models", "/api/ps")]
        texts += [client.post("/api/dsr/models/unload", json={"model": "m.gguf"}).text]
    assert not [text for text in texts if str(folder) in text]
    assert all("m.gguf" in text for text in texts)
