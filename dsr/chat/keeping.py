"""What leaves a conversation and comes back: /copy, /save, /export, /load, /history and /resume."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from dsr.chat.conversation import Conversation
from dsr.chat.conversation_file import read_conversation, write_conversation
from dsr.chat.export_file import as_markdown
from dsr.chat.record import Earlier, Record, kept_conversation
from dsr.models.short_name import short_name
from dsr.store import paths
from dsr.store.conversations import Conversations, Summary
from dsr.ui import clipboard
from dsr.ui.console import Console, columns, one_line
from dsr.ui.text import align, truncate
from runtime.base.errors import DsrError, UsageError
from runtime.base.files import expanded, write_atomically
from runtime.base.types import counted

_CODE = re.compile(r"^(?P<fence>```+|~~~+)[^\n]*\n(.*?)^(?P=fence)\s*$", re.DOTALL | re.MULTILINE)
_SHOWN = 15  # conversations in a list


class Keeping:
    """The commands that read or write something outside of the conversation."""

    def __init__(self, conversation: Conversation, console: Console, record: Record) -> None:
        self._conversation = conversation
        self._console = console
        self._record = record
        self._written: set[Path] = set()  # by this conversation, so that it may write them again

    def copy(self, what: str) -> None:
        """/copy: the last answer; code: its last block of code; all: the conversation. Raises UsageError, DsrError."""
        turns = self._conversation.turns
        answer = next((turn.content for turn in reversed(turns) if turn.role == "assistant" and turn.content), None)
        if answer is None:
            raise UsageError("there is no answer to copy yet")
        if what == "code":
            blocks = _CODE.findall(answer)
            if not blocks:
                raise UsageError("the last answer has no block of code", hint="/copy alone copies all of it")
            answer = blocks[-1][1]
        elif what == "all":
            answer = as_markdown(short_name(self._conversation.reference), self._conversation.system, turns)
        elif what:
            raise UsageError(f"/copy takes code, all, or nothing, not {what!r}")
        self._console.say(f"copied {counted(len(answer), 'character')} {clipboard.copy(answer)}")

    def save(self, name: str) -> None:
        """/save: the conversation as a JSON file. Raises UsageError, DsrError."""
        path = self._free("/save", name)
        conversation = self._conversation
        write_conversation(path, conversation.reference, conversation.system, conversation.turns)
        self._written.add(path)
        self._console.say(f"saved {len(conversation.turns)} messages to {path}")

    def export(self, name: str) -> None:
        """/export: the conversation as a Markdown file; a name in .json saves it. Raises UsageError, DsrError."""
        if name.lower().endswith(".json"):
            self.save(name)
            return
        path = self._free("/export", name)
        conversation = self._conversation
        text = as_markdown(short_name(conversation.reference), conversation.system, conversation.turns)
        try:
            write_atomically(path, text.encode())
        except OSError as error:
            raise DsrError(f"{path}: cannot be written: {error.strerror}") from None
        self._written.add(path)
        self._console.say(f"wrote {len(conversation.turns)} messages to {path}")

    def _free(self, command: str, name: str) -> Path:
        """The path to write to. A file that this conversation did not write is asked about."""
        if not name:
            raise UsageError(f"{command} needs a file name")
        path = expanded(name)
        if path not in self._written and path.exists() and not path.is_dir():
            asks = sys.stdin.isatty() and self._console.human
            if not (asks and self._console.confirm(f"{path} exists. Overwrite it?", yes=False)):
                raise UsageError(f"{path} exists already; nothing is written", hint=f"{command} with another name")
        return path

    def load(self, name: str) -> int:
        """/load: continue with the messages of a file that /save wrote; returns their number. Raises UsageError."""
        if not name:
            raise UsageError("/load needs a file name")
        self._conversation.system, turns = read_conversation(expanded(name))
        self._conversation.restart(turns)
        return len(turns)

    def history(self, text: str) -> None:
        """/history: the latest conversations; with a text those that contain it."""
        file = paths.conversations_file()
        found: tuple[Summary, ...] = ()
        if file.exists():
            with Conversations(file) as store:
                found = store.search(text, _SHOWN) if text else store.list(_SHOWN)
        if not found:
            self._console.say("no conversations found")
            return
        rows = [
            (str(one.id), f"{one.started.astimezone():%Y-%m-%d %H:%M}", short_name(one.model), one_line(one.title))
            for one in found
        ]
        for line in align(rows, (0,)):
            self._console.say(truncate(line, columns(sys.stderr) - 1), style="plain")
        self._console.say("to go on with one of them: /resume ID")

    def earlier(self, text: str) -> Earlier:
        """/resume: the kept conversation of that number, or the latest other one. Raises UsageError, NotFound."""
        if text and not text.isdecimal():
            raise UsageError(f"/resume takes the number of a conversation, not {text!r}", hint="/history lists them")
        return kept_conversation(
            paths.conversations_file(), int(text) if text else None, other_than=self._record.number
        )

    def resume(self, earlier: Earlier) -> None:
        """Continue a kept conversation with the present model."""
        conversation = self._conversation
        conversation.system = earlier.system
        conversation.restart(earlier.messages)
        if earlier.forgotten.exchanges:
            conversation.go_on_without(earlier.forgotten)
        self._record.resume(earlier, conversation.reference, earlier.system)
        conversation.begin_from_disk(self._record.number)
