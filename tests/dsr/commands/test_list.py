from __future__ import annotations

import builtins
import json
import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dsr.cli import app
from dsr.commands import list, list_catalog
from dsr.models.catalog import load
from dsr.models.library import find
from dsr.ui.console import Console
from runtime.base.errors import UsageError
from tests.dsr.models.fake_cache import put, put_partial
from tests.dsr.plan.planning import a_machine, cpu

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
    assert result.stderr == "more models: dsr list --fits\n"


def test_each_model_is_listed_with_what_it_really_is(cache: Path) -> None:
    fill(cache)
    result = run()
    assert result.stdout.splitlines()[2:] == [
        "Qwen/Qwen3-8B   safetensors  2.00 KiB    8.2B  Qwen3-8B (8.2B parameters): original weights; "
        "to make a GGUF file: dsr quantize",
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


def test_the_catalogue_tells_size_memory_and_speed_and_is_honest_about_distills(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = a_machine(cpu(16 * 2**30))
    monkeypatch.setattr("dsr.plan.suggest.machine_for_suggestions", lambda listen: machine)
    lines = run("--catalog").stdout.splitlines()
    assert lines[0].split() == [
        "NAME", "PARAMS", "SIZE", "MEMORY", "TOKENS/S", "FITS", "THINKS", "CONTEXT", "RELEASED", "LICENCE"
    ]  # fmt: skip
    at = next(number for number, line in enumerate(lines) if line.startswith("deepseek-r1:8b"))
    assert lines[at].split()[:4] == ["deepseek-r1:8b", "8B", "~4.71", "GiB"]
    assert lines[at].split()[-7:] == ["slow", "always", "128K", "2025-01", "MIT", "+", "Llama", "3.1"][-7:]
    assert lines[at + 1] == "    a distill of Llama-3.1-8B"
    small = next(line for line in lines if line.startswith("qwen3:0.6b "))
    assert " yes " in small and "-  no " not in small
    large = next(line for line in lines if line.startswith("deepseek-r1:671b "))
    assert large.split()[4:7] == ["-", "-", "no"]


def test_the_last_line_suggests_one_model_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsr.plan.suggest.machine_for_suggestions", lambda listen: a_machine(cpu(64 * 2**30)))
    first = run("--catalog").stderr.splitlines()[-1]
    assert first.startswith("for this machine: dsr pull ")
    assert first.endswith(" tokens/s)")


def test_without_room_for_any_model_the_last_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsr.plan.suggest.machine_for_suggestions", lambda listen: a_machine(cpu(10**6)))
    assert run("--catalog").stderr.splitlines()[-1] == "no model of the catalogue fits this machine"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="models run from the disk on Linux only")
def test_a_model_that_runs_from_the_disk_is_offered_above_one_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = a_machine(cpu(64 * 2**30), disk_read=7e9)
    monkeypatch.setattr("dsr.plan.suggest.machine_for_suggestions", lambda listen: fast)
    *_, first, last = run("--family", "gpt-oss").stderr.splitlines()
    assert last.startswith("for this machine: dsr pull gpt-oss:20b ")
    assert first.startswith("larger than memory: dsr plan gpt-oss:120b (MXFP4 from disk, about ")
    value = json.loads(run("--family", "gpt-oss", "--catalog", "--json").stdout)
    assert value["from_disk_suggestion"]["from_disk"] is True
    assert value["suggestion"]["from_disk"] is False
    slow = a_machine(cpu(64 * 2**30), disk_read=1e6)
    monkeypatch.setattr("dsr.plan.suggest.machine_for_suggestions", lambda listen: slow)
    assert "larger than memory" not in run("--family", "gpt-oss").stderr


def test_new_models_are_marked() -> None:
    result = run("--catalog")
    assert any(line.startswith("qwen3.6:27b") and " 2026-04* " in line for line in result.stdout.splitlines())
    assert any(line.startswith("qwen3:8b") and " 2025-04 " in line for line in result.stdout.splitlines())
    assert "* new; size, memory and speed are estimates" in result.stderr


def test_filters_choose_from_the_catalogue() -> None:
    assert run("--family", "gpt-oss", "-q").stdout.split() == ["gpt-oss:20b", "gpt-oss:120b"]
    thinking = run("--thinks", "-q").stdout.split()
    assert {"qwen3:8b", "gemma4:e4b"} <= set(thinking) and not {"llama-3.1:8b", "gemma3:4b"} & set(thinking)
    assert len(run("--catalog", "--family", "qwen3", "--thinks", "-q").stdout.split()) == 11


def test_fits_keeps_the_models_that_run_at_a_usable_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsr.plan.suggest.machine_for_suggestions", lambda listen: a_machine(cpu(8 * 2**30)))
    value = json.loads(run("--fits", "--json").stdout)
    names = {model["names"][0] for model in value["models"]}
    assert "qwen3:4b" in names and not {"qwen3.6:27b", "deepseek-r1:671b"} & names
    assert value["suggestion"]["name"] in names
    for model in value["models"]:
        assert model["fits"]["memory_bytes"] < 8 * 2**30 and model["fits"]["tokens_per_second"] >= 5
        assert model["fits"]["estimated"] is True


def test_an_unknown_family_names_near_ones() -> None:
    with pytest.raises(UsageError, match="no family of models is called 'gemma5'") as error:
        list_catalog.show_catalog(Console(), fits=False, family="gemma5", thinks=False)
    assert error.value.hint == "did you mean gemma4, gemma3, gemma3n?"


def test_with_a_family_the_suggestion_is_one_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsr.plan.suggest.machine_for_suggestions", lambda listen: a_machine(cpu(64 * 2**30)))
    assert run("--family", "llama").stderr.splitlines()[-1].startswith("for this machine: dsr pull llama-3.")
    assert run("--family", "gpt-oss").stderr.splitlines()[-1].startswith("for this machine: dsr pull gpt-oss:20b ")
    assert run("--family", "llama", "--thinks").stderr == "no model of the family llama thinks\n"


def test_a_family_of_which_nothing_fits_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsr.plan.suggest.machine_for_suggestions", lambda listen: a_machine(cpu(8 * 2**30)))
    result = run("--family", "kimi", "--fits")
    first, second = result.stderr.splitlines()
    assert (result.stdout, second) == ("", "no model of the family kimi fits this machine")
    assert first.startswith("larger than memory: dsr plan kimi-linear:48b-a3b (Q2_K from disk, about ")


def test_a_family_whose_models_are_all_slow_says_how_to_see_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsr.plan.suggest.machine_for_suggestions", lambda listen: a_machine(cpu(64 * 2**30, 1e9)))
    result = run("--family", "gpt-oss", "--fits")
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("for this machine: dsr pull gpt-oss:20b (~")
    assert result.stderr.splitlines()[0] == (
        "all models of this list are slower than people read; to see them, leave out --fits"
    )


def test_the_catalogue_as_json_carries_sources() -> None:
    value = json.loads(run("--catalog", "--json").stdout)
    assert value["schema"] == "dsr.list.catalog/1"
    first = next(model for model in value["models"] if model["model"] == "DeepSeek-R1")
    assert (first["names"], first["parameters"]) == (["deepseek-r1:671b"], 671_000_000_000)
    assert first["source"]["base"] == "github.com/deepseek-ai/DeepSeek-R1, README.md"
    assert (first["released"], first["new"], first["reach"], first["fits"]) == ("2025-01", False, 131072, None)


def test_quiet_catalogue_prints_names_that_can_be_pulled() -> None:
    names = run("--catalog", "-q").stdout.split()
    assert names[:2] == ["qwen3.6:27b", "qwen3.6:35b-a3b"]
    assert len(names) == len(set(names)) >= 70


@pytest.mark.parametrize(("columns", "last"), [(150, "LICENCE"), (80, "FITS"), (60, "FITS"), (40, "FITS")])
def test_a_narrow_terminal_gets_fewer_columns_of_the_catalogue(
    columns: int, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((columns, 24)))
    lines: builtins.list[str] = []
    console = Console()
    monkeypatch.setattr(console, "data", lambda text, style="plain": lines.append(text))
    entries = load().entries
    list_catalog._show_table(console, entries, set(), {}, list_catalog._HEADER)
    assert lines[0].split()[-1] == last
    assert max(map(len, lines)) <= columns
    assert lines[1] == "qwen3.6" and lines[2].startswith("qwen3.6:27b ")
    assert lines.count("    a distill of Llama-3.1-8B") == 1


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
