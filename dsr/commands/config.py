"""`dsr config`: the settings, with the origin of each value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dsr.options import JsonOpt, QuietOpt

if TYPE_CHECKING:
    from dsr.store.settings_file import Setting

app = typer.Typer(
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_KeyArg = Annotated[str, typer.Argument(metavar="KEY", help="Name of the setting, such as model or threads.")]
_BY_MODEL = "(by model and machine)"


@app.callback()
def config() -> None:
    """Show and change your settings: list, get, set, unset, path, edit.

    dsr config

    dsr config model deepseek-r1:1.5b

    dsr config get threads

    dsr config unset model
    """


@app.command("list")
def list_settings(
    sampling: Annotated[bool, typer.Option("--all", help="Include sampling settings that are not set.")] = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """List the settings with the origin of each value: default, file or environment."""
    from dsr.store import paths, settings_file
    from dsr.store.settings import SAMPLING
    from dsr.ui.console import Console

    console = Console(json_mode=json, quiet=quiet)
    found = settings_file.described(paths.config_file())
    shown = [each for each in found if sampling or each.origin != "default" or each.key not in SAMPLING]
    console.table(("setting", "value", "origin"), [(each.key, _shown(each), _origin(each)) for each in shown])
    if console.quiet:
        for each in shown:
            console.data(f"{each.key}={_plain(each.value)}")
    console.say("to change one: dsr config KEY VALUE; to list sampling settings, too: dsr config list --all")
    body = {"path": str(paths.config_file()), "settings": [each.json() for each in found]}
    console.json("dsr.config.list/1", body)


@app.command("get")
def get(key: _KeyArg, json: JsonOpt = False, quiet: QuietOpt = False) -> None:
    """Print the value of one setting."""
    from dsr.store import paths, settings_file
    from dsr.store.settings import check_key
    from dsr.ui.console import Console

    console = Console(json_mode=json, quiet=quiet)
    check_key("dsr config", key)
    [found] = [each for each in settings_file.described(paths.config_file()) if each.key == key]
    if found.value is None:
        console.say(f"{key} is not set: {_shown(found)}")
    else:
        console.data(_plain(found.value))
        console.say(f"from {_origin(found)}")
    console.json("dsr.config.get/1", found.json())


@app.command("set")
def set_value(
    key: _KeyArg,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="The new value.")],
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Write one setting into config.toml."""
    import os

    from dsr.models.references import parse
    from dsr.store import paths, settings_file
    from dsr.ui.console import Console
    from runtime.gguf.kv_types import kv_types

    console = Console(json_mode=json, quiet=quiet)
    if key == "model":
        parse(value)
    if key == "kv_type":
        kv_types(value)
    file = paths.config_file()
    written = settings_file.set_value(file, key, value)
    console.say(f"{key} = {_plain(written)}, in {file}")
    if os.environ.get(f"DSR_{key.upper()}"):
        console.warn(f"the variable DSR_{key.upper()} is set, and overrides the file")
    console.json("dsr.config.set/1", {"path": str(file), "key": key, "value": written})


@app.command("unset")
def unset(key: _KeyArg, json: JsonOpt = False, quiet: QuietOpt = False) -> None:
    """Remove one setting from config.toml, so that its default counts."""
    from dsr.store import paths, settings_file
    from dsr.ui.console import Console

    console = Console(json_mode=json, quiet=quiet)
    file = paths.config_file()
    settings_file.unset(file, key)
    console.say(f"{key} has its default again")
    console.json("dsr.config.set/1", {"path": str(file), "key": key, "value": None})


@app.command("path")
def path(json: JsonOpt = False, quiet: QuietOpt = False) -> None:
    """Print the path of config.toml."""
    from dsr.store import paths
    from dsr.ui.console import Console

    console = Console(json_mode=json, quiet=quiet)
    console.data(str(paths.config_file()))
    console.json("dsr.config.path/1", {"path": str(paths.config_file())})


@app.command("edit")
def edit() -> None:
    """Open config.toml in your editor ($VISUAL, $EDITOR), then check it."""
    import sys

    from dsr.store import paths, settings, settings_file
    from dsr.ui.console import Console
    from dsr.ui.editor import edit_file
    from runtime.base.errors import UsageError

    file = paths.config_file()
    if not sys.stdin.isatty():
        raise UsageError("dsr config edit needs a terminal", hint="without one: dsr config KEY VALUE")
    settings_file.begin(file)
    edit_file(file)
    settings.load(file)
    Console().say(f"{file} is valid")


def _shown(setting: Setting) -> str:
    if setting.value is None:
        return "nano" if setting.key == "model" else _BY_MODEL
    return _plain(setting.value)


def _plain(value: Any) -> str:
    from dsr.ui.console import printable

    return "" if value is None else str(value).lower() if isinstance(value, bool) else printable(str(value))


def _origin(setting: Setting) -> str:
    return setting.origin if setting.origin == "default" else f"{setting.origin} ({setting.source})"
