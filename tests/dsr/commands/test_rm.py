from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dsr.cli import app
from dsr.models import library
from runtime.base.errors import DsrError, NotFound, UsageError
from tests.dsr.models.fake_cache import FIRST, SECOND, put, put_partial


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["rm", *arguments], catch_exceptions=False)


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir() or p.is_symlink())


def test_a_model_goes_with_its_blob_and_everything_empty_around_it(cache: Path) -> None:
    put(cache, "org/repo", "Q8_0/a-Q8_0-00001-of-00002.gguf", b"123")
    put(cache, "org/repo", "Q8_0/a-Q8_0-00002-of-00002.gguf", b"45")
    result = run("org/repo", "-y")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "freed 5 B\n")
    assert list(cache.iterdir()) == []


def test_other_files_of_the_repository_stay(cache: Path) -> None:
    put(cache, "org/repo", "a-Q8_0.gguf", b"123")
    kept = put(cache, "org/repo", "a-Q4_0.gguf", b"4")
    readme = put(cache, "org/repo", "README.md", b"hello")
    assert library.remove(library.find_to_remove("org/repo:q8_0")) == 3
    assert (kept.read_bytes(), readme.read_bytes()) == (b"4", b"hello")
    assert len(list((cache / "models--org--repo" / "blobs").iterdir())) == 2


def test_a_blob_that_another_snapshot_uses_stays_and_frees_nothing(cache: Path) -> None:
    old = put(cache, "org/repo", "old-name-Q8_0.gguf", b"same", commit=FIRST)
    put(cache, "org/repo", "a-Q8_0.gguf", b"same", commit=SECOND)
    assert library.remove(library.find_to_remove("org/repo:Q8_0")) == 0
    assert old.read_bytes() == b"same"
    assert library.remove(library.find_to_remove("org/repo:Q8_0")) == 4
    assert list(cache.iterdir()) == []


def test_without_links_the_files_themselves_go(cache: Path) -> None:
    plain = cache / "models--org--repo" / "snapshots" / FIRST / "a-Q8_0.gguf"
    plain.parent.mkdir(parents=True)
    plain.write_bytes(b"1234")
    assert library.remove(library.find_to_remove("org/repo")) == 4
    assert list(cache.iterdir()) == []


def test_original_weights_go_with_their_small_files(cache: Path) -> None:
    put(cache, "org/base", "model.safetensors", b"123")
    put(cache, "org/base", "config.json", b"{}")
    kept = put(cache, "org/base", "a-Q8_0.gguf", b"1")
    assert library.remove(library.find_to_remove("org/base:safetensors")) == 5
    assert kept.read_bytes() == b"1"


def test_incomplete_models_can_be_removed(cache: Path) -> None:
    put(cache, "org/repo", "a-Q8_0-00001-of-00002.gguf", b"123")
    put_partial(cache, "org/repo", b"45678")
    result = run("org/repo", "-y")
    assert result.exit_code == 2
    assert "hint: dsr rm org/repo:Q8_0; dsr rm org/repo:incomplete" in result.stderr
    assert library.remove(library.find_to_remove("org/repo:incomplete")) == 5
    assert library.remove(library.find_to_remove("org/repo")) == 3
    assert list(cache.iterdir()) == []


def test_a_broken_link_is_removed(cache: Path) -> None:
    put(cache, "org/repo", "a-Q8_0.gguf", b"123").resolve().unlink()
    assert library.remove(library.find_to_remove("org/repo")) == 0
    assert list(cache.iterdir()) == []


def test_several_quantizations_are_never_guessed_between(cache: Path) -> None:
    put(cache, "org/repo", "a-Q8_0.gguf", b"123")
    put(cache, "org/repo", "a-Q4_0.gguf", b"4")
    with pytest.raises(UsageError, match="org/repo matches 2 models on this machine; name one of them") as caught:
        library.find_to_remove("org/repo")
    assert caught.value.hint == "dsr rm org/repo:Q4_0; dsr rm org/repo:Q8_0"


def test_a_dry_run_shows_the_paths_and_deletes_nothing(cache: Path) -> None:
    link = put(cache, "org/repo", "a-Q8_0.gguf", b"123")
    result = run("org/repo", "--dry-run")
    assert result.stdout.split() == [str(link.resolve()), str(link)]
    assert result.stderr == "this would free 3 B\n"
    assert link.read_bytes() == b"123"


