"""`dsr plan`: predicts where the layers of a model go and how fast it runs, or lists the models that would run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsr.options import FromDiskOpt, JsonOpt, KvFullOpt, QuietOpt, RopeOpt

if TYPE_CHECKING:
    from dsr.loading.options import LoadOptions
    from dsr.plan.decide import Plan
    from dsr.plan.runnable import RunnableModel
    from dsr.ui.console import Console
    from runtime.base.events import Listener
    from runtime.machine.machine import Machine


def plan(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="Short name, org/repo[:quant] or path. Default: all known models that would run."
        ),
    ] = None,
    ctx_size: Annotated[
        int | None,
        typer.Option(
            "--ctx-size", "-c", min=1, metavar="N", help="Context size in tokens. Default: the same as dsr chat."
        ),
    ] = None,
    rope: RopeOpt = None,
    votes: Annotated[
        int, typer.Option("--vote", min=1, max=255, metavar="N", help="Answers generated in parallel.")
    ] = 1,
    kv_type: Annotated[
        str,
        typer.Option("--kv-type", metavar="TYPE", help="Type of the KV cache: f16, q8_0, q4_0, ..., or k=q8_0,v=q4_0."),
    ] = "f16",
    kv_full: KvFullOpt = False,
    from_disk: FromDiskOpt = "auto",
    machine_file: Annotated[
        Path | None,
        typer.Option(
            "--machine", metavar="FILE", help="Plan for another machine: a file written by dsr doctor --json."
        ),
    ] = None,
    nodes: Annotated[
        str | None,
        typer.Option("--nodes", metavar="LIST|FILE", help="Include these machines: host[:port],... or a nodes.toml."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--probe", help="Measure this machine again. Default: use stored measurements.")
    ] = False,
    json_output: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Predict whether a model fits, where its layers go, and how fast it runs.

    Nothing is downloaded. Without a model, dsr lists all models that would run. The exit code is 5 if the model does
    not fit.

    dsr plan nano

    dsr plan deepseek-r1:7b --vote 8

    dsr plan deepseek-r1:671b --machine workstation.json
    """
    from dsr.loading.machine import measure_this_machine, read_machine
    from dsr.loading.options import LoadOptions, rope_request
    from dsr.plan.nodes import add_nodes
    from dsr.store import paths, settings
    from dsr.ui.console import Console
    from dsr.ui.progress import showing
    from runtime.gguf.kv_types import kv_types

    console = Console(json_mode=json_output, quiet=quiet)
    kv_types(kv_type)
    usual = None if machine_file else settings.load(paths.config_file()).ctx_size
    options = LoadOptions(
        ctx_size, kv_type, kv_full=kv_full, usual_context=usual, rope=rope_request(rope), from_disk=from_disk
    )
    options = options.for_samples(votes)
    with showing(console) as listen:
        if model is None:
            from dsr.loading.predict import past_correction
            from dsr.plan.decide import speed_notes
            from dsr.plan.runnable import runnable_models
            from dsr.store.paths import predictions_file
            from dsr.store.predictions import load

            machine = read_machine(machine_file) if machine_file else measure_this_machine(listen=listen, again=again)
            machine = add_nodes(machine, nodes) if nodes is not None else machine
            past = load(predictions_file())
            on_this_machine, catalogue = runnable_models(machine, options, past=past)
            notes = speed_notes(machine, past_correction(machine, past))
            suggested = _suggested(machine, here=machine_file is None and nodes is None)
        else:
            decided = _decided(model, machine_file, nodes, options, console, listen, again=again)
    if model is None:
        _show_runnable(console, machine, on_this_machine, catalogue, notes, suggested)
    else:
        _show(console, decided, pulls=machine_file is None)


def _suggested(machine: Machine, *, here: bool) -> RunnableModel | None:
    """The model that dsr recommends for a machine; that of `here` is kept, and named elsewhere."""
    from dsr.models.catalog import load
    from dsr.plan.recommended import choose
    from dsr.plan.suggest import recent_thinkers, suggestion

    return choose(machine) if here else suggestion(recent_thinkers(load()), machine)


