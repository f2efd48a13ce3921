"""What dsr is installed from: bounds, the lock, and what is never imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
RUNTIME = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
DEVELOPER = [Requirement(line) for line in PROJECT["dependency-groups"]["dev"]]


def locked(name: str) -> dict[str, list[str]]:
    """Versions by package."""
    versions: dict[str, list[str]] = {}
    for package, version in re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", (ROOT / name).read_text(encoding="utf-8"), re.M):
        versions.setdefault(package, []).append(version)
    return versions


@pytest.mark.parametrize("requirement", [*RUNTIME, *DEVELOPER], ids=str)
def test_every_dependency_has_an_upper_bound(requirement: Requirement) -> None:
    assert {"<", "=="} & {bound.operator for bound in requirement.specifier}


@pytest.mark.parametrize(
    ("file", "requirements"), [("requirements.txt", RUNTIME), ("requirements-dev.txt", DEVELOPER)], ids=["run", "dev"]
)
def test_the_lock_agrees_with_the_bounds(file: str, requirements: list[Requirement]) -> None:
    versions = locked(file)
    for requirement in requirements:
        chosen = versions[canonicalize_name(requirement.name)]
        assert all(version in requirement.specifier for version in chosen), f"run make lock: {requirement}, {chosen}"


def test_both_locks_choose_the_same_releases() -> None:
    run, developer = locked("requirements.txt"), locked("requirements-dev.txt")
    assert all(run[name] == developer[name] for name in run.keys() & developer.keys())


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_everything_in_the_lock_has_hashes(file: str) -> None:
    entries = re.split(r"^(?=[a-z])", (ROOT / file).read_text(encoding="utf-8"), flags=re.M)[1:]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_package_around_the_bindings_is_never_imported(tmp_path: Path) -> None:
    """It imports diskcache, which unpickles what it finds in its folder."""
    script = (
        "import sys\n"
        "from dsr.cli import main\n"
        "try: main()\n"
        "finally:\n"
        "    loaded = {'llama_cpp', 'llama_cpp.llama_cpp', 'llama_cpp.llama', 'diskcache'} & set(sys.modules)\n"
        "    assert loaded == {'llama_cpp.llama_cpp'}, loaded\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "chat", "-n", "2", "-t", "1", "--no-log", "nano", "-q", "What is 3 + 4?"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        env={**os.environ, "DSR_HOME": str(tmp_path)},
    )
    assert done.returncode == 1, done.stderr  # two tokens of thought are no answer
