"""`dsr pull`: downloads a model from the hub into the Hugging Face cache."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated

import typer

from dsr.options import JsonlOpt, JsonOpt, QuietOpt
from dsr.ui.console import Console, printable

if TYPE_CHECKING:
    from dsr.hub.pull import PullPlan, PullRequest
    from dsr.models.gguf_names import QuantChoice
    from dsr.models.references import Reference
    from runtime.base.events import Listener
    from runtime.gguf.card import ModelCard
    from runtime.machine.machine import Machine


def pull(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Short name (deepseek-r1:7b), org/repo[:quant] or hf.co/org/repo.")
    ],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit of the repository.")] = "main",
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB", help="Download files that match, such as *.json; with a quant, in addition. Repeatable."
        ),
    ] = None,
    original: Annotated[
        bool, typer.Option("--original", help="Download the original weights (safetensors) instead of GGUF.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show files, sizes and free space; download nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Download even what is too large or cannot run here.")] = False,
    json_output: JsonOpt = False,
    jsonl: JsonlOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Download a model and verify every file. An interrupted pull resumes.

    If a name means several models, dsr takes the strongest one that suits this machine. If you name no quantization,
    dsr takes one that suits it too.

    Try it:  dsr pull deepseek-r1:1.5b --dry-run
    """
    from dsr.hub.client import from_environment
    from dsr.hub.pull import PullRequest, check_space, download, plan
    from dsr.models.references import parse
    from dsr.ui.progress import showing

    console = Console(json_mode=json_output, quiet=quiet, jsonl=jsonl)
    reference = parse(_one_of_several(model, console))
    if reference.entry:
        console.say(f"{reference.text} = {reference.entry.describe()}")
    planned = None
    try:
        with showing(console) as listen:
            here = cache(partial(_here, listen))
            speed = partial(_speed, here)
            request = PullRequest(reference, revision, tuple(include or ()), original, force, _from_disk, speed)
            hub = from_environment(listen)
            planned = plan(request, hub, _available(request, here), listen)
            if planned.why:
                console.say(printable(planned.why))
            if dry_run:
                _show_plan(console, planned)
                return
            if not force:
                check_space(planned)
            download(planned, hub, listen)
    except KeyboardInterrupt:
        if planned is not None:
            console.say("the download so far is kept; repeat the command to resume it", style="plain")
        raise
    _show_result(console, planned, reference)


def _here(listen: Listener) -> Machine | None:
    from dsr.plan.suggest import machine_for_suggestions

    return machine_for_suggestions(listen)


def _speed(here: Callable[[], Machine | None], card: ModelCard, choice: QuantChoice, context: int) -> float:
    from dsr.plan.quant_speed import speed_on

    return speed_on(here)(card, choice, context)


def _available(request: PullRequest, here: Callable[[], Machine | None]) -> int:
    """The bytes of memory that a model may take. Only a choice of the quantization needs those of GPUs."""
    from runtime.machine.host import probe
    from runtime.machine.machine import usable

    chooses = not (request.reference.quant or request.original or request.include)
    machine = here() if chooses else None
    return machine.usable().memory_free if machine is not None else usable(probe().memory_available)


def _one_of_several(model: str, console: Console) -> str:
    """The model to pull: of several with this name, the one that suits this machine, with the reasons on stderr."""
    from dsr.models.references import sizes
    from dsr.plan.suggest import machine_for_suggestions
    from dsr.plan.which_model import which_model
    from dsr.ui.progress import showing

    entries = sizes(model)
    if not entries:
        return model
    with showing(console) as listen:
        machine = machine_for_suggestions(listen)
    if machine is None:
        return model
    chosen = which_model(model, entries, machine, from_disk=sys.platform.startswith("linux"))
    for line in (chosen.why, *chosen.others, f"to see all of them: dsr list --catalog --family {chosen.entry.family}"):
        console.say(line)
    return chosen.entry.name


def _from_disk(card: ModelCard) -> str:
    """'from the disk, about 1.2 tokens/s', for a model that does not fit; "" if it cannot run so."""
    from dsr.loading.machine import measure_this_machine
    from dsr.loading.options import LoadOptions
    from dsr.plan.decide import decide
    from dsr.plan.planned_model import PlannedModel
    from dsr.plan.report import figure
    from runtime.base.errors import DsrError

    try:
        plan = decide(
            PlannedModel("", card.name, None, card), measure_this_machine(card), LoadOptions(), system=sys.platform
        )
    except DsrError:
        return ""
    return f"from the disk, about {figure(plan.tokens_per_second)} tokens/s" if plan.from_disk else ""


def _show_plan(console: Console, plan: PullPlan) -> None:
    from dsr.hub.left_out import in_words

    console.json("dsr.pull/1", {**_facts(plan), "dry_run": True})
    console.table(
        ["file", "size", "to download"],
        [[file.path, str(file.size), str(file.missing) if file.missing else "in cache"] for file in plan.files],
        right=[1, 2],
    )
    if not console.human:
        for file in plan.files:
            console.data(printable(file.path))
        return
    console.summary(f"total {plan.size}, to download {plan.missing}; free on this disk {plan.free}")
    console.data(f"folder: {plan.destination}")
    if plan.left_out:
        console.say(in_words(plan.left_out))
    if plan.shortage:
        console.warn(f"the disk has {plan.shortage} too little free space")


def _show_result(console: Console, plan: PullPlan, reference: Reference) -> None:
    console.json("dsr.pull/1", {**_facts(plan), "dry_run": False})
    name = reference.entry.describe() if reference.entry else plan.repo
    how = "verified" if plan.missing else "already in the cache"
    console.say(f"{printable(name)}: {len(plan.files)} file{'s' * (len(plan.files) > 1)}, {plan.size}, {how}")
    console.data(str(plan.main_file))
    console.say(_next_step(plan, reference), style="plain")


def _next_step(plan: PullPlan, reference: Reference) -> str:
    from dsr.models.library import find
    from dsr.models.next_step import next_command
    from runtime.base.errors import DsrError

    if plan.main_file.suffix.lower() != ".gguf":
        return f"next, to make a GGUF file for chat: dsr quantize {shlex.quote(reference.text)}"
    for name in (reference.text, str(plan.main_file)):
        try:
            if (found := find(name)).path == plan.main_file:
                return f"next: {next_command(found, name)}"
        except DsrError:  # only one part of a split model was pulled
            continue
    return "other parts of the model are not on this machine yet"


def _facts(plan: PullPlan) -> dict[str, object]:
    return {
        "repo": plan.repo,
        "revision": plan.revision,
        "commit": plan.commit,
        "quant": plan.quant,
        "why": plan.why,
        "path": str(plan.main_file),
        "destination": str(plan.destination),
        "size": int(plan.size),
        "to_fetch": int(plan.missing),
        "free": int(plan.free),
        "files": [
            {"path": f.path, "size": int(f.size), "to_fetch": int(f.missing), "digest": f.digest} for f in plan.files
        ],
        "left_out": [kind.json() for kind in plan.left_out],
    }