def _decided(
    model: str,
    machine_file: Path | None,
    nodes: str | None,
    options: LoadOptions,
    console: Console,
    listen: Listener,
    *,
    again: bool,
) -> Plan:
    from dsr.hub.client import from_environment
    from dsr.loading.machine import measure_this_machine, read_machine
    from dsr.models.references import sizes
    from dsr.plan import planned_model
    from dsr.plan.decide import decide
    from dsr.plan.nodes import add_nodes
    from dsr.plan.quant_speed import speed_on
    from dsr.plan.suggest import machine_for_suggestions
    from dsr.plan.which_model import which_model
    from dsr.store.paths import predictions_file
    from dsr.store.predictions import load
    from runtime.base.errors import DoesNotFit
    from runtime.machine.host import probe
    from runtime.machine.machine import usable

    machine = read_machine(machine_file) if machine_file else None
    if entries := sizes(model):
        here = machine or machine_for_suggestions(listen)
        if here is not None:
            chosen = which_model(model, entries, here, from_disk=bool(machine_file) or sys.platform == "linux")
            for line in (chosen.why, *chosen.others):
                console.say(line)
            model = chosen.entry.name
    available = machine.usable().memory_free if machine else usable(probe().memory_available)
    speed = speed_on(lambda: machine or machine_for_suggestions(listen))
    found = planned_model.find_model(model, from_environment(listen), available, listen, speed)
    machine = machine or measure_this_machine(found.card, listen, again=again)
    machine = add_nodes(machine, nodes) if nodes is not None else machine
    try:
        system = "linux" if machine_file else sys.platform
        return decide(found, machine, options, past=load(predictions_file()), system=system)
    except DoesNotFit as error:
        console.json(
            "dsr.plan/1",
            {"model": found.reference, "machine": machine.name, "fits": False, "missing_bytes": error.missing,
             "reasons": [error.message], "hint": error.hint},
        )  # fmt: skip
        raise


def _show(console: Console, plan: Plan, *, pulls: bool) -> None:
    """The plan; for a model that is not on this machine with the command that downloads it, if `pulls`."""
    from dsr.plan import report
    from dsr.ui.console import printable
    from dsr.ui.fields import labelled, terminal_columns

    columns = terminal_columns()
    rows = report.facts(plan)
    width = max(len(label) for label, _ in rows)

    def show(value: str, *labels: str) -> None:
        for line in labelled(labels, printable(value), (width, 1)[: len(labels)], columns):
            console.data(line)

    for label, value in rows:
        show(value, label)
    console.data("")
    header, cells, right, names = report.table(plan, columns)
    console.table(header, cells, right=right)
    for short, name in names:
        console.data(f"{short} is {printable(name)}")
    console.data("")
    for title, lines in (("why", plan.reasons), ("or", plan.alternatives)):
        for number, line in enumerate(lines):
            show(line, "" if number else title, "-")
    show(report.command(plan), "llama.cpp")
    if pulls and plan.model.origin and not Path(plan.model.reference).is_absolute():
        console.say(f"next: dsr pull {plan.model.reference}", style="plain")
    console.json("dsr.plan/1", plan.json())


def _show_runnable(
    console: Console,
    machine: Machine,
    here: tuple[RunnableModel, ...],
    catalogue: tuple[RunnableModel, ...],
    notes: list[str],
    suggested: RunnableModel | None,
) -> None:
    from dsr.plan import report
    from dsr.plan.recommended import pull_line

    console.json(
        "dsr.plan.catalog/1",
        {
            "machine": machine.name,
            "memory_bytes": int(machine.memory_free),
            "here": [row.json() for row in here],
            "catalogue": [row.json() for row in catalogue],
            "reasons": notes,
        },
    )
    console.say(report.describe_machine(machine))
    for title, rows in (("on this machine", here), ("in the catalogue, estimated", catalogue)):
        if rows:
            console.data(title, style="bold")
            console.table(report.RUNNABLE_HEADER, [report.runnable_row(row) for row in rows], right=(2, 3))
    if console.human and not catalogue:
        console.say("no model of the catalogue fits")
    for line in notes:
        console.say(line)
    console.say(report.RUNNABLE_LEGEND)
    if suggested is not None:
        console.say(f"for this machine: {pull_line(suggested)}", style="bold")
