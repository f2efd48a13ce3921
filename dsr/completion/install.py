"""Writes the script of a shell where that shell finds it."""

from __future__ import annotations

import os
from pathlib import Path

from dsr.completion.shells import SCRIPTS
from runtime.base.errors import DsrError, UsageError
from runtime.base.files import write_atomically


def shell() -> str:
    """The user's shell. Raises UsageError for one without a script."""
    name = Path(os.environ.get("SHELL", "")).name
    if name in SCRIPTS:
        return name
    raise UsageError(
        f"there is no completion for the shell {name or 'of this terminal'}",
        hint=f"name another one: SHELL={'|'.join(SCRIPTS)} dsr --show-completion",
    )


def install(name: str) -> str:
    """Writes the script of a shell; returns what the user has to know. Raises DsrError."""
    home = Path.home()
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    file = {
        "bash": data / "bash-completion" / "completions" / "dsr",
        "zsh": data / "dsr" / "_dsr",
        "fish": config / "fish" / "completions" / "dsr.fish",
    }[name]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, SCRIPTS[name].encode())
        line = {"bash": f". '{file}'", "zsh": f". '{file}'"}.get(name)
        start = home / f".{name}rc"
        if line is not None and line not in (start.read_text(encoding="utf-8") if start.exists() else ""):
            with start.open("a", encoding="utf-8") as rc:
                rc.write(f"\n{'autoload -Uz compinit && compinit' if name == 'zsh' else '# dsr'}\n{line}\n")
    except OSError as error:
        raise DsrError(f"{error.filename or file}: cannot be written: {error.strerror}") from None
    return f"completion for {name} is in {file}; open a new terminal to use it"
