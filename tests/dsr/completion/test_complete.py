"""What shells complete, and that it is quick enough for a key."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dsr.completion.complete import TABLE, complete, read_table
from dsr.completion.shells import SCRIPTS, answer
from tests.completion_table import text

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache with a model of the catalogue and another one, and a folder with some files."""
    for repo, names in {
        "models--unsloth--DeepSeek-R1-Distill-Qwen-1.5B-GGUF": ["DeepSeek-R1-Distill-Qwen-1.5B-Q4_K_M.gguf"],
        "models--some--Other-GGUF": ["other.Q8_0.gguf", "mmproj-F16.gguf"],
        "models--some--original": ["model.safetensors"],
    }.items():
        folder = tmp_path / "hub" / repo / "snapshots" / "abc"
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    work = tmp_path / "work"
    (work / "my folder").mkdir(parents=True)
    for name in ("model.gguf", "it's.gguf", "notes.txt", ".hidden.gguf", "tools.json"):
        (work / name).touch()
    monkeypatch.chdir(work)


def offered(line: str) -> list[str]:
    *before, last = line.split(" ")
    return list(complete([*before, last], read_table()).words)


def test_the_table_is_that_of_the_commands() -> None:
    assert Path(TABLE).read_text(encoding="utf-8") == text(), "run python tests/reference.py"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pu", ["pull"]),
        ("bench re", ["reason", "report"]),
        ("chat --strat", ["--strategy"]),
        ("chat --strategy fi", ["first-finish"]),
        ("chat nano --thinking ", ["show", "hide", "summary"]),
        ("chat --thinking=s", ["show", "summary"]),
        ("chat deep", ["deepseek-r1:1.5b"]),
        ("chat some", ["some/Other-GGUF:Q8_0"]),
        ("chat mo", ["model.gguf"]),
        ("chat qwen3:0", ["qwen3:0.6b"]),
        ("pull phi-4-reasoning", ["phi-4-reasoning:14b", "phi-4-reasoning:14b-plus", "phi-4-reasoning:4b-mini"]),
        ("chat --file n", ["notes.txt"]),
        ("chat --tools t", ["tools.json"]),
        ("chat --file m", ["model.gguf", "my folder/"]),
        ("chat --experts a", ["auto", "addsub"]),
        ("quantize nano out.gguf --recipe q4_k", ["q4_k_m", "q4_k_s"]),
        ("bench reason nano --suite gs", ["gsm8k"]),
        ("experts show nano mul", ["multiply"]),
        ("chat --temp 0", []),
        ("chat -- --th", []),
        ("nothing ", []),
    ],
)
def test_the_last_word_is_completed(line: str, words: list[str]) -> None:
    assert offered(line) == words


def test_hidden_options_are_not_offered() -> None:
    assert offered("chat --resume") == ["--resume"]


@pytest.mark.parametrize(
    ("line", "out"),
    [
        ("dsr chat deepseek-r1:1", "1.5b\n"),
        ("dsr chat --thinking=hi", "hide\n"),
        ("dsr chat --file it", "it\\'s.gguf\n"),
        ('dsr chat --file "my', "my\\ folder/\n"),
        ("dsr pull 'qwen3:0", "0.6b\n"),
    ],
)
def test_bash_gets_what_stands_behind_its_own_breaks(monkeypatch: pytest.MonkeyPatch, line: str, out: str) -> None:
    monkeypatch.setenv("_DSR_BREAKS", " \t\n\"'><=;|&(:")
    assert answer("bash", line) == out


def test_zsh_gets_code_and_fish_gets_lines_with_help() -> None:
    assert answer("zsh", "dsr\nchat\n--file\nm") == "compadd -S '' -- 'my folder/'\ncompadd -- 'model.gguf'\n"
    assert answer("zsh", "dsr\nchat\n--file\nit") == "compadd -- 'it'\\''s.gguf'\n"
    assert answer("fish", "dsr\nrm") == "rm\tDelete a model from the cache.\n"
    assert answer("fish", "dsr\nchat\n--thinking=h") == "--thinking=hide\t\n"


def test_nothing_of_the_commands_or_the_engine_is_imported() -> None:
    code = (
        "import os, sys; os.environ |= {'_DSR_COMPLETE': 'bash', '_DSR_LINE': 'dsr chat --st'}\n"
        "from dsr.__main__ import main; main()\n"
        "heavy = {'typer', 'rich', 'dataclasses', 'pathlib', 'runtime', 'quant', 'dsr.cli', 'dsr.commands', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("--stats\n--stop\n--strategy\n", "")


@pytest.mark.parametrize("shell", [name for name in SCRIPTS if shutil.which(name)])
def test_the_script_is_sound_for_its_shell(shell: str, tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text(SCRIPTS[shell], encoding="utf-8")
    done = subprocess.run([shell, "-n", str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("shell", "where"), [("bash", ".bashrc"), ("zsh", ".zshrc"), ("fish", "")])
def test_install_writes_the_script_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str, where: str
) -> None:
    from dsr.completion.install import install

    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for _ in range(2):
        said = install(shell)
    file = Path(said.partition(" is in ")[2].partition(";")[0])
    assert file.read_text(encoding="utf-8") == SCRIPTS[shell]
    if where:
        assert (tmp_path / where).read_text(encoding="utf-8").count(os.fspath(file)) == 1
