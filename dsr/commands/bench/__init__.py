"""`dsr bench`: how well a model file does its work, in numbers. A module for each command."""

from __future__ import annotations

import typer

from dsr.commands.bench import experts, reason, report

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def bench() -> None:
    """Measure a model: how often is it right, and what does that cost?

    Try it:  dsr bench reason nano --limit 20
    """


app.command("reason")(reason.reason)
app.command("experts")(experts.experts)
app.command("report")(report.report)
