"""`dsr show`: shows the content of a model on this machine and the memory it needs."""

from __future__ import annotations

from dsr.options import JsonOpt, ModelArg, QuietOpt


def show(model: ModelArg, json_output: JsonOpt = False, quiet: QuietOpt = False) -> None:
    """Show a model's size, tensor types, context, memory need and origin.

    Try it:  dsr show nano
    """
    from dsr.models.description import describe, describe_types, facts, short_number
    from dsr.models.library import find
    from dsr.ui.console import Console, printable
    from dsr.ui.fields import labelled, terminal_columns
    from runtime.machine.host import probe
    from runtime.machine.machine import usable

    console = Console(json_mode=json_output, quiet=quiet)
    found = find(model)
    result = describe(found, found.card, usable(probe(found.path.parent).memory_available))
    rows = facts(result)
    columns = terminal_columns()
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        for line in labelled((label,), printable(value), (width,), columns):
            console.data(line)
    console.data("")
    console.table(
        ("tensors", "count", "weights", "size", "types"),
        [
            (row.role, str(row.tensors), short_number(row.parameters), str(row.size), describe_types(row))
            for row in result.roles
        ],
        right=(1, 2, 3),
    )
    console.json("dsr.show/1", result.json())
