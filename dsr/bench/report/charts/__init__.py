"""The charts of a report, each made from rows."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from dsr.bench.report.charts.experts import experts
from dsr.bench.report.charts.memory import memory
from dsr.bench.report.charts.sizes import accuracy, loss, speeds
from dsr.bench.report.charts.strategies import strategies
from dsr.bench.report.charts.votes import votes
from dsr.bench.report.families import Family
from dsr.bench.report.files import ReportInput
from dsr.ui.charts.chart import Chart


def charts(data: ReportInput, families: Sequence[Family]) -> tuple[Chart, ...]:
    """All charts, also those without marks. Charts that help to choose a file come first."""
    one = shlex.quote(data.files[0].model)
    return (
        loss(families, f"dsr bench quality {one} --against REFERENCE"),
        accuracy(families, f"dsr bench all {one} --recipes q8_0,q4_k_m,q2_k"),
        speeds(families, f"dsr bench speed {one} ANOTHER"),
        strategies(data.files, f"dsr bench reason {one}"),
        votes(families, f"dsr bench speed {one}"),
        memory(families, data.runs, f"dsr bench speed {one}"),
        *experts(data.files, f"dsr bench experts {one}"),
    )