def test_json_says_what_went(cache: Path) -> None:
    link = put(cache, "org/repo", "a-Q8_0.gguf", b"123")
    value = json.loads(run("org/repo", "--json", "-y").stdout)
    assert value == {
        "schema": "dsr.rm/1",
        "reference": "org/repo:Q8_0",
        "name": "org/repo, Q8_0",
        "deleted": True,
        "freed": 3,
        "files": [str(link.parents[2] / "blobs" / Path(value["files"][0]).name), str(link)],
    }


def test_without_a_terminal_it_does_not_delete_unasked(cache: Path) -> None:
    link = put(cache, "org/repo", "a-Q8_0.gguf", b"123")
    result = run("org/repo")
    assert result.exit_code == 2
    assert "hint: add -y to say yes" in result.stderr
    assert link.exists()


@pytest.mark.parametrize(("answer", "code", "stays"), [("n", 130, True), ("", 130, True), ("y", 0, False)])
def test_at_a_terminal_it_asks(
    answer: str, code: int, stays: bool, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = put(cache, "org/repo", "a-Q8_0.gguf", b"123")
    monkeypatch.setattr("dsr.ui.console.Console.confirm", lambda self, question, yes: answer == "y")
    assert run("org/repo").exit_code == code
    assert link.is_symlink() is stays


def test_the_embedded_model_stays() -> None:
    result = run("nano", "-y")
    assert result.exit_code == 2
    assert "dsr cannot delete nano" in result.stderr
    assert library.find("nano").path.is_file()


def test_a_file_outside_of_the_cache_stays(tmp_path: Path) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(b"1")
    result = run(str(own), "-y")
    assert result.exit_code == 2
    assert "is your own file outside of the cache" in result.stderr
    assert own.exists()


def test_a_path_into_the_cache_is_removed_like_its_name(cache: Path) -> None:
    link = put(cache, "org/repo", "a-Q8_0.gguf", b"123")
    assert run(str(link), "-y").exit_code == 0
    assert list(cache.iterdir()) == []


def test_what_a_link_in_the_cache_points_to_outside_stays(cache: Path, tmp_path: Path) -> None:
    outside = tmp_path / "precious.gguf"
    outside.write_bytes(b"123")
    link = cache / "models--org--repo" / "snapshots" / FIRST / "a-Q8_0.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    assert library.remove(library.find_to_remove("org/repo")) == 0
    assert outside.read_bytes() == b"123"
    assert not link.is_symlink()


@pytest.mark.parametrize(
    "level", ["models--org--repo", "models--org--repo/snapshots", f"models--org--repo/snapshots/{FIRST}"]
)
def test_a_folder_that_leads_out_of_the_cache_is_not_followed(level: str, cache: Path, tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "org/repo", "a-Q8_0.gguf", b"123")
    before = files(tmp_path / "elsewhere")
    place = cache / level
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "elsewhere" / level)
    with pytest.raises(UsageError, match="leads out of the cache"):
        library.remove(library.find_to_remove("org/repo"))
    assert files(tmp_path / "elsewhere") == before


def test_a_cache_that_is_itself_a_link_works(cache: Path, tmp_path: Path) -> None:
    put(tmp_path / "disk2", "org/repo", "a-Q8_0.gguf", b"123")
    cache.symlink_to(tmp_path / "disk2")
    assert library.remove(library.find_to_remove("org/repo")) == 3
    assert list((tmp_path / "disk2").iterdir()) == []


def test_a_name_that_is_not_here_is_not_found() -> None:
    with pytest.raises(NotFound, match="deepseek-r1:7b is not on this machine") as caught:
        library.find_to_remove("deepseek-r1:7b")
    assert caught.value.hint == "to list the models on this machine: dsr list"


def test_a_file_that_cannot_be_deleted_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(cache, "org/repo", "a-Q8_0.gguf", b"123")

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(DsrError, match=r"cannot delete .*: Permission denied"):
        library.remove(library.find_to_remove("org/repo"))


def test_nothing_heavy_is_loaded_to_list_or_remove() -> None:
    import subprocess

    code = (
        "import sys; import dsr.models.library, dsr.commands.list, dsr.commands.rm; dsr.models.library.installed(); "
        "print([m for m in ('llama_cpp', 'numpy', 'rich', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
