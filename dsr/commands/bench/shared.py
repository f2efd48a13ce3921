"""Options and steps that the commands of `dsr bench` share."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dsr.bench.kit.table import Table
    from dsr.store.measurement import Measurement
    from dsr.ui.charts.chart import Chart
    from dsr.ui.console import Console
    from runtime.base.run import Run

_INTERRUPTED = 130
_RESUMED = ("reason", "experts")

NoLogOpt = Annotated[bool, typer.Option("--no-log", help="Do not save the measurements for dsr bench history.")]
PlotOpt = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Draw accuracy against its cost as an SVG file.")
]


def command() -> str:
    """Returns the command line, as a shell takes it."""
    return shlex.join(["dsr", *sys.argv[1:]])


def today() -> str:
    import datetime

    return datetime.date.today().isoformat()


@contextmanager
def running(console: Console, threads: int | None = None) -> Iterator[Run]:
    """Yields a run that Ctrl-C, SIGTERM and SIGHUP stop, and shows its progress."""
    from dsr.ui.interrupts import stopping
    from dsr.ui.progress import showing
    from runtime.base.run import Run, Stop

    stop = Stop()
    with stopping(stop), showing(console) as listen:
        yield Run(stop, listen, threads)


def save_rows(console: Console, rows: Sequence[Measurement], *, no_log: bool) -> None:
    """Adds the rows to the history. If this fails, the command shows a warning and continues.

    A bench that resumes from its samples may measure nothing new. Its rows are added only if the history does not have
    the same figures.
    """
    from dsr.store import paths
    from dsr.store.measurements import Measurements
    from runtime.base.errors import DsrError

    if no_log or not rows:
        return
    try:
        with Measurements(paths.measurements_file()) as store:
            store.add([row for row in rows if row.kind not in _RESUMED or not store.holds(row)])
    except DsrError as error:
        console.warn(f"not saved for dsr bench history: {error.message}")


def check_files(*paths: Path | None, plot: Path | None = None) -> None:
    """Raises the error that writing these files would raise, before anything is measured. None is no file."""
    from dsr.bench.kit import files
    from dsr.ui.charts.svg import check_path

    if plot is not None:
        check_path(plot)
    files.check(*paths, plot)


def show(console: Console, table: Table) -> None:
    """Shows a table on stdout, in human mode."""
    console.table(table.headings, table.rows, right=table.right)


def show_chart(console: Console, chart: Chart) -> None:
    """Draws a chart with characters if stdout is a terminal."""
    from dsr.ui.charts.terminal import scatter
    from dsr.ui.console import columns, is_terminal

    if console.human and is_terminal(sys.stdout):
        for line in scatter(chart, min(columns(sys.stdout), 100)):
            console.data(line)


def end(*, interrupted: bool, failed: Sequence[int] = ()) -> None:
    """Ends the command with 130 if it was interrupted, or with the first exit code of `failed`."""
    if interrupted:
        raise typer.Exit(_INTERRUPTED)
    if failed:
        raise typer.Exit(failed[0])
