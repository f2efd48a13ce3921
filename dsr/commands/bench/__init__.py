"""`dsr bench`: a module for each command."""

from __future__ import annotations

import typer

from dsr.commands.bench import all, compare, experts, history, quality, reason, report, speed

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def bench() -> None:
    """Measure models: speed, memory, loss against the original, and accuracy.

    Try it:  dsr bench speed nano
    """


app.command("speed")(speed.speed)
app.command("quality")(quality.quality)
app.command("reason")(reason.reason)
app.command("experts")(experts.experts)
app.command("all")(all.all)
app.command("compare")(compare.compare)
app.command("history")(history.history)
app.command("report")(report.report)
