"""`dsr bench history`: saved measurements, each with the change since the one before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dsr.commands.bench.shared import show
from dsr.options import JsonOpt, QuietOpt, YesOpt

if TYPE_CHECKING:
    from dsr.store.measurement import Kind

_SCHEMA = "dsr.bench.history/1"


def history(
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="List only measurements of this model.")
    ] = None,
    test: Annotated[
        str | None, typer.Option("--test", metavar="TEST", help="List only this test, such as tg128.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--kind", metavar="KIND", help="List only one bench: speed, quality, reason or experts."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="Maximum measurements to list.")] = 20,
    delete: Annotated[
        int | None, typer.Option("--delete", min=1, metavar="ID", help="Delete this measurement; asks first.")
    ] = None,
    yes: YesOpt = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """List earlier measurements, newest first, each with the change since the one before.

    Use it to see whether an update made something slower or worse.

    dsr bench history

    dsr bench history --model nano --test tg128
    """
    from dsr.bench.history import history as service
    from dsr.store import paths
    from dsr.store.measurements import Measurements
    from dsr.ui.console import Console

    console = Console(json_mode=json, quiet=quiet)
    with Measurements(paths.measurements_file()) as store:
        if delete is not None:
            row = store.get(delete).row
            if console.confirm(f"Delete measurement {delete}, {row.test} of {row.model}?", yes=yes or json):
                store.delete(delete)
                console.say(f"deleted {delete}")
                console.json(_SCHEMA, {"deleted": delete})
            return
        every = service.entries(service.listed(store, model=model, test=test, kind=_kind(kind)))
    found = every[:limit]
    if quiet and not json:
        for entry in found:
            console.data(
                "\t".join(
                    (str(entry.stored.id), entry.stored.row.model, entry.stored.row.test, *service.measured(entry))
                )
            )
    elif not found:
        chosen = any(option is not None for option in (model, test, kind))
        console.say("no measurement matches" if chosen else "nothing was measured yet; try: dsr bench speed nano")
    else:
        show(console, service.table(found))
        if len(found) < len(every):
            console.say(f"the latest {limit} of {len(every)} measurements; see more with --limit")
    for entry in found:
        if entry.worse:
            console.warn(entry.describe())
    console.json(_SCHEMA, {"rows": [service.as_object(entry) for entry in found]})


def _kind(text: str | None) -> Kind | None:
    from typing import get_args

    from dsr.store.measurement import Kind
    from runtime.base.errors import UsageError

    known: tuple[Kind, ...] = get_args(Kind)
    for name in known:
        if name == text:
            return name
    if text is not None:
        raise UsageError(f"{text!r} is not a kind of measurement", hint=f"one of {', '.join(known)}")
    return None
