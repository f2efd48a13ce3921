"""`dsr list`: the models on this machine, or with --catalog the models that dsr knows by name."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dsr.options import JsonOpt, QuietOpt

if TYPE_CHECKING:
    from dsr.models.model import Model
    from dsr.ui.console import Console

NANO_PARAMETERS = 12_239_152
_INDENT = "    "


def list_models(
    catalog: Annotated[bool, typer.Option("--catalog", help="List the models that dsr knows by name instead.")] = False,
    fits: Annotated[
        bool, typer.Option("--fits", help="Of the catalogue, the models that fit this machine at a usable speed.")
    ] = False,
    family: Annotated[
        str | None,
        typer.Option(
            "--family",
            metavar="NAME",
            help="Of the catalogue, the models of one family, or of all whose names begin with NAME.",
        ),
    ] = None,
    program: Annotated[
        str | None,
        typer.Option("--from", metavar="ollama|lmstudio", help="List the models of another program instead."),
    ] = None,
    thinks: Annotated[bool, typer.Option("--thinks", help="Of the catalogue, the models that think.")] = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """List the models on this machine: name, size, quantization and true origin.

    --fits, --family and --thinks choose from the catalogue.

    dsr list --catalog

    dsr list --fits --thinks
    """
    from dsr.ui.console import Console

    console = Console(json_mode=json, quiet=quiet)
    if program is not None:
        from dsr.commands.list_from import show_from

        show_from(program, console)
    elif catalog or fits or family is not None or thinks:
        from dsr.commands.list_catalog import show_catalog

        show_catalog(console, fits=fits, family=family, thinks=thinks)
    else:
        _show_local(console)


def _show_local(console: Console) -> None:
    from dsr.models import library
    from dsr.ui.console import printable
    from runtime.base.types import ByteCount

    models, incomplete, others = library.installed(), library.incomplete(), library.other_files()
    faults = {model.path: library.fault(model) for model in models}
    total = ByteCount(sum(model.size for model in models if not model.embedded))
    console.json(
        "dsr.list/1",
        {
            "cache": str(library.hub_cache_folder()),
            "models": [{**_as_json(model), "problem": faults[model.path]} for model in models],
            "incomplete": [_as_json(model) for model in incomplete],
            "others": [{"repo": each.repo, "files": list(each.files), "size": int(each.size)} for each in others],
        },
    )
    if not console.human:
        for model in models:
            if model.kind == "gguf" and not faults[model.path]:
                console.data(model.reference)
        return
    _table(
        console,
        ("NAME", "QUANT", "SIZE", "PARAMS", "WHAT IT IS"),
        [(_name(m), m.quant or "-", str(m.size), _parameters(m), faults[m.path] or _meaning(m)) for m in models],
        right=(2, 3),
    )
    for model in incomplete:
        console.say(printable(f"incomplete: {model.reference}, {model.size} on disk, {model.problem}"), style="yellow")
    for each in others:
        console.say(printable(f"not listed above: {each.describe()}"), style="yellow")
    if incomplete:
        console.say("to resume a download: dsr pull MODEL; to delete it: dsr rm MODEL")
    if len(models) > 1:
        console.say(f"{total} in {library.hub_cache_folder()}")
    else:
        from dsr.plan.recommended import kept

        if (pull := kept()) is not None:
            console.say(f"for this machine: {pull}")
        console.say("more models: dsr list --fits")


def _name(model: Model) -> str:
    """The reference without the quantization, which has its own column."""
    return model.reference.removesuffix(f":{model.quant}")


def _meaning(model: Model) -> str:
    if model.embedded:
        return model.name.removeprefix("nano (").removesuffix(")")
    if model.kind == "safetensors":
        what = f"{model.entry.describe()}: " if model.entry else ""
        return f"{what}original weights; to make a GGUF file: dsr quantize"
    return model.entry.describe() if model.entry else "not in the catalogue"


def _parameters(model: Model) -> str:
    from dsr.models.catalog import parameter_count

    count = _counts(model)["parameters"]
    return parameter_count(count) if count else "-"


def _counts(model: Model) -> dict[str, int | None]:
    """Parameters, all and active, where the catalogue knows them."""
    if model.embedded:
        return {"parameters": NANO_PARAMETERS, "active_parameters": None}
    entry = model.entry
    return {
        "parameters": entry.parameters if entry else None,
        "active_parameters": entry.active_parameters if entry else None,
    }


def _as_json(model: Model) -> dict[str, Any]:
    return {
        "reference": model.reference,
        "name": model.name,
        "kind": model.kind,
        "quant": model.quant,
        "size": int(model.size),
        **_counts(model),
        "base": model.entry.base if model.entry else None,
        "distill": model.entry.distill if model.entry else None,
        "licence": model.entry.licence if model.entry else None,
        "repo": model.repo,
        "revision": model.revision,
        "path": str(model.path),
        "files": [str(file) for file in model.files],
        "digests": list(model.digests),
        "embedded": model.embedded,
        "problem": model.problem,
    }


def _table(
    console: Console, header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()
) -> None:
    """A table. On a terminal too narrow for it, the last cell of each row stands below the row."""
    from dsr.ui.console import printable
    from dsr.ui.text import align, display_width, wrap_words

    rows = [header, *([printable(cell) for cell in row] for row in rows)]
    columns = shutil.get_terminal_size().columns
    if not sys.stdout.isatty() or max(map(display_width, align(rows, right))) <= columns:
        console.table(header, rows[1:], right=right)
        return
    for number, line in enumerate(align([row[:-1] for row in rows], right)):
        console.data(line, style="plain" if number else "bold")
        if number:
            for text in wrap_words(rows[number][-1], columns - len(_INDENT)):
                console.data(_INDENT + text, style="dim")
