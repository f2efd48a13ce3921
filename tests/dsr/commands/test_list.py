from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dsr.cli import app
from dsr.commands import list
from dsr.models.library import find
from dsr.ui.console import Console
from tests.dsr.models.fake_cache import put, put_partial

R1_7B = "unsloth/DeepSeek-R1-Distill-Qwen-7B-GGUF"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["list", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result


def fill(cache: Path) -> None:
    put(cache, R1_7B, "a-Q4_K_M.gguf", b"GGUF" + b"a" * (3 * 2**20 - 4))
    put(cache, "Qwen/Qwen3-8B", "model.safetensors", b"s" * 2048)
    put(cache, "org/split", "x-Q8_0-00001-of-00002.gguf", b"1")
    put_partial(cache, "org/split", b"12345")


def test_an_empty_cache_shows_the_embedded_model_and_where_to_get_more() -> None:
    result = run()
    assert result.stdout.splitlines() == [
        "NAME  QUANT      SIZE  PARAMS  WHAT IT IS",
        "nano  Q8_0   12.5 MiB   12.2M  a 12 M demonstration model: arithmetic, words, dates, simple logic",
    ]
    assert result.stderr == "more models: dsr list --catalog; to download one: dsr pull qwen3:8b\n"


def test_each_model_is_listed_with_what_it_really_is(cache: Path) -> None:
    fill(cache)
    result = run()
    assert result.stdout.splitlines()[2:] == [
        "Qwen/Qwen3-8B   safetensors  2.00 KiB    8.2B  Qwen3-8B (8.2B parameters): original weights; "
        "dsr can chat with GGUF files only",
        "deepseek-r1:7b  Q4_K_M       3.00 MiB      7B  DeepSeek-R1-Distill-Qwen-7B (a distill of Qwen2.5-Math-7B)",
    ]
    assert "incomplete: org/split:Q8_0, 1 B on disk, x-Q8_0-00002-of-00002.gguf is missing" in result.stderr
    assert "incomplete: org/split:incomplete, 5 B on disk, its download is not complete" in result.stderr
    assert f"3.00 MiB in {cache}" in result.stderr


def test_quiet_prints_only_what_chat_accepts(cache: Path) -> None:
    fill(cache)
    result = run("--quiet")
    assert result.stdout == "nano\ndeepseek-r1:7b:Q4_K_M\n"
    assert result.stderr == ""
    assert [find(line).kind for line in result.stdout.split()] == ["gguf", "gguf"]


def test_json_is_one_object_with_sizes_in_bytes(cache: Path) -> None:
    fill(cache)
    result = run("--json")
    value = json.loads(result.stdout)
    assert (value["schema"], value["cache"], result.stderr) == ("dsr.list/1", str(cache), "")
    assert [model["reference"] for model in value["models"]] == [
        "nano",
        "Qwen/Qwen3-8B:safetensors",
        "deepseek-r1:7b:Q4_K_M",
    ]
    distill = value["models"][2]
    assert (distill["size"], distill["distill"], distill["base"]) == (3 * 2**20, True, "Qwen2.5-Math-7B")
    assert (distill["parameters"], distill["quant"], len(distill["digests"])) == (7_000_000_000, "Q4_K_M", 1)
    assert [model["problem"] for model in value["incomplete"]] == [
        "x-Q8_0-00002-of-00002.gguf is missing",
        "its download is not complete",
    ]


def test_the_catalogue_is_honest_about_distills() -> None:
    lines = run("--catalog").stdout.splitlines()
    assert len(lines) == 28
    assert lines[3].split("  ")[0] == "deepseek-r1:7b"
    assert lines[3].endswith("DeepSeek-R1-Distill-Qwen-7B (a distill of Qwen2.5-Math-7B)")
    assert "MIT + Llama 3.1" in lines[4]


def test_the_catalogue_as_json_carries_sources() -> None:
    value = json.loads(run("--catalog", "--json").stdout)
    assert value["schema"] == "dsr.list-catalog/1"
    first = value["models"][0]
    assert (first["names"], first["parameters"]) == (["deepseek-r1:671b"], 671_000_000_000)
    assert first["source"]["base"] == "github.com/deepseek-ai/DeepSeek-R1, README.md"


def test_quiet_catalogue_prints_names_that_can_be_pulled() -> None:
    names = run("--catalog", "-q").stdout.split()
    assert names[:2] == ["deepseek-r1:671b", "deepseek-r1:1.5b"]
    assert len(names) == 27


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_a_narrow_terminal_gets_the_description_on_its_own_line(
    columns: int, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(cache)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((columns, 24)))
    list._show_local(Console())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "NAME            QUANT            SIZE  PARAMS"
    assert "deepseek-r1:7b  Q4_K_M       3.00 MiB      7B" in lines
    described = [line for line in lines if line.startswith("    ")]
    assert all(len(line) <= columns or " " not in line.strip() for line in described)
    if columns == 80:
        assert described[-1] == "    DeepSeek-R1-Distill-Qwen-7B (a distill of Qwen2.5-Math-7B)"


def test_nothing_is_passed_over_in_silence(cache: Path) -> None:
    put(cache, "org/repo", "m-IQ4_K.gguf", b"GGUF" + bytes(100))
    put(cache, "org/repo", "m-Q4_0.gguf", b"<html>")
    put(cache, "org/torch", "pytorch_model.bin", b"12345")
    result = run()
    assert "quantized for ik_llama.cpp, which the engine of dsr cannot read" in result.stdout
    assert "a web page, not a GGUF file" in result.stdout
    assert "not listed above: org/torch: 1 other file (pytorch_model.bin), 5 B" in result.stderr
    assert run("--quiet").stdout == "nano\n"
    value = json.loads(run("--json").stdout)
    assert [model["problem"] for model in value["models"]] == [
        None,
        "quantized for ik_llama.cpp, which the engine of dsr cannot read",
        "a web page, not a GGUF file",
    ]
    assert value["others"] == [{"repo": "org/torch", "files": ["pytorch_model.bin"], "size": 5}]
