"""Keeps conversations. A record that cannot be written warns once, and the conversation goes on without it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from dsr.chat.conversation import Reply
from dsr.chat.forgetting import NOTHING, Forgotten, exchanges
from dsr.chat.summary import forgotten_json, tally_json
from dsr.chat.tools.rounds import Round
from dsr.chat.turns import before_last_question, finished
from dsr.store.conversations import Conversations, Turn
from dsr.ui.console import Console, one_line
from dsr.ui.text import truncate_middle
from runtime.base.errors import DsrError, NotFound
from runtime.base.types import Message, counted
from runtime.strategies.strategy import stored_name


@dataclass(frozen=True, slots=True)
class Earlier:
    """A kept conversation, to be continued. `forgotten` are the exchanges that its last prompt left out."""

    id: int
    model: str
    system: str
    messages: tuple[Message, ...]
    forgotten: Forgotten = NOTHING


def kept_conversation(path: Path, number: int | None = None, *, other_than: int | None = None) -> Earlier:
    """The conversation of that number kept at `path`; the latest one for None, but not `other_than`.

    Raises NotFound when there is none.
    """
    found = None
    if path.exists():
        with Conversations(path) as store:
            latest = (each.id for each in store.list(2) if each.id != other_than)
            number = number if number is not None else next(latest, None)
            found = store.get(number) if number is not None else None
    if found is None:
        which = f"no conversation {number}" if number is not None else "no kept conversation to resume"
        raise NotFound(f"there is {which}", hint="start one: dsr chat")
    messages = tuple(finished([turn.message for turn in found.turns if turn.role != "system"]))
    return Earlier(found.id, found.model, found.system, messages, _forgotten(found.turns, messages))


def resumed_line(earlier: Earlier) -> str:
    """'continuing with 4 messages, begun by: How far is the moon?'."""
    begun = f", begun by: {truncate_middle(one_line(earlier.messages[0].content), 40)}" if earlier.messages else ""
    return f"continuing with {counted(len(earlier.messages), 'message')}{begun}"


def _forgotten(turns: Sequence[Turn], messages: Sequence[Message]) -> Forgotten:
    """The forgotten exchanges, as kept with the last answer; nothing if the file has impossible values."""
    said = (turns[-1].stats or {}).get("forgotten") if turns else None
    if not isinstance(said, dict):
        return NOTHING
    count, tokens, summary = said.get("exchanges"), said.get("tokens"), said.get("summary") or ""
    if not (isinstance(count, int) and isinstance(tokens, int) and isinstance(summary, str)):
        return NOTHING
    return Forgotten(count, tokens, summary) if 0 < count <= exchanges(messages) and tokens >= 0 else NOTHING


class Record:
    """The record of one conversation, as a context manager. Nothing is written before the first answer."""

    def __init__(self, store: Conversations | None, console: Console) -> None:
        self._store = store
        self._console = console
        self._id: int | None = None
        self._model = self._system = ""
        self._said: tuple[Message, ...] = ()

    @classmethod
    def open(cls, path: Path | None, console: Console) -> Record:
        """The record in the database at `path`; None keeps nothing."""
        if path is None:
            return cls(None, console)
        try:
            return cls(Conversations(path), console)
        except DsrError as error:
            console.warn(f"this conversation is not kept: {error.message}")
            return cls(None, console)

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._store is not None:
            self._store.close()

    @property
    def keeps(self) -> bool:
        """Whether this conversation is written to the disk."""
        return self._store is not None

    @property
    def number(self) -> int | None:
        """The number of the conversation in the history; None if it has none yet, or another process deleted it."""
        if self._store is None or self._id is None:
            return None
        with suppress(DsrError):
            return self._id if self._id in self._store else None
        return None

    def begin(self, model: str, system: str, said: Sequence[Message] = ()) -> None:
        """Start a new record. `said` are the messages so far, under another model or from a file."""
        self._id = None
        self._model, self._system, self._said = model, system, tuple(said)

    def resume(self, earlier: Earlier, model: str, system: str) -> None:
        """Continue a kept conversation: in its own record, unless the model or the system prompt changed."""
        self.begin(model, system, earlier.messages)
        if (model, system) == (earlier.model, earlier.system):
            self._id = earlier.id

    def keep(self, question: str, rounds: Sequence[Round]) -> None:
        """Record a question and its answer, with the calls before it. Nothing is recorded before the first token."""
        said = [each for each in rounds if each.reply.drew_something]
        if self._store is None or not said:
            return
        try:
            if self._id is None:
                self._id = self._store.begin(self._model, self._system)
                for message in self._said:
                    self._store.add_message(self._id, message)
            self._store.add(self._id, "user", question)
            for each in said:
                done = each.reply.completion
                answer = Message("assistant", done.answer, done.thinking, done.calls)
                self._store.add_message(self._id, answer, _stats(each.reply))
                for result in each.calls:
                    self._store.add_message(
                        self._id, result.message, {"state": result.state, "seconds": result.seconds}
                    )
        except DsrError as error:
            self._give_up(error)

    def replace_last(self, question: str, rounds: Sequence[Round]) -> None:
        """Record another answer to the last question."""
        if self._store is None:
            return
        try:
            if self._id is None:
                self._said = before_last_question(self._said)
            else:
                self._store.drop_last_question(self._id)
        except DsrError as error:
            self._give_up(error)
        self.keep(question, rounds)

    def _give_up(self, error: DsrError) -> None:
        self._console.warn(f"this conversation is not kept any more: {error.message}")
        if self._store is not None:
            self._store.close()
        self._store = None


def _stats(reply: Reply) -> dict[str, Any]:
    done = reply.completion
    stats: dict[str, Any] = {
        "prompt_tokens": reply.prompt_tokens,
        "thinking_tokens": done.thinking_tokens,
        "answer_tokens": done.answer_tokens,
        "tokens_per_second": round(reply.tokens_per_second, 2),
        "finish_reason": done.finish_reason,
        "seed": (reply.seed + done.sample) % 2**32,
    }
    if reply.asked.effort is not None:
        stats["effort"] = reply.asked.effort
    if reply.verdict is not None:
        verdict = reply.verdict
        stats["verdict"] = {
            "strategy": stored_name(verdict.strategy),
            "winner": verdict.winner,
            "tally": tally_json(verdict),
        }
    if reply.forgotten.exchanges:
        stats["forgotten"] = forgotten_json(reply.forgotten)
    return stats
