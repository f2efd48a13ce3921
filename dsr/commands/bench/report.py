"""`dsr bench report`: all measurements on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsr.options import JsonOpt, QuietOpt

_PAGE = Path("dsr-report.html")


def report(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", show_default=False, help="Measured models to show. Default: all."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", show_default=False, help=f"File for the page. Default: {_PAGE}."),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(
            "--markdown", metavar="FILE", help="Also write Markdown, with its pictures as .svg files next to it."
        ),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Write one page with all measurements: table, charts, machine, and commands that repeat them.

    The page shows the newest measurement of each file and test. It needs no network.

    dsr bench report --open

    dsr bench report nano --out nano.html --markdown nano.md
    """
    from dsr.bench.report import write
    from dsr.bench.report.report import build_report
    from dsr.store import paths, predictions
    from dsr.store.measurements import Measurements
    from dsr.ui.console import Console

    console = Console(json_mode=json, quiet=quiet)
    with Measurements(paths.measurements_file()) as store:
        rows = [stored.row for stored in store.newest()]
    made = build_report(rows, predictions.load(paths.predictions_file()), models or ())
    page = out or (_PAGE if markdown is None or open_page else None)
    written = write.write(made, page, markdown)
    for warning in made.warnings:
        console.warn(warning)
    for path in written:
        console.data(str(path))
    if open_page and page is not None:
        import webbrowser

        if not webbrowser.open(page.absolute().as_uri()):
            console.warn(f"found no browser; open {page} yourself")
    console.json("dsr.bench.report/1", {"files": [str(path) for path in written], **write.as_json(made)})
