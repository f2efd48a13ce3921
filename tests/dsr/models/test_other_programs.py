"""Models of Ollama and LM Studio are read where they are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dsr.cli import app
from dsr.models import library
from dsr.models.other_programs import find_in, folders, models_of, split_program
from dsr.models.references import guess, parse
from runtime.base.errors import DsrError, Incompatible, NotFound, UsageError
from tests.dsr.models.other_stores import ollama_blob, ollama_model


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)


@pytest.fixture
def store(tmp_path: Path, nano_path: Path) -> Path:
    store = tmp_path / ".ollama" / "models"
    weights = nano_path.read_bytes()
    ollama_model(store, "registry.ollama.ai/library/tiny/latest", weights)
    ollama_model(store, "registry.ollama.ai/me/own/1b", weights)
    ollama_model(store, "hf.co/org/repo/Q8_0", weights)
    return store


def test_a_model_of_ollama_is_found_where_it_is(store: Path, nano_path: Path) -> None:
    digest = hashlib.sha256(nano_path.read_bytes()).hexdigest()
    for name, reference in (
        ("ollama:tiny", "ollama:tiny"),
        ("ollama:tiny:latest", "ollama:tiny"),
        ("ollama:library/tiny", "ollama:tiny"),
        ("OLLAMA:me/own:1b", "ollama:me/own:1b"),
        ("ollama:hf.co/org/repo:Q8_0", "ollama:hf.co/org/repo:Q8_0"),
    ):
        found = library.find(name)
        assert (found.reference, found.path) == (reference, store / "blobs" / f"sha256-{digest}")
        assert (found.quant, found.digests, found.absolute_reference) == ("Q8_0", (digest,), reference)
        assert found.card.architecture == "deepseek2"
    assert [each.reference for each in models_of("ollama")] == [
        "ollama:hf.co/org/repo:Q8_0",
        "ollama:me/own:1b",
        "ollama:tiny",
    ]


def test_a_name_that_only_ollama_has_is_offered(store: Path) -> None:
    assert guess("tiny").kind == "model"
    with pytest.raises(NotFound) as caught:
        library.find("tiny")
    assert caught.value.hint == "Ollama has it: dsr chat ollama:tiny"
    with pytest.raises(NotFound) as unknown:
        library.find("ollama:other")
    assert unknown.value.hint == "it has: ollama:hf.co/org/repo:Q8_0, ollama:me/own:1b, ollama:tiny"


@pytest.mark.parametrize("digest", ["sha256:../../x", "sha256:" + "0" * 63, "md5:" + "0" * 64, None, 7, "/etc/passwd"])
def test_no_path_is_built_from_a_digest_that_is_none(digest: object, store: Path, nano_path: Path) -> None:
    name = "registry.ollama.ai/library/evil/latest"
    ollama_model(store, name, nano_path.read_bytes(), digest=digest)
    with pytest.raises(Incompatible, match="its manifest names no valid digest"):
        find_in("ollama", "evil")


@pytest.mark.parametrize(
    ("changes", "more", "problem"),
    [
        ({"size": 5}, (), "its weights have 12839424 bytes, and its manifest says 5"),
        ({"digest": "sha256:" + "0" * 64}, (), "its weights cannot be read: No such file or directory"),
        ({"mediaType": "x"}, (), "its manifest names no GGUF file"),
        ({}, ({"mediaType": "application/vnd.ollama.image.adapter"},), "it has an adapter, which dsr would leave out"),
        ({}, ({"mediaType": "application/vnd.ollama.image.model"},), "it has 2 files of weights"),
    ],
)
def test_a_model_that_cannot_be_used_says_why(
    changes: dict[str, object], more: tuple[dict[str, str], ...], problem: str, store: Path, nano_path: Path
) -> None:
    weights = nano_path.read_bytes()
    ollama_model(store, "registry.ollama.ai/library/odd/latest", weights, *more, **changes)
    [odd] = [each for each in models_of("ollama") if each.reference == "ollama:odd"]
    assert odd.problem == problem.replace("12839424", str(len(weights)))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"layers": 3}', '{"layers": [1]}', "\x00", '{"config": 1}'])
def test_a_damaged_manifest_is_no_crash(text: str, store: Path) -> None:
    (store / "manifests" / "registry.ollama.ai" / "library" / "tiny" / "latest").write_text(text)
    with pytest.raises(Incompatible, match="its manifest names no GGUF file"):
        find_in("ollama", "tiny")


@pytest.mark.parametrize("name", ["../x", "a/b/c/d/e", "a b", "x:../y", ".hidden", "x/..", "-x", ""])
def test_a_name_cannot_leave_the_folder(name: str, store: Path) -> None:
    with pytest.raises(UsageError, match="is not a name of Ollama"):
        find_in("ollama", name)


def test_the_variable_of_ollama_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nano_path: Path
) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "there"))
    assert folders("ollama") == ()
    ollama_model(tmp_path / "there", "registry.ollama.ai/library/x/latest", nano_path.read_bytes())
    assert folders("ollama") == (tmp_path / "there",)


def test_models_of_lm_studio(tmp_path: Path, nano_path: Path) -> None:
    weights = nano_path.read_bytes()
    one, two = tmp_path / ".lmstudio/models/org/one", tmp_path / ".lmstudio/models/org/two"
    for path in (one / "one-Q8_0.gguf", two / "two-Q4_0.gguf", two / "two-Q8_0.gguf", two / "mmproj-two.gguf"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(weights)
    assert [(each.reference, each.quant) for each in models_of("lmstudio")] == [
        ("lmstudio:org/one", "Q8_0"),
        ("lmstudio:org/two:Q4_0", "Q4_0"),
        ("lmstudio:org/two:Q8_0", "Q8_0"),
    ]
    assert library.find("lmstudio:org/one:q8_0").path == one / "one-Q8_0.gguf"
    assert library.find("lmstudio:org/two:Q4_0").path == two / "two-Q4_0.gguf"
    with pytest.raises(NotFound, match="LM Studio has no model 'org/two:Q2_K'"):
        library.find("lmstudio:org/two:Q2_K")
    with pytest.raises(UsageError):
        library.find("lmstudio:../x")


def test_lm_studio_tells_where_its_folder_is(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".lmstudio-home-pointer").write_text(str(tmp_path / "home"))
    (tmp_path / "home" / "settings.json").write_text(json.dumps({"downloadsFolder": str(tmp_path / "elsewhere")}))
    assert folders("lmstudio") == (tmp_path / "elsewhere",)


def test_files_of_other_programs_stay_as_they_are(store: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in store.rglob("*"))
    run = CliRunner()
    for words, code in (
        (["show", "ollama:tiny"], 0),
        (["rm", "ollama:tiny", "-y"], 2),
        (["pull", "ollama:tiny"], 2),
        (["list", "--from", "ollama"], 0),
    ):
        assert run.invoke(app, words).exit_code == code, words
    assert sorted((path, path.stat().st_mtime_ns) for path in store.rglob("*")) == before


def test_they_are_listed(store: Path) -> None:
    ollama_blob(store, b"unused")
    run = CliRunner()
    assert run.invoke(app, ["list", "--from", "Ollama", "-q"]).stdout.splitlines() == [
        "ollama:hf.co/org/repo:Q8_0",
        "ollama:me/own:1b",
        "ollama:tiny",
    ]
    body = json.loads(run.invoke(app, ["list", "--from", "ollama", "--json"]).stdout)
    assert (body["schema"], body["folders"], len(body["models"])) == ("dsr.list.from/1", [str(store)], 3)
    assert "no folder of LM Studio was found" in run.invoke(app, ["list", "--from", "lmstudio"]).stderr
    assert "--from is ollama or lmstudio" in run.invoke(app, ["list", "--from", "gpt4all"]).stderr


def test_references_of_programs() -> None:
    assert split_program("ollama:a:b") == ("ollama", "a:b")
    assert split_program("LMStudio:org/x") == ("lmstudio", "org/x")
    assert split_program("qwen3:8b") is None
    assert parse("ollama:x").kind == "program"
    with pytest.raises(DsrError):
        library.find("ollama:")
