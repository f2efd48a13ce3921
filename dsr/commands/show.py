"""`dsr show`: shows the content of a model on this machine and the memory it needs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from dsr.options import JsonOpt, ModelArg, QuietOpt

if TYPE_CHECKING:
    from dsr.models.model import Model
    from dsr.ui.console import Console


def show(
    model: ModelArg,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor: name, type, shape and size.")] = False,
    metadata: Annotated[bool, typer.Option("--metadata", help="List the metadata of the file.")] = False,
    template: Annotated[bool, typer.Option("--template", help="Print the chat template.")] = False,
    json_output: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Show a model's size, tensor types, context, memory need and origin.

    dsr show nano

    dsr show nano --tensors

    dsr show nano --template > template.jinja
    """
    from dsr.models.library import find
    from dsr.ui.console import Console
    from runtime.base.errors import UsageError

    if (tensors, metadata, template).count(True) > 1:
        raise UsageError("--tensors, --metadata and --template exclude one another", hint="give one of them")
    console = Console(json_mode=json_output, quiet=quiet)
    found = find(model)
    if tensors:
        _show_tensors(found, console)
    elif metadata:
        _show_metadata(found, console)
    elif template:
        _show_template(found, console)
    else:
        _show_facts(found, console)


def _show_facts(model: Model, console: Console) -> None:
    from dsr.models.description import describe, describe_types, facts, short_number
    from dsr.ui.console import printable
    from dsr.ui.fields import labelled, terminal_columns
    from runtime.machine.host import probe
    from runtime.machine.machine import usable

    result = describe(model, model.card, usable(probe(model.path.parent).memory_available))
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


def _show_tensors(model: Model, console: Console) -> None:
    from dsr.models.file_contents import TENSOR_HEADER, tensor_rows, tensors_json
    from dsr.ui.console import printable

    card = model.card
    console.table(TENSOR_HEADER, tensor_rows(card), right=(3,))
    if console.quiet:
        for tensor in card.tensors:
            console.data(printable(tensor.name))
    console.json("dsr.show.tensors/1", {"reference": model.reference, "tensors": tensors_json(card)})


def _show_metadata(model: Model, console: Console) -> None:
    from dsr.models.file_contents import METADATA_HEADER, metadata_json, metadata_rows

    card = model.card
    rows = metadata_rows(card)
    console.table(METADATA_HEADER, rows)
    if console.quiet:
        for key, _ in rows:
            console.data(key)
    console.json("dsr.show.metadata/1", {"reference": model.reference, "metadata": metadata_json(card)})


def _show_template(model: Model, console: Console) -> None:
    from dsr.models.file_contents import template_of_file
    from dsr.ui.console import is_terminal, printable

    text = template_of_file(model.card)
    console.data(printable(text) if is_terminal(sys.stdout) else text)  # a pipe gets the template as it is
    console.json("dsr.show.template/1", {"reference": model.reference, "template": text})
