"""`dsr doctor`: checks this machine and this installation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dsr.options import JsonOpt, QuietOpt

if TYPE_CHECKING:
    from dsr.doctor.doctor import Status
    from dsr.ui.console import Style
    from runtime.base.events import Listener
    from runtime.llama import EngineInfo
    from runtime.machine.machine import Machine


def doctor(
    again: Annotated[
        bool, typer.Option("--probe", help="Measure the speeds again. Default: use stored measurements.")
    ] = False,
    json_output: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Check this machine and installation, measure speeds, and show which models fit.

    The exit code is 1 if a check fails.

    Try it:  dsr doctor

    dsr doctor --json > box.json
    """
    from dsr import __version__
    from dsr.doctor.doctor import SPEEDS_HEADER, describe_predictions, diagnose, find_places, speeds
    from dsr.models.catalog import load
    from dsr.models.library import hub_cache_folder
    from dsr.store import predictions
    from dsr.store.paths import conversations_file, predictions_file
    from dsr.ui.console import Console, printable
    from dsr.ui.fields import labelled, terminal_columns
    from dsr.ui.progress import showing
    from runtime.machine.host import probe

    console = Console(json_mode=json_output, quiet=quiet)
    cache = hub_cache_folder()
    host = probe(cache)
    with showing(console) as listen:
        machine = _machine(listen, again)
    places = find_places(cache, conversations_file().parent)
    predicted = describe_predictions(predictions.load(predictions_file()), machine)
    found = diagnose(host, _engine(), places, load().entries, __version__, machine, predicted)
    styles: dict[Status, Style] = {"ok": "plain", "note": "yellow", "problem": "red"}
    columns = terminal_columns()
    width = max(len(each.name) for each in found)
    for each in found:
        for line in labelled((each.name, each.status), printable(each.value), (width, 7), columns):
            console.data(line, style=styles[each.status])
        for line in labelled(("", ""), printable(each.hint), (width, 7), columns) if each.hint else ():
            console.data(line, style="dim")
    if machine is not None:
        console.data("")
        console.data("weights computed per second on the CPU, by type and by tokens in a step", style="dim")
        console.table(SPEEDS_HEADER, speeds(machine), right=(1, 2, 3))
    console.json(
        "dsr.doctor/1",
        {
            "healthy": not any(each.status == "problem" for each in found),
            "findings": [
                {"name": each.name, "status": each.status, "value": each.value, "hint": each.hint} for each in found
            ],
            "machine": {
                "cpu": host.cpu,
                "cores": host.cores,
                "threads": host.threads,
                "features": list(host.features),
                "memory_total": int(host.memory_total),
                "memory_available": int(host.memory_available),
                "disk_free": int(host.disk_free),
            },
            "site": machine.to_json() if machine is not None else None,
        },
    )
    if any(each.status == "problem" for each in found):
        raise typer.Exit(1)


def _machine(listen: Listener, again: bool) -> Machine | None:
    """This machine with its speeds; None if the engine cannot measure them."""
    from dsr.loading.machine import measure_this_machine
    from runtime.base.errors import DsrError

    try:
        return measure_this_machine(listen=listen, again=again)
    except (ImportError, OSError, RuntimeError, AttributeError, DsrError):
        return None


def _engine() -> EngineInfo | str:
    """What the engine reports about itself, or the reason why it cannot be loaded."""
    from runtime.base.errors import DsrError

    try:
        from runtime.llama import engine_info

        return engine_info()
    except (ImportError, OSError, RuntimeError, AttributeError, DsrError) as error:
        return f"cannot be loaded: {error}"
