from __future__ import annotations

import pytest
from typer.testing import CliRunner

from dsr import cli
from dsr.plan import recommended
from dsr.plan.suggest import suggestion
from dsr.ui.console import Console
from runtime.base.events import ignore
from runtime.machine.machine import Machine
from tests.dsr.plan.planning import GIB, a_machine, cpu


@pytest.fixture
def laptop(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with 16 GiB, as measured."""
    found = a_machine(cpu(16 * GIB, 30e9))
    monkeypatch.setattr("dsr.plan.suggest.machine_for_suggestions", lambda listen: found)
    return found


def test_nothing_is_recommended_before_the_machine_is_measured() -> None:
    assert recommended.kept() is None
    assert "dsr pull NAME" in CliRunner().invoke(cli.app, []).stdout


def test_the_first_screen_the_list_and_the_catalogue_name_one_model(laptop: Machine) -> None:
    line = recommended.measured(ignore)
    assert line is not None
    command, _, figures = line.partition(" (")
    assert figures.startswith("~")
    assert figures.endswith(" tokens/s)")
    for arguments in (["list"], ["list", "--catalog"], ["list", "--fits"]):
        assert f"for this machine: {line}" in CliRunner().invoke(cli.app, arguments).stderr
    assert f"  {command} " in CliRunner().invoke(cli.app, []).stdout


def test_the_kept_model_is_the_one_that_is_suggested(laptop: Machine) -> None:
    from dsr.models.catalog import load
    from dsr.plan.suggest import recent_thinkers

    row = suggestion(recent_thinkers(load()), laptop)
    assert row is not None
    assert recommended.choose(laptop) == row
    assert recommended.kept() == recommended.pull_line(row)
    assert recommended.pull_line(row).startswith(f"dsr pull {row.name} (")


def test_where_no_model_fits_nothing_is_kept() -> None:
    assert recommended.choose(a_machine(cpu(10**6))) is None
    assert recommended.kept() is None


def test_a_plan_of_a_model_that_is_not_here_ends_with_its_download(
    laptop: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("dsr.loading.machine.measure_this_machine", lambda *_, **__: laptop)
    result = CliRunner().invoke(cli.app, ["plan", "qwen3:8b"])
    assert result.exit_code == 0
    assert result.stderr.splitlines()[-1] == "next: dsr pull qwen3:8b:Q4_K_M"
    assert "next:" not in CliRunner().invoke(cli.app, ["plan", "nano"]).stderr


def test_the_machine_is_measured_behind_the_first_answer_and_for_a_person_only(
    laptop: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = ["chat", "--threads", "1", "--temp", "0", "--thinking", "hide", "What is 3 + 4?"]
    assert "for this machine" not in CliRunner().invoke(cli.app, ask).stderr
    assert recommended.kept() is None
    monkeypatch.setattr(Console, "live", True)
    first = CliRunner().invoke(cli.app, ask)
    assert "For a real model: dsr list --fits\n" in first.stderr
    assert first.stderr.rstrip().endswith(f"for this machine: {recommended.kept()}")
    again = CliRunner().invoke(cli.app, ask)
    assert f"For a real model: {recommended.kept()}\n" in again.stderr
    assert "for this machine" not in again.stderr
