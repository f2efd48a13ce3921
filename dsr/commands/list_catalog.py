"""The catalogue as `dsr list --catalog` shows it: family by family, then one suggestion for this machine."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dsr.models.catalog import CatalogEntry, load, parameter_count

if TYPE_CHECKING:
    from dsr.plan.runnable import RunnableModel
    from dsr.ui.console import Console
    from runtime.machine.machine import Machine

_INDENT = "    "
_RELEASED, _CONTEXT = "RELEASED", "CONTEXT"
_HEADER = ("NAME", "PARAMS", "SIZE", "MEMORY", "TOKENS/S", "FITS", "THINKS", _CONTEXT, _RELEASED, "LICENCE")
_FITS_HEADER = ("NAME", "PARAMS", "THINKS", "QUANT", "MEMORY", "TOKENS/S")
_RIGHT = {"PARAMS", _CONTEXT, "SIZE", "MEMORY", "TOKENS/S"}
# On a narrow terminal, in this order.
_LEFT_OUT = (_CONTEXT, "QUANT", "LICENCE", _RELEASED, "THINKS", "PARAMS", "MEMORY", "SIZE")
_THINKS = {"always": "always", "optional": "optional", "none": "no"}
_NEW = "*"


def show_catalog(console: Console, *, fits: bool, family: str | None, thinks: bool) -> None:
    """Show the models of the catalogue that pass all filters. Raises UsageError for an unknown family."""
    catalog = load()
    entries = catalog.of_family(family) if family is not None else catalog.entries
    entries = tuple(each for each in entries if not thinks or each.thinking != "none")
    rows: Mapping[str, RunnableModel] = {}
    suggested = larger = None
    if fits or not console.quiet:
        from dsr.plan.recommended import choose
        from dsr.plan.suggest import disk_suggestion, machine_for_suggestions, recent_thinkers, suggestion
        from dsr.ui.progress import showing

        with showing(console) as listen:
            machine = machine_for_suggestions(listen)
        among = recent_thinkers(catalog) if family is None else entries
        if machine is not None:
            suggested = choose(machine) if family is None else suggestion(among, machine)
        larger = disk_suggestion(among, machine) if machine and sys.platform.startswith("linux") else None
        rows = _runnable(entries, machine)
        if fits:
            entries = tuple(each for each in entries if _fits(rows.get(each.name)) == "yes")
    new = set(catalog.newest)
    console.json(
        "dsr.list.catalog/1",
        {
            "suggestion": _prediction(suggested),
            "from_disk_suggestion": _prediction(larger),
            "models": [_as_json(each, each in new, rows.get(each.name)) for each in entries],
        },
    )
    if not console.human:
        for each in entries:
            console.data(each.name)
        return
    group = "catalogue" if family is None else f"family {family}"
    from dsr.plan.report import figure

    if not entries and not fits:
        console.say(f"no model of the {group} thinks")
        return
    if entries:
        _show_table(console, entries, new, rows, _FITS_HEADER if fits else _HEADER)
        console.say(_legend(entries, new, fits=fits))
    elif suggested is not None:
        console.say("all models of this list are slower than people read; to see them, leave out --fits")
    if larger is not None:
        speed = f"about {figure(larger.tokens_per_second)} tokens/s, estimated"
        console.say(f"larger than memory: dsr plan {larger.name} ({larger.quant} from disk, {speed})", style="plain")
    _say_suggestion(console, suggested, group)


def _runnable(entries: Iterable[CatalogEntry], machine: Machine | None) -> dict[str, RunnableModel]:
    """The models that fit at their usual quantization, by name."""
    from dsr.loading.options import LoadOptions
    from dsr.plan.runnable import runnable_entry

    if machine is None:
        return {}
    most = machine.usable().memory_free * 2  # parameters: no usual quantization has less than 4 bits for each
    small = (each for each in entries if each.parameters <= most)
    found = (runnable_entry(each, machine, LoadOptions(), smaller=False) for each in small)
    return {row.name: row for row in found if row is not None}


def _fits(row: RunnableModel | None) -> str:
    """Whether a model fits: yes, or slow (slower than people read), or no."""
    from dsr.plan.runnable import COMFORTABLE

    return "no" if row is None else "yes" if row.tokens_per_second >= COMFORTABLE else "slow"


def _say_suggestion(console: Console, row: RunnableModel | None, group: str) -> None:
    from dsr.plan.recommended import pull_line

    if row is None:
        console.say(f"no model of the {group} fits this machine", style="plain")
        return
    console.say(f"for this machine: {pull_line(row)}", style="bold")


def _show_table(
    console: Console,
    entries: Sequence[CatalogEntry],
    new: set[CatalogEntry],
    rows: Mapping[str, RunnableModel],
    header: tuple[str, ...],
) -> None:
    """A table with the families apart. A narrow terminal gets fewer columns, a pipe gets lines of one kind only."""
    from dsr.ui.text import align, display_width

    cells = [_cells(each, new, rows.get(each.name)) for each in entries]
    terminal = sys.stdout.isatty()
    columns = shutil.get_terminal_size().columns

    def lines() -> list[str]:
        right = [number for number, name in enumerate(header) if name in _RIGHT]
        return align([header, *([row[name] for name in header] for row in cells)], right)

    for name in _LEFT_OUT:
        if terminal and max(map(display_width, lines())) > columns:
            header = tuple(each for each in header if each != name)
    first, *rest = lines()
    console.data(first, style="bold")
    family = ""
    for entry, line in zip(entries, rest, strict=True):
        if terminal and entry.family != family:
            family = entry.family
            console.data(family, style="cyan")
        console.data(line)
        if entry.distill:
            console.data(f"{_INDENT}a distill of {entry.base}", style="dim")


def _cells(entry: CatalogEntry, new: set[CatalogEntry], row: RunnableModel | None) -> dict[str, str]:
    """The cells of a line by their column. Size, memory and speed are those of the usual quantization."""
    from dsr.plan.estimate import estimated_card, quants_to_try
    from dsr.plan.report import figure

    parameters = parameter_count(entry.parameters)
    if entry.active_parameters != entry.parameters:
        parameters += f"-A{parameter_count(entry.active_parameters)}"
    usual = quants_to_try(entry)[0]
    return {
        "NAME": entry.name,
        "PARAMS": parameters,
        "THINKS": f"{entry.effort[0]}-{entry.effort[-1]}" if entry.effort else _THINKS[entry.thinking],
        "QUANT": row.quant if row else usual,
        "SIZE": f"~{estimated_card(entry, usual).weights_size}",
        "MEMORY": f"~{row.memory}" if row else "-",
        "TOKENS/S": f"~{figure(row.tokens_per_second)}" if row else "-",
        "FITS": _fits(row),
        _CONTEXT: _length(entry.reach),
        _RELEASED: (entry.released or "-") + (_NEW if entry in new else ""),
        "LICENCE": entry.licence,
    }


def _length(tokens: int | None) -> str:
    """131072 -> '128K', 1048576 -> '1M', 128000 -> '128K'; others are rounded down."""
    if tokens is None:
        return "-"
    unit = 1000 if tokens % 1000 == 0 else 1024
    return f"{tokens // unit**2}M" if tokens >= unit**2 else f"{tokens // unit}K"


def _legend(entries: Sequence[CatalogEntry], new: set[CatalogEntry], *, fits: bool) -> str:
    from dsr.plan.report import RUNNABLE_LEGEND

    parts = [f"{_NEW} new"] if not fits and new.intersection(entries) else []
    parts += [f"size, memory and speed are estimates at the usual quantization, {RUNNABLE_LEGEND.split(';')[0]}"]
    return "; ".join([*parts, "to get one: dsr pull NAME; any org/repo of the Hugging Face hub works too"])


def _as_json(entry: CatalogEntry, new: bool, row: RunnableModel | None) -> dict[str, Any]:
    facts = asdict(entry)
    del facts["shape"]  # `dsr plan` says what follows from it
    return {
        **facts,
        "description": entry.describe(),
        "reach": entry.reach,
        "new": new,
        "fits": _prediction(row),
        "source": dict(entry.source),
    }


def _prediction(row: RunnableModel | None) -> dict[str, Any] | None:
    """The prediction at the usual quantization; other quantizations were not tried."""
    if row is None:
        return None
    return {key: value for key, value in row.json().items() if key != "larger_quants"}
