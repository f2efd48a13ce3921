"""What a conversation read, on disk: adopted by the next process before it reads, and written after an answer.

Nothing depends on it. Where it cannot be used or written, the text is read again, and one line says so.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from dsr.store.kept_states import LEAST_TOKENS, GivenUp, KeptStates, Unwritten
from dsr.store.state_file import common
from dsr.ui.console import Console
from dsr.ui.interrupts import is_ending
from runtime.base.disk_errors import is_full
from runtime.engine.kept_state import KeptState

# A file is written whole. While the conversation goes on, it is written again when it grew by this share: all files of
# a conversation together are then at most five times the last one. The rest is written when the conversation ends.
GROWTH = 1 / 4
# So many tokens are read again sooner than they are written.
_FEW = 64
_SECONDS = 1.0  # a longer wait at the end is told


class HoldsStates(Protocol):
    """The part of `Engine` that is needed here."""

    def export(self, tokens: Sequence[int]) -> KeptState | None: ...
    def adopt(self, kept: KeptState) -> bool: ...


@dataclass(frozen=True, slots=True)
class CachedModel:
    """What decides about the use of a file: `LoadedModel.state_identity`, and `context` and `cuts_anywhere` of its
    backend. Without an identity nothing is kept."""

    identity: str
    context: int
    cuts_anywhere: bool


def worth_writing(length: int, on_disk: int, *, ends: bool) -> bool:
    """Whether a state of `length` tokens is written, when a file already has the first `on_disk` of them.

    `ends`: the conversation ends, so that it is the last chance.
    """
    if length < LEAST_TOKENS:
        return False
    return length - on_disk >= _FEW if ends else length >= on_disk * (1 + GROWTH)


class DiskCache:
    """The caches of the conversations of one process, as a context manager that waits for the last file."""

    def __init__(self, states: KeptStates, console: Console) -> None:
        self._states = states
        self._console = console
        self._engine: HoldsStates | None = None
        self._read: tuple[int, ...] = ()  # the last prompt: this much the engine holds
        self._on_disk: tuple[int, ...] = ()
        self._writing: _Writing | None = None
        self._told: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt) and self._writing is not None:
            self._writing.give_up()
        self._wait()

    def adopt(self, engine: HoldsStates, model: CachedModel, tokens: Sequence[int]) -> None:
        """Give the engine what an earlier process read of a prompt that begins with `tokens`, before it is read."""
        self._serve(engine)
        tokens = tuple(tokens)
        held, self._read = common(self._read, tokens), tokens
        if not model.identity or len(tokens) - held < LEAST_TOKENS:
            return
        found = self._states.find(model.identity, tokens, model.context - 1, cuts_anywhere=model.cuts_anywhere)
        if found is None or found.length - held < LEAST_TOKENS:
            return
        kept = self._states.load(found)
        if kept is None:
            return
        if engine.adopt(kept):
            self._on_disk = kept.tokens
        else:
            self._states.drop(found, "the engine refused its state")

    def keep(
        self, engine: HoldsStates, model: CachedModel, tokens: Sequence[int], conversation: int, *, ends: bool
    ) -> None:
        """Write what the engine holds of the beginning of the next prompt, if that is worth it, on a thread."""
        self._serve(engine)
        on_disk = common(self._on_disk, tokens)
        if not model.identity or not worth_writing(len(tokens), on_disk, ends=ends):
            return
        if self._writing is not None and self._writing.goes_on:
            if not ends:
                return
            self._writing.give_up()
        self._wait()
        try:
            kept = engine.export(tokens)
        except MemoryError:
            return
        if kept is None or not worth_writing(len(kept.tokens), on_disk, ends=ends):
            return
        self._on_disk = kept.tokens
        self._writing = _Writing(self._states, kept, model, conversation)

    def _serve(self, engine: HoldsStates) -> None:
        """Another engine holds nothing yet, and may need the file that is being written."""
        if engine is not self._engine:
            self._engine, self._read, self._on_disk = engine, (), ()
            self._wait()

    def _wait(self) -> None:
        """Wait for the file that is written; Ctrl-C ends that without an error."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            if not writing.wait(_SECONDS):
                self._console.say("writing the cache of the conversation to the disk; Ctrl-C leaves without it")
                writing.wait(None)
        except KeyboardInterrupt:
            writing.give_up()
            writing.wait(_SECONDS)
            if is_ending():
                raise
        if writing.failure and writing.failure not in self._told:
            self._told.add(writing.failure)
            self._console.say(writing.failure)


class _Writing:
    """A thread that writes one state."""

    def __init__(self, states: KeptStates, kept: KeptState, model: CachedModel, conversation: int) -> None:
        self.failure: str | None = None
        self._wanted = True
        # It dies with the process where nobody waits for it; a part of a file never has the final name.
        self._thread = threading.Thread(
            target=self._write, args=(states, kept, model, conversation), name="cache", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as error:
            self.failure = f"the cache of this conversation is not kept: {error}"

    @property
    def goes_on(self) -> bool:
        return self._thread.is_alive()

    def wait(self, seconds: float | None) -> bool:
        """Whether it ended within the time."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def give_up(self) -> None:
        self._wanted = False

    def _write(self, states: KeptStates, kept: KeptState, model: CachedModel, conversation: int) -> None:
        try:
            states.save(
                conversation, model.identity, kept, cuts_anywhere=model.cuts_anywhere, wanted=lambda: self._wanted
            )
        except GivenUp:
            pass
        except Unwritten as error:
            self.failure = f"the cache of this conversation is not kept: {error}"
        except OSError as error:
            why = "the disk is full" if is_full(error) else error.strerror or str(error)
            self.failure = f"the cache of this conversation is not kept: {why}"
