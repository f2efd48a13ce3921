"""`dsr alias`: your own names for models."""

from __future__ import annotations

from typing import Annotated

import typer

from dsr.options import JsonOpt, QuietOpt

app = typer.Typer(
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_NameArg = Annotated[str, typer.Argument(metavar="NAME", help="Your name for the model.")]


@app.callback()
def alias() -> None:
    """Give models your own names: list, set, show, remove.

    dsr alias

    dsr alias r1 deepseek-r1:1.5b

    dsr alias remove r1
    """


@app.command("list")
def list_names(json: JsonOpt = False, quiet: QuietOpt = False) -> None:
    """List your names."""
    from dsr.store import aliases, paths
    from dsr.ui.console import Console

    console = Console(json_mode=json, quiet=quiet)
    names = aliases.load(paths.aliases_file())
    if names:
        console.table(("NAME", "MODEL"), sorted(names.items()))
    else:
        console.say("you gave no names yet; to give one: dsr alias NAME MODEL")
    if console.quiet:
        for name in sorted(names):
            console.data(name)
    console.json("dsr.alias.list/1", {"path": str(paths.aliases_file()), "aliases": names})


@app.command("set")
def set_name(
    name: _NameArg,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Short name, org/repo[:quant], or path.")],
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Give a name to a model. The model need not be on this machine."""
    from dsr.models.naming import target_of
    from dsr.store import aliases, paths
    from dsr.ui.console import Console

    console = Console(json_mode=json, quiet=quiet)
    file = paths.aliases_file()
    names = aliases.load(file)
    target = target_of(name, model, names)
    key = aliases.check_name(name)
    aliases.save(file, names | {key: target})
    instead = f" instead of {names[key]}" if key in names and names[key] != target else ""
    console.say(f"{key} is {target}{instead}; to talk to it: dsr chat {key}")
    console.json("dsr.alias.set/1", {"name": key, "model": target})


@app.command("show")
def show(name: _NameArg, json: JsonOpt = False, quiet: QuietOpt = False) -> None:
    """Print the model that a name stands for."""
    from dsr.store import paths
    from dsr.store.aliases import load
    from dsr.ui.console import Console, printable

    console = Console(json_mode=json, quiet=quiet)
    names = load(paths.aliases_file())
    target = _known(name, names)
    console.data(printable(target))
    console.json("dsr.alias.show/1", {"name": name.casefold(), "model": target})


@app.command("remove")
def remove(name: _NameArg, json: JsonOpt = False, quiet: QuietOpt = False) -> None:
    """Remove a name. The model stays."""
    from dsr.store import aliases, paths
    from dsr.ui.console import Console

    console = Console(json_mode=json, quiet=quiet)
    file = paths.aliases_file()
    names = aliases.load(file)
    target = _known(name, names)
    aliases.save(file, {key: value for key, value in names.items() if key != name.casefold()})
    console.say(f"removed {name.casefold()}; {target} stays")
    console.json("dsr.alias.remove/1", {"name": name.casefold(), "model": target})


def _known(name: str, names: dict[str, str]) -> str:
    from runtime.base.errors import NotFound

    target = names.get(name.casefold())
    if target is None:
        known = ", ".join(sorted(names))
        hint = f"your names: {known}" if known else "to give one: dsr alias NAME MODEL"
        raise NotFound(f"you gave no model the name {name!r}", hint=hint)
    return target
