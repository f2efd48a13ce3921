"""`dsr rm`: delete a model from the cache."""

from __future__ import annotations

from typing import Annotated

import typer

from dsr.options import JsonOpt, ModelArg, QuietOpt, YesOpt


def rm(
    model: ModelArg,
    yes: YesOpt = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show which files would be deleted, delete nothing.")
    ] = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Delete a model from the cache. Asks first and shows the space it frees."""
    from dsr.models import library
    from dsr.ui.console import Console, printable
    from runtime.base.errors import Aborted

    console = Console(json_mode=json, quiet=quiet)
    plan = library.plan_removal(library.find_to_remove(model))
    found = plan.model
    if dry_run:
        for path in plan.paths:
            console.data(printable(str(path)))
        console.say(f"this would free {plan.freed}")
    elif console.confirm(printable(f"Delete {found.name} and free {plan.freed}?"), yes=yes):
        library.remove(found)
        console.say(f"freed {plan.freed}")
    else:
        console.say("nothing was deleted")
        raise typer.Exit(Aborted.exit_code)
    console.json(
        "dsr.rm/1",
        {
            "reference": found.reference,
            "name": found.name,
            "deleted": not dry_run,
            "freed": int(plan.freed),
            "files": [str(path) for path in plan.paths],
        },
    )
