"""What the commands of `dsr bench` share: keeping the rows that were measured, and the words of their options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dsr.bench.kit.table import Table
    from dsr.store.measurement import Measurement
    from dsr.ui.console import Console

INTERRUPTED = 130
_RESUMED = ("reason", "experts")

NoLogOpt = Annotated[bool, typer.Option("--no-log", help="Do not save the measurements for dsr bench history.")]


def keep_rows(console: Console, rows: Sequence[Measurement], *, no_log: bool) -> None:
    """Keep the rows. What was measured is shown all the same where that is not possible.

    Answers and samples are kept in folders of their own, and a bench that goes on there may find all that it needs: a
    row of such a bench is left out where the history has it already, to the last digit of its seconds.
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
        console.warn(f"not kept for dsr bench history: {error.message}")


def show(console: Console, table: Table) -> None:
    """Shows a table on stdout, in human mode."""
    console.table(table.headings, table.rows, right=table.right)
