"""Assembles the commands and holds the error boundary; nothing else."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import typer

from dsr import __version__
from dsr.commands import register
from dsr.commands.grouped_help import GroupedGroup, with_grouped_help
from dsr.commands.words import hint_for_option, translated
from dsr.ui import interrupts, streams
from dsr.ui.text import wrap_words
from runtime.base.disk_errors import shortage
from runtime.base.errors import Aborted, DsrError, UsageError

# The parser's UsageError, which typer brings along under a private name.
_WRONG_USAGE: type[Exception] = typer.BadParameter.__bases__[0]

_GREETING = """\
dsr runs reasoning models on your own machine.

  dsr chat "What is 347 + 586?"   ask the small model that comes with dsr
  dsr list --fits                 see which models suit this machine
  {pull}

All commands: dsr --help"""


_WHAT = 34  # the column where a line of the greeting says what its command does


class Boundary(GroupedGroup):
    """The one place that turns errors into a line and an exit code. `DSR_DEBUG=1` shows the traceback.

    dsr's own errors say what happened. An error of a library is shown in one line only if the system lacks something.
    With --json an error is an object, too.
    """

    wants_json = False

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        from dsr.ui.console import Console

        given = list(sys.argv[1:] if args is None else args)
        options = given[: given.index("--")] if "--" in given else given
        self.wants_json, Console.has_answered = "--json" in options or "--jsonl" in options, False
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except _WRONG_USAGE as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                streams.write_err(f"{error}\n")
                sys.exit(UsageError.exit_code)
            code = self._show(_usage_error(error))
        except DsrError as error:  # of the words before a command
            code = self._show(error)
        except typer.Abort:
            code = self._show(Aborted())
        sys.exit(code if isinstance(code, int) else 0)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        words = translated(args, self.commands, strict=not extra.get("resilient_parsing"))
        return super().make_context(info_name, words, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DsrError as error:
            if os.environ.get("DSR_DEBUG") == "1":
                raise
            raise typer.Exit(self._show(error)) from None
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
            raise typer.Exit(self._show(found)) from None

    def _show(self, error: DsrError) -> int:
        from dsr.ui.console import report_error

        report_error(error, json_mode=self.wants_json)
        return error.exit_code


def _usage_error(error: Any) -> UsageError:
    """What the parser complains about, with what to type next."""
    command = error.ctx.command_path if error.ctx is not None else "dsr"
    option, text = getattr(error, "option_name", None), str(error.format_message()).rstrip(".")
    if option is not None and text.startswith("No such option"):
        return UsageError(
            f"{command} has no option {option}", hint=hint_for_option(option, command, error.possibilities)
        )
    return UsageError(f"{command}: {text[0].lower()}{text[1:]}", hint=f"to see how: {command} --help")


app = typer.Typer(
    cls=Boundary,
    name="dsr",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dsr {__version__}")
        raise typer.Exit


def _show_completion(wanted: bool) -> None:
    if wanted:
        from dsr.completion.install import shell
        from dsr.completion.shells import SCRIPTS

        streams.write_out(SCRIPTS[shell()])
        raise typer.Exit


def _install_completion(wanted: bool) -> None:
    if wanted:
        from dsr.completion.install import install, shell

        streams.write_out(f"{install(shell())}\n")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def dsr(
    ctx: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version, then exit."
    ),
    install_completion: bool = typer.Option(
        False,
        "--install-completion",
        callback=_install_completion,
        is_eager=True,
        help="Install completion for your shell: bash, zsh or fish.",
    ),
    show_completion: bool = typer.Option(
        False, "--show-completion", callback=_show_completion, is_eager=True, help="Print its script instead."
    ),
) -> None:
    """Run reasoning models on your own machine: private, offline, with honest measurements.

    Try it:  dsr chat "What is 347 + 586?"
    """
    if ctx.invoked_subcommand is None:
        columns = shutil.get_terminal_size().columns
        for line in _greeting().splitlines():
            hang = _WHAT if columns >= 2 * _WHAT else 4
            parts = [line] if len(line) <= columns else wrap_words(line, columns, hang=hang)
            streams.write_out("".join(f"{part.rstrip()}\n" for part in parts))


def _greeting() -> str:
    """Three things to do. The third names the model that dsr recommends for this machine, once it has chosen one."""
    from dsr.plan.recommended import kept

    command, _, figures = (kept() or "").partition(" (")
    if not command:
        command, what = "dsr pull NAME", "download one, then: dsr chat NAME"
    else:
        what = f"one for this machine: {figures.removesuffix(')')}"
    return _GREETING.format(pull=f"{command:<{_WHAT - 2}}{what}")


register(app)
with_grouped_help(app)


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
