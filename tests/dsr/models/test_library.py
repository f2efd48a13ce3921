from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from dsr.models.catalog import load
from dsr.models.library import fault, find, hub_cache_folder, incomplete, installed, other_files
from runtime.base.errors import Incompatible, NotFound, UsageError
from tests.dsr.models.fake_cache import FIRST, SECOND, put, put_partial

R1_7B = "unsloth/DeepSeek-R1-Distill-Qwen-7B-GGUF"
SHARDS = [f"UD-Q2_K_XL/R1-UD-Q2_K_XL-{n:05d}-of-00003.gguf" for n in (1, 2, 3)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_HOME", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def references() -> list[str]:
    return [model.reference for model in installed()]


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"HF_HUB_CACHE": "/c", "HF_HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/c"),
        ({"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/h"}, "/old"),
        ({"HF_HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/h/hub"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({}, "/user/.cache/huggingface/hub"),
        ({"HF_HUB_CACHE": "", "HF_HOME": "~/h"}, "/user/h/hub"),
        ({"HF_HOME": "$HOME/h"}, "/user/h/hub"),
    ],
)
def test_the_cache_is_where_the_hubs_own_tools_have_it(
    environment: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HOME", "/user")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert hub_cache_folder() == Path(folder)


def test_without_a_cache_only_the_embedded_model_is_here() -> None:
    (nano,) = installed()
    assert (nano.reference, nano.embedded, nano.quant, nano.path.name) == ("nano", True, "Q8_0", "nano.gguf")
    assert "12 M demonstration model" in nano.name
    assert find("nano") == nano
    assert incomplete() == []


def test_a_file_of_the_cache_is_listed_with_everything_that_is_known(cache: Path) -> None:
    link = put(cache, R1_7B, "DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf", b"weights")
    model = installed()[1]
    assert model.reference == "deepseek-r1:7b:Q4_K_M"
    assert model.name == "DeepSeek-R1-Distill-Qwen-7B (a distill of Qwen2.5-Math-7B), Q4_K_M"
    assert (model.path, model.files, model.size, model.kind) == (link, (link,), 7, "gguf")
    assert (model.repo, model.revision, model.quant) == (R1_7B, FIRST, "Q4_K_M")
    assert model.digests == (hashlib.sha256(b"weights").hexdigest(),)
    assert model.entry is not None and model.entry.name == "deepseek-r1:7b"


def test_a_name_without_a_size_is_the_only_size_on_this_machine(cache: Path) -> None:
    with pytest.raises(NotFound, match="no deepseek-r1 is on this machine") as caught:
        find("deepseek-r1")
    assert str(caught.value.hint).startswith(
        "dsr pull deepseek-r1 takes the one of 7 sizes that suits this machine; or "
    )
    put(cache, R1_7B, "DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf", b"weights")
    assert find("deepseek-r1").reference == find("deepseek-r1:latest").reference == "deepseek-r1:7b:Q4_K_M"
    other = load().lookup("deepseek-r1:8b")
    assert other is not None
    put(cache, other.gguf, "DeepSeek-R1-Distill-Llama-8B-Q4_K_M.gguf", b"others")
    with pytest.raises(UsageError, match="deepseek-r1 matches 7 models"):
        find("deepseek-r1")


@pytest.mark.parametrize(
    "text",
    ["deepseek-r1:7b", "deepseek-r1:7b:q4_k_m", "deepseek-r1:7b@Q4_K_M", R1_7B, R1_7B.upper(), f"hf.co/{R1_7B}:Q4_K_M"],
)
def test_a_model_is_found_by_every_reference(text: str, cache: Path) -> None:
    link = put(cache, R1_7B, "DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf", b"weights")
    assert find(text).path == link


def test_every_listed_reference_finds_its_model(cache: Path) -> None:
    put(cache, R1_7B, "a-Q4_K_M.gguf", b"1234")
    put(cache, R1_7B, "a-Q8_0.gguf", b"12345678")
    put(cache, "org/two", "one.gguf", b"1")
    put(cache, "org/two", "two.gguf", b"2")
    for shard in SHARDS:
        put(cache, "org/split", shard, shard.encode())
    models = installed()
    assert [find(model.reference) for model in models] == models
    assert references() == [
        "nano", "org/split:UD-Q2_K_XL", "org/two:one", "org/two:two", "deepseek-r1:7b:Q4_K_M", "deepseek-r1:7b:Q8_0",
    ]  # fmt: skip


def test_without_a_quantization_the_largest_is_taken_and_the_name_says_which(cache: Path) -> None:
    put(cache, R1_7B, "a-Q8_0.gguf", b"12345678")
    put(cache, R1_7B, "a-Q4_K_M.gguf", b"1234")
    assert find("deepseek-r1:7b").name.endswith("Qwen2.5-Math-7B), Q8_0")


def test_a_split_model_is_one_model_in_order(cache: Path) -> None:
    links = [put(cache, "org/split", shard, bytes(n)) for n, shard in enumerate(SHARDS, 1)]
    model = find("org/split")
    assert (model.path, model.files, model.size) == (links[0], tuple(links), 6)


def test_a_split_model_with_a_missing_part_is_incomplete(cache: Path) -> None:
    for shard in (SHARDS[0], SHARDS[2]):
        put(cache, "org/split", shard, shard.encode())
    assert references() == ["nano"]
    (broken,) = incomplete()
    assert (broken.reference, broken.problem) == (
        "org/split:UD-Q2_K_XL",
        "R1-UD-Q2_K_XL-00002-of-00003.gguf is missing",
    )
    with pytest.raises(NotFound, match=r"00002-of-00003\.gguf is missing") as caught:
        find("org/split")
    assert caught.value.hint == "dsr pull org/split"


def test_a_link_to_nothing_is_incomplete(cache: Path) -> None:
    link = put(cache, "org/repo", "a-Q8_0.gguf", b"1")
    link.resolve().unlink()
    assert references() == ["nano"]
    assert [model.problem for model in incomplete()] == ["a-Q8_0.gguf is a broken link"]


def test_an_interrupted_download_is_reported_with_what_is_there(cache: Path) -> None:
    put_partial(cache, "org/repo", b"12345")
    (partial,) = incomplete()
    assert (partial.reference, partial.size) == ("org/repo:incomplete", 5)
    with pytest.raises(NotFound, match="is not complete") as caught:
        find("org/repo")
    assert caught.value.hint == "dsr pull org/repo"


def test_what_is_known_but_not_here_comes_with_the_command_that_fetches_it() -> None:
    with pytest.raises(NotFound, match=r"a distill of Qwen2.5-Math-7B\) is not on this machine") as caught:
        find("DeepSeek-R1:7B@q4_k_m")
    assert caught.value.hint == "dsr pull deepseek-r1:7b:Q4_K_M"
    with pytest.raises(NotFound) as caught:
        find("hf.co/org/repo:q8_0")
    assert caught.value.hint == "dsr pull org/repo:Q8_0"


def test_another_quantization_that_is_here_is_mentioned(cache: Path) -> None:
    put(cache, R1_7B, "a-Q8_0.gguf", b"1")
    with pytest.raises(NotFound, match="but Q8_0 is"):
        find("deepseek-r1:7b:Q4_K_M")


def test_original_weights_are_listed_but_not_chatted_with(cache: Path) -> None:
    put(cache, "Qwen/Qwen3-8B", "model-00001-of-00002.safetensors", b"123")
    put(cache, "Qwen/Qwen3-8B", "model-00002-of-00002.safetensors", b"45")
    put(cache, "Qwen/Qwen3-8B", "config.json", b"{}")
    model = installed()[1]
    assert (model.reference, model.kind, model.size) == ("Qwen/Qwen3-8B:safetensors", "safetensors", 7)
    assert model.path == cache / "models--Qwen--Qwen3-8B" / "snapshots" / FIRST
    assert model.entry is not None and model.entry.name == "qwen3:8b"
    with pytest.raises(Incompatible, match="original weights") as caught:
        find("Qwen/Qwen3-8B")
    assert str(caught.value.hint).startswith("to make a GGUF file: dsr quantize Qwen/Qwen3-8B; ")


def test_original_weights_with_a_part_missing_are_incomplete(cache: Path) -> None:
    put(cache, "org/base", "model-00002-of-00002.safetensors", b"45")
    assert [model.problem for model in incomplete()] == ["model-00001-of-00002.safetensors is missing"]


def test_the_revision_of_main_comes_first_and_shared_files_once(cache: Path) -> None:
    put(cache, "org/repo", "a-Q8_0.gguf", b"old", commit=FIRST)
    put(cache, "org/repo", "b-F16.gguf", b"same", commit=FIRST)
    put(cache, "org/repo", "a-Q8_0.gguf", b"new", commit=SECOND)
    put(cache, "org/repo", "b-F16.gguf", b"same", commit=SECOND)
    assert [(m.quant, m.revision) for m in installed()[1:]] == [("Q8_0", SECOND), ("F16", SECOND), ("Q8_0", FIRST)]
    assert find("org/repo:Q8_0").revision == SECOND


def test_projectors_and_stray_files_are_no_models(cache: Path) -> None:
    put(cache, "org/repo", "mmproj-F16.gguf", b"1")
    put(cache, "org/repo", "imatrix_unsloth.gguf", b"2")
    put(cache, "org/repo", "README.md", b"3")
    (cache / "models--gpt2" / "snapshots" / FIRST).mkdir(parents=True)
    (cache / "models--org--a--b").mkdir()
    (cache / "version.txt").write_text("1")
    assert references() == ["nano"]
    assert incomplete() == []


def test_a_cache_that_is_a_file_holds_nothing(cache: Path) -> None:
    cache.write_text("oops")
    assert references() == ["nano"]


def test_damaged_refs_do_not_stop_the_listing(cache: Path) -> None:
    put(cache, "org/repo", "a-Q8_0.gguf", b"1")
    (cache / "models--org--repo" / "refs" / "main").write_bytes(b"\xff\xfe")
    assert references() == ["nano", "org/repo:Q8_0"]


def test_a_path_is_used_where_it_lies(tmp_path: Path) -> None:
    file = tmp_path / "my model-Q4_0.gguf"
    file.write_bytes(b"123")
    model = find(str(file))
    assert (model.path, model.quant, model.size, model.repo) == (file, "Q4_0", 3, None)
    assert (model.name, find("my model-Q4_0.gguf").path) == ("my model-Q4_0.gguf", Path("my model-Q4_0.gguf"))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_shard_stands_for_its_model(number: int, tmp_path: Path) -> None:
    files = [tmp_path / f"x-{n:05d}-of-00003.gguf" for n in (1, 2, 3)]
    for file in files:
        file.write_bytes(b"1")
    (tmp_path / "other.gguf").write_bytes(b"1")
    assert find(str(files[number - 1])).files == tuple(files)


def test_a_path_to_a_shard_whose_sibling_is_missing_names_it(tmp_path: Path) -> None:
    (tmp_path / "x-00002-of-00002.gguf").write_bytes(b"1")
    with pytest.raises(NotFound, match=r"x-00001-of-00002\.gguf is missing"):
        find(str(tmp_path / "x-00002-of-00002.gguf"))


def test_a_folder_stands_for_the_one_model_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    with pytest.raises(NotFound, match="no GGUF file in"):
        find("./models")
    (folder / "a-Q8_0.gguf").write_bytes(b"1")
    assert find("./models").path == Path("models/a-Q8_0.gguf")
    (folder / "b-Q8_0.gguf").write_bytes(b"1")
    with pytest.raises(UsageError, match="2 models; name one of them") as caught:
        find("./models")
    assert caught.value.hint == "models/a-Q8_0.gguf; models/b-Q8_0.gguf"


def test_a_folder_or_file_of_original_weights_points_to_quantize(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"1")
    for text in ("./weights", "./weights/model.safetensors"):
        with pytest.raises(Incompatible, match="dsr runs GGUF files only") as caught:
            find(text)
        assert caught.value.hint == (
            "to make a GGUF file: dsr quantize weights; to see its size and memory first, add --dry-run"
        )
    folder.rename("my weights")
    with pytest.raises(Incompatible) as caught:
        find("./my weights")
    assert str(caught.value.hint).startswith("to make a GGUF file: dsr quantize 'my weights'; ")


def test_a_folder_in_this_folder_needs_no_slash(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(NotFound, match="no model is called 'mine'"):
        find("mine")
    (folder / "a-Q8_0.gguf").write_bytes(b"1")
    assert find("mine").path == Path("mine/a-Q8_0.gguf")
    (folder / "a-Q8_0.gguf").rename(folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    with pytest.raises(Incompatible, match="mine holds original weights"):
        find("mine")


def test_a_path_to_nothing_or_to_no_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no file"):
        find("./missing.gguf")
    (tmp_path / "dangling.gguf").symlink_to("nowhere")
    with pytest.raises(NotFound, match="is not a file"):
        find("./dangling.gguf")
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(NotFound, match="is not a file"):
        find("./pipe.gguf")
    with pytest.raises(NotFound, match="File name too long"):
        find("./" + "a" * 300)


def test_a_path_into_the_cache_is_known_by_name(cache: Path) -> None:
    link = put(cache, R1_7B, "a-Q4_K_M.gguf", b"1")
    assert find(str(link)).reference == "deepseek-r1:7b:Q4_K_M"
    assert find(str(link.resolve())).reference == "deepseek-r1:7b:Q4_K_M"


# Files that are something else


@pytest.mark.parametrize(
    "names",
    [
        ("m.gguf.part1of2", "m.gguf.part2of2"),
        ("m.gguf.001", "m.gguf.002"),
        ("m.gguf-split-a", "m.gguf-split-b"),
        ("m.gguf-split-00001-of-00002", "m.gguf-split-00002-of-00002"),
        ("m.gguf.aa", "m.gguf.ab"),
        ("m.gguf.part9", "m.gguf.part10"),
    ],
)
def test_raw_pieces_come_with_the_command_that_joins_them(names: tuple[str, str], tmp_path: Path) -> None:
    for name in names:
        Path(name).write_bytes(b"GGUF")
    Path("other.gguf.part1of2").write_bytes(b"GGUF")
    for text in (names[0], names[1], f"./{names[0]}"):
        with pytest.raises(Incompatible) as caught:
            find(text)
        assert "a raw part of m.gguf, not a whole file (2 here)" in caught.value.message
        assert caught.value.hint == f"join them: cat {names[0]} {names[1]} > m.gguf"


def test_a_folder_of_raw_pieces_and_names_with_blanks(tmp_path: Path) -> None:
    folder = tmp_path / "my models"
    folder.mkdir()
    (folder / "m.gguf.part2of2").write_bytes(b"1")
    with pytest.raises(Incompatible) as caught:
        find(str(folder))
    assert caught.value.hint == "put all parts into one folder, then join them in order: cat PARTS > m.gguf"
    (folder / "m.gguf.part1of2").write_bytes(b"1")
    with pytest.raises(Incompatible) as caught:
        find("my models/m.gguf.part1of2")
    assert str(caught.value.hint).endswith("'my models/m.gguf.part2of2' > 'my models/m.gguf'")


def test_a_folder_without_a_model_is_named_as_what_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    with pytest.raises(NotFound, match="no GGUF file in f: it is empty"):
        find("./f")
    (folder / "notes.txt").write_text("x")
    with pytest.raises(NotFound, match="no GGUF file in f: it has 1 other files"):
        find("./f")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(Incompatible, match="f holds PyTorch weights"):
        find("./f")


def test_a_file_of_another_name_is_a_path_where_it_exists() -> None:
    Path("model.bin").write_bytes(b"x")
    assert find("model.bin").path == Path("model.bin")
    with pytest.raises(NotFound, match="no model is called 'nodel"):
        find("nodel.bin")


def test_without_a_quantization_none_of_another_program_is_taken(cache: Path) -> None:
    put(cache, "org/repo", "m-IQ4_K.gguf", b"large, for ik_llama.cpp")
    assert find("org/repo").quant == "IQ4_K"
    put(cache, "org/repo", "m-Q2_K.gguf", b"small")
    assert find("org/repo").quant == "Q2_K"


def test_what_names_and_first_bytes_tell_of_a_model(cache: Path) -> None:
    put(cache, "org/repo", "a-Q8_0.gguf", b"GGUF and so on")
    put(cache, "org/repo", "b-IQ4_K.gguf", b"GGUF and so on too")
    put(cache, "org/repo", "c-Q4_0.gguf", b"version https://git-lfs.github.com/spec/v1")
    assert [fault(model) for model in installed()] == [
        None,
        None,
        "quantized for ik_llama.cpp, which the engine of dsr cannot read",
        "a Git LFS pointer (a few lines of text), not a GGUF file",
    ]


def test_files_that_belong_to_no_model_are_counted(cache: Path) -> None:
    put(cache, "org/model", "a-Q8_0.gguf", b"GGUF")
    put(cache, "org/model", "README.md", b"small")
    put(cache, "org/model", "mmproj-F16.gguf", b"GGUF" + bytes(32 << 20))
    put(cache, "org/other", "pytorch_model.bin", b"12345")
    put(cache, "org/other", "config.json", b"{}")
    put(cache, "gpt2", "model.onnx", b"123")
    assert [each.describe() for each in other_files()] == [
        "gpt2: 1 other file (model.onnx), 3 B",
        "org/model: 1 other file (mmproj-F16.gguf), 32.0 MiB",
        "org/other: 2 other files (config.json, pytorch_model.bin), 7 B",
    ]
