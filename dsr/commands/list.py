"""`dsr list`: what is on this machine, or with --catalog what could be."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dsr.options import JsonOpt, QuietOpt

if TYPE_CHECKING:
    from dsr.models.catalog import CatalogEntry
    from dsr.models.model import Model
    from dsr.ui.console import Console

NANO_PARAMETERS = 12_239_152


def list_models(
    catalog: Annotated[bool, typer.Option("--catalog", help="List the models that dsr knows by name instead.")] = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """List the models on this machine: name, size, quantization and true origin."""
    from dsr.ui.console import Console

    console = Console(json_mode=json, quiet=quiet)
    if catalog:
        _show_catalog(console)
    else:
        _show_local(console)


def _show_local(console: Console) -> None:
    from dsr.models import library
    from dsr.ui.console import printable
    from runtime.base.types import ByteCount

    models, incomplete = library.installed(), library.incomplete()
    total = ByteCount(sum(model.size for model in models if not model.embedded))
    console.json(
        "dsr.list/1",
        {
            "cache": str(library.hub_cache_folder()),
            "models": [_as_json(model) for model in models],
            "incomplete": [_as_json(model) for model in incomplete],
        },
    )
    if not console.human:
        for model in models:
            if model.kind == "gguf":
                console.data(model.reference)
        return
    _table(
        console,
        ("NAME", "QUANT", "SIZE", "PARAMS", "WHAT IT IS"),
        [(_name(m), m.quant or "-", str(m.size), _parameters(m), _meaning(m)) for m in models],
        right=(2, 3),
    )
    for model in incomplete:
        console.say(printable(f"not whole: {model.reference}, {model.size} here, {model.problem}"), style="yellow")
    if incomplete:
        console.say("dsr pull completes a download, dsr rm deletes what came of it")
    if len(models) > 1:
        console.say(f"{total} in {library.hub_cache_folder()}")
    else:
        console.say("dsr list --catalog shows what else there is; dsr pull qwen3:8b fetches one")


def _show_catalog(console: Console) -> None:
    from dsr.models import catalog

    entries = catalog.load().entries
    console.json("dsr.list-catalog/1", {"models": [_entry_as_json(entry) for entry in entries]})
    if not console.human:
        for entry in entries:
            console.data(entry.name)
        return
    _table(
        console,
        ("NAME", "LICENCE", "WHAT IT IS"),
        [(entry.name, entry.licence, entry.describe()) for entry in entries],
    )
    console.say("dsr pull NAME fetches one; any org/repo on the Hugging Face hub works too")


def _name(model: Model) -> str:
    """The reference without the quantization, which has its own column."""
    return model.reference.removesuffix(f":{model.quant}")


def _meaning(model: Model) -> str:
    if model.embedded:
        return model.name.removeprefix("nano (").removesuffix(")")
    if model.kind == "safetensors":
        what = f"{model.entry.describe()}: " if model.entry else ""
        return f"{what}original weights, for other tools: dsr chats with GGUF files only"
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


def _entry_as_json(entry: CatalogEntry) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(entry), "description": entry.describe(), "source": dict(entry.source)}


def _table(
    console: Console, header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()
) -> None:
    """A table; on a terminal too narrow for it, what is in the last column gets a line of its own below its row."""
    from dsr.ui.console import printable

    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    columns = shutil.get_terminal_size().columns
    if not sys.stdout.isatty() or sum(widths) + 2 * (len(widths) - 1) <= columns:
        console.table(header, rows, right=right)
        return
    for number, row in enumerate((header, *rows)):
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        console.data("  ".join(cells[:-1]).rstrip(), style="plain" if number else "bold")
        if number:
            text = textwrap.fill(row[-1], columns, initial_indent="    ", subsequent_indent="    ")
            console.data(text, style="dim")
