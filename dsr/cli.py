"""Assembles the commands and holds the error boundary; nothing else."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from dsr import __version__
from dsr.commands import register
from dsr.ui import interrupts, streams
from runtime.base.disk_errors import shortage
from runtime.base.errors import DsrError


class Boundary(TyperGroup):
    """The one place that turns errors into a line and an exit code. `DSR_DEBUG=1` shows the traceback.

    dsr's own errors say what happened. An error of a library is shown in one line only if the system lacks something.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DsrError as error:
            if os.environ.get("DSR_DEBUG") == "1":
                raise
            from dsr.ui.console import show_error

            show_error(error)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            streams.write_err("\nstopped\n")
            raise typer.Exit(interrupts.exit_code()) from None
        except BrokenPipeError:
            # The reader (head, less) left: nothing more to say, and Python must not complain while it exits.
            streams.abandon(sys.stdout)
            raise typer.Exit(0) from None
        except (OSError, MemoryError, RuntimeError, ImportError) as error:
            found = streams.output_error() or shortage(error)
            if found is None or os.environ.get("DSR_DEBUG") == "1":
                raise
            from dsr.ui.console import show_error

            show_error(found)
            raise typer.Exit(found.exit_code) from None


app = typer.Typer(
    cls=Boundary,
    name="dsr",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dsr {__version__}")
        raise typer.Exit


@app.callback()
def dsr(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version, then exit."
    ),
) -> None:
    """Run reasoning models on your own machine: private, offline, with honest measurements.

    Try it:  dsr chat "What is 347 + 586?"
    """


register(app)


def main() -> None:
    """Runs the command line."""
    streams.mend()
    interrupts.watch_signals()
    try:
        app(prog_name="dsr")
    except SystemExit:
        if interrupts.is_ending():
            sys.exit(interrupts.exit_code())
        raise
    except KeyboardInterrupt:
        streams.write_err("\nstopped\n")
        sys.exit(interrupts.exit_code())
    except OSError:
        # typer prints help and version itself.
        found = streams.output_error()
        if found is None or os.environ.get("DSR_DEBUG") == "1":
            raise
        from dsr.ui.console import show_error

        show_error(found)
        sys.exit(found.exit_code)
    finally:
        interrupts.unwatch_signals()
