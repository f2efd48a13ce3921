"""`dsr history`: lists, shows, searches and deletes stored conversations."""

from __future__ import annotations

import shutil
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dsr.options import JsonOpt, QuietOpt, YesOpt

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from dsr.store.conversations import Conversations, StoredConversation, Summary, Turn
    from dsr.ui.console import Console
    from runtime.base.types import ByteCount

_SCHEMA = "dsr.history/1"
_HEADER = ("ID", "WHEN", "MODEL", "TURNS", "FIRST QUESTION")


def history(
    conversation: Annotated[
        int | None,
        typer.Argument(
            metavar="[ID]", show_default=False, help="Number of the conversation to show. Default: list all."
        ),
    ] = None,
    search: Annotated[
        str | None, typer.Option("--search", "-s", metavar="TEXT", help="List only conversations that contain TEXT.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="Maximum conversations to list.")] = 20,
    thinking: Annotated[bool, typer.Option("--thinking", help="Show the thinking too.")] = False,
    delete: Annotated[
        int | None, typer.Option("--delete", min=1, metavar="ID", help="Delete this conversation; asks first.")
    ] = None,
    path: Annotated[bool, typer.Option("--path", help="Print the path of the file with the conversations.")] = False,
    yes: YesOpt = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """List, show, search or delete saved conversations.

    dsr history

    dsr history 12

    dsr history --search "moon"
    """
    from dsr.store import paths
    from dsr.store.conversations import Conversations
    from dsr.store.kept_states import KeptStates
    from dsr.ui.console import Console
    from runtime.base.errors import NotFound, UsageError

    if [conversation is not None, search is not None, delete is not None, path].count(True) > 1:
        raise UsageError("an ID, --search, --delete and --path cannot be combined", hint="give only one of them")
    console = Console(json_mode=json, quiet=quiet)
    file = paths.conversations_file()
    if path:
        console.data(str(file))
        console.json(_SCHEMA, {"path": str(file)})
    elif _is_there(file):
        with Conversations(file) as store:
            if delete is not None:
                _delete(store, delete, console, yes=yes)
            elif conversation is not None:
                _show(store.get(conversation), console, thinking=thinking)
            else:
                more = limit + 1
                found = store.list(more) if search is None else store.search(search, more)
                _list(found, limit, console, KeptStates(paths.kept_states_folder()).sizes())
    elif (wanted := delete if conversation is None else conversation) is not None:
        raise NotFound(f"there is no conversation {wanted}", hint="to start one: dsr chat")
    else:
        _list((), limit, console, {})


def _is_there(file: Path) -> bool:
    """False only when no file exists. `Conversations` reports a file that cannot be read."""
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _list(found: tuple[Summary, ...], limit: int, console: Console, caches: Mapping[int, ByteCount]) -> None:
    from dsr.models.short_name import short_name
    from dsr.ui.console import is_terminal, printable
    from dsr.ui.text import display_width, truncate
    from runtime.base.types import ByteCount, counted

    shown = found[:limit]
    console.json(_SCHEMA, {"conversations": [_summary_json(one, caches.get(one.id, 0)) for one in shown]})
    if not shown:
        console.say("no conversations found")
        return
    facts = [(str(one.id), _local(one.started), printable(short_name(one.model)), str(one.questions)) for one in shown]
    taken = sum(max(map(display_width, column)) + 2 for column in zip(_HEADER[:4], *facts, strict=True))
    room = shutil.get_terminal_size().columns - taken if is_terminal(sys.stdout) else sys.maxsize
    rows = [[*row, truncate(one.title, max(room, 20))] for row, one in zip(facts, shown, strict=True)]
    console.table(_HEADER, rows, right=(0, 3))
    if not console.human:
        for one in shown:
            console.data(str(one.id))
    if len(found) > limit:
        console.say(f"there are older conversations; to list more: --limit {limit * 5}")
    if caches:
        console.say(f"caches on disk: {ByteCount(sum(caches.values()))} of {counted(len(caches), 'conversation')}")


def _show(conversation: StoredConversation, console: Console, *, thinking: bool) -> None:
    from dsr.ui.console import one_line, printable

    turns = [_turn_json(turn) for turn in conversation.turns]
    head = {"id": conversation.id, "started": conversation.started.isoformat(), "model": conversation.model}
    console.json(_SCHEMA, {"conversation": head | {"system": conversation.system, "turns": turns}})
    title = f"conversation {conversation.id} with {conversation.model}, {_local(conversation.started)}"
    console.data(one_line(title), style="dim")
    if conversation.system:
        console.data(printable(f"\nsystem: {conversation.system}"), style="dim")
    for turn in conversation.turns:
        console.data("")
        if thinking and turn.thinking:
            console.data(_folded(printable(turn.thinking)) + "\n", style="dim")
        if turn.role == "user":
            console.data(_folded(printable("> " + turn.content.replace("\n", "\n> "))), style="bold")
        elif turn.role == "tool":
            console.data(one_line(f"{turn.name} returned:"), style="dim")
            console.data(_folded(printable("│ " + turn.content.replace("\n", "\n│ "))))
        elif turn.content or not turn.calls:
            console.data(_rendered(printable(turn.content)))
        if turn.stats is not None and isinstance(seed := turn.stats.get("seed"), int):
            console.data(f"seed {seed}", style="dim")
        for call in turn.calls:
            console.data(one_line(f"called {call.name} with {call.arguments}"), style="dim")


def _turn_json(turn: Turn) -> dict[str, Any]:
    told = {"role": turn.role, "content": turn.content, "thinking": turn.thinking, "stats": turn.stats}
    calls = {"calls": [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in turn.calls]}
    return told | (calls if turn.calls else {}) | ({"call_id": turn.call_id, "name": turn.name} if turn.name else {})


def _folded(text: str) -> str:
    """Wrapped between words at a terminal, as in the conversation."""
    from dsr.ui.fields import terminal_columns
    from dsr.ui.text import WordWrap

    columns = terminal_columns()
    if columns is None:
        return text
    wrap = WordWrap(lambda: columns)
    return wrap.feed(text) + wrap.finish()


def _rendered(text: str) -> str:
    """An answer as it appeared: at a terminal rendered, elsewhere as the model wrote it."""
    from dsr.ui.console import is_terminal, screen, shows_colour

    if not is_terminal(sys.stdout):
        return text
    from dsr.ui.markdown.stream import rendered

    return rendered(text, screen(sys.stdout)[0], styled=shows_colour(sys.stdout))


def _delete(store: Conversations, id: int, console: Console, *, yes: bool) -> None:
    from dsr.store import paths
    from dsr.store.kept_states import KeptStates
    from dsr.ui.console import one_line
    from dsr.ui.text import truncate
    from runtime.base.errors import DsrError

    title = truncate(one_line(store.get(id).title), 50)
    if not console.confirm(f'Delete conversation {id} ("{title}")?', yes=yes):
        console.say("nothing deleted")
        raise typer.Exit(1)
    folder = paths.kept_states_folder()
    states = KeptStates(folder)
    try:
        states.delete(id)
    except OSError as error:
        raise DsrError(
            f"{folder}: the cache of conversation {id} cannot be deleted: {error.strerror}",
            hint="check the permissions of the folder; the conversation is still there",
        ) from None
    store.delete(id)
    with suppress(OSError):  # another process may have written it again until now
        states.delete(id)
    console.json(_SCHEMA, {"deleted": id})
    console.say(f"deleted conversation {id}")


def _summary_json(one: Summary, cache: int) -> dict[str, Any]:
    return {
        "id": one.id,
        "started": one.started.isoformat(),
        "model": one.model,
        "turns": one.turns,
        "questions": one.questions,
        "first_question": one.title,
        "cache_bytes": int(cache),
    }


def _local(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")
