"""The models of another program as `dsr list --from` shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dsr.ui.console import Console


def show_from(program: str, console: Console) -> None:
    """Show the models of Ollama or LM Studio. Raises UsageError for another program."""
    from dsr.models.other_programs import PROGRAMS, folders, models_of
    from dsr.ui.console import printable
    from runtime.base.errors import UsageError

    key = program.casefold().replace(" ", "")
    if key not in PROGRAMS:
        raise UsageError(f"--from is {' or '.join(PROGRAMS)}, not {program!r}")
    models, places = models_of(key), folders(key)
    rows = [(each.reference, each.quant or "-", str(each.size), each.problem or "") for each in models]
    console.json(
        "dsr.list.from/1",
        {
            "program": key,
            "folders": [str(place) for place in places],
            "models": [
                {
                    "reference": each.reference,
                    "quant": each.quant,
                    "size": int(each.size),
                    "path": str(each.path),
                    "files": [str(file) for file in each.files],
                    "digests": list(each.digests),
                    "problem": each.problem,
                }
                for each in models
            ],
        },
    )
    if console.quiet:
        for each in models:
            if not each.problem:
                console.data(printable(each.reference))
        return
    if rows:
        console.table(("NAME", "QUANT", "SIZE", "PROBLEM"), rows, right=(2,))
        console.say("dsr reads these files where they are; every command takes their names, such as dsr chat NAME")
    elif places:
        console.say(f"{PROGRAMS[key]} has no model in {', '.join(map(str, places))}")
    else:
        console.say(
            f"no folder of {PROGRAMS[key]} was found" + ("; OLLAMA_MODELS names one" if key == "ollama" else "")
        )
