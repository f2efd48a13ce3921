"""Caches of conversations on disk: written after an answer, adopted by the next process before it reads the prompt.

No answer depends on them. If a cache cannot be used or written, the text is read again, and one line says so.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from dsr.loading.load import LoadedModel
from dsr.store.kept_states import LEAST_TOKENS, GivenUp, KeptStates, Unwritten
from dsr.store.state_file import Head, head_of
from dsr.ui.console import Console
from dsr.ui.interrupts import is_ending
from runtime.base.common_prefix import common_length
from runtime.base.disk_errors import is_full
from runtime.base.events import Listener, Notice, ignore
from runtime.base.types import ByteCount
from runtime.engine.kept_state import KeptState
from runtime.machine.host import probe, yield_to_others
from runtime.placement.cache_shape import cache_shape

# A file is written whole. During a conversation, it is written again after it grew by this share: all files of a
# conversation together are then at most five times the last one. The rest is written when the conversation ends.
GROWTH = 1 / 4
# Reading fewer tokens again is faster than writing them.
_FEW = 64
_COPIES = 2  # of a state in memory at once: the engine's own buffer, and the bytes of the file
_SECONDS = 1.0  # a longer wait at the end gets a line


class HoldsStates(Protocol):
    """The part of `Engine` that is needed here."""

    def export(self, tokens: Sequence[int]) -> KeptState | None: ...
    def adopt(self, kept: KeptState) -> bool: ...


@dataclass(frozen=True, slots=True)
class CachedModel:
    """The facts of a loaded model that decide which files it may use.

    `identity` is its `state_identity`; without one, nothing is kept. `context` is in tokens. `token_bytes`: bytes
    for one token in the cache. `cuts_anywhere`: whether a loaded state can be cut to any length. A state has only
    the last window of windowed layers, also one of a cache that keeps them in full (llama_kv_cache::state_write).
    """

    identity: str
    context: int
    cuts_anywhere: bool
    token_bytes: int = 0

    @classmethod
    def of(cls, loaded: LoadedModel) -> CachedModel:
        backend = loaded.backend
        cuts = backend.cuts_anywhere and not any(layer.windowed for layer in cache_shape(loaded.card).layers)
        return cls(loaded.state_identity, backend.context, cuts, loaded.token_bytes)


def worth_writing(length: int, on_disk: int, *, ends: bool) -> bool:
    """Whether to write a state of `length` tokens if a file already has the first `on_disk` of them.

    `ends`: the conversation ends, so this is the last chance.
    """
    if length < LEAST_TOKENS:
        return False
    return length - on_disk >= _FEW if ends else length >= on_disk * (1 + GROWTH)


class DiskCache:
    """Reads and writes the caches of one process; a context manager that waits for the last file.

    `listen` gets a Notice if a text is read again although it has a file.
    """

    def __init__(self, states: KeptStates, console: Console, listen: Listener = ignore) -> None:
        self._states = states
        self._console = console
        self._listen = listen
        self._engine: HoldsStates | None = None
        self._sought: tuple[int, ...] = ()  # the last prompt: this much the engine holds, or will
        self._file: Head | None = None  # the last one that was loaded or written
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

    def adopt(
        self, engine: HoldsStates, model: CachedModel, tokens: Sequence[int], conversation: int | None = None
    ) -> None:
        """Give the engine the state of an earlier process with the longest prefix of `tokens`, before it reads them.

        `conversation` is the number of the resumed one, if there is one.
        """
        self._serve(engine)
        tokens = tuple(tokens)
        held, self._sought = common_length(self._sought, tokens), tokens
        if not model.identity or len(tokens) - held < LEAST_TOKENS:
            return
        found = self._states.find(model.identity, tokens, model.context - 1, cuts_anywhere=model.cuts_anywhere)
        if found is None and conversation is not None and self._states.is_of_another(conversation, model.identity):
            self._listen(Notice("the conversation is read again: its cache is of another model, engine or option"))
        if found is None or found.length - held < LEAST_TOKENS or self._lacks_memory(found.size):
            return
        kept = self._states.load(found)
        if kept is None:
            return
        if engine.adopt(kept):
            self._file = head_of(kept)
        else:
            self._states.drop(found, "the engine refused its state")

    def grew(self, length: int) -> bool:
        """Whether `keep` may be worth its call in a running conversation of about `length` tokens."""
        return worth_writing(length, len(self._file.tokens) if self._file is not None else 0, ends=False)

    def keep(
        self, engine: HoldsStates, model: CachedModel, tokens: Sequence[int], conversation: int, *, ends: bool
    ) -> None:
        """Write the state with the longest prefix of `tokens` on a thread, if that is worth it. The next prompt begins
        with `tokens`.

        After a signal that ends dsr, it writes nothing.
        """
        self._serve(engine)
        on_disk = _spared(self._file, tokens, model) if self._file is not None else 0
        if not model.identity or not worth_writing(len(tokens), on_disk, ends=ends) or is_ending():
            return
        if self._writing is not None and self._writing.running:
            if not ends:
                return
            self._writing.give_up()
        self._wait()
        if self._lacks_memory(model.token_bytes * len(tokens)):
            return
        try:
            kept = engine.export(tokens)
        except MemoryError:
            return
        if kept is None or not worth_writing(_spared(head_of(kept), tokens, model), on_disk, ends=ends):
            return
        self._file = head_of(kept)
        self._writing = _Writing(self._states, kept, model, conversation)

    def _lacks_memory(self, size: int) -> bool:
        """Whether free memory is too small to move a state of `size` bytes out of the engine or into it."""
        needed, available = ByteCount(_COPIES * size), probe().memory_available
        if needed <= available:
            return False
        self._listen(Notice(f"the cache of the conversation is not used: it takes {needed}, and {available} is free"))
        return True

    def _serve(self, engine: HoldsStates) -> None:
        """Take note of another engine: it holds nothing yet, and may need the file that is being written."""
        if engine is not self._engine:
            self._engine, self._sought, self._file = engine, (), None
            self._wait()

    def _wait(self) -> None:
        """Wait until the file is written; Ctrl-C ends the wait without an error."""
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
        if writing.note:
            self._listen(Notice(writing.note))
        if writing.failure and writing.failure not in self._told:
            self._told.add(writing.failure)
            self._console.say(writing.failure)


def _spared(file: Head, tokens: Sequence[int], model: CachedModel) -> int:
    """How many of `tokens` a longer prompt with this prefix need not read. The file may continue differently."""
    return file.reaches((*tokens, -1), cuts_anywhere=model.cuts_anywhere)


class _Writing:
    """A thread that writes one state."""

    def __init__(self, states: KeptStates, kept: KeptState, model: CachedModel, conversation: int) -> None:
        self.failure: str | None = None  # is always shown
        self.note: str | None = None  # is shown with --stats
        self._wanted = True
        # It dies with the process if nobody waits for it. An unfinished file never has the final name.
        self._thread = threading.Thread(
            target=self._write, args=(states, kept, model, conversation), name="cache", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as error:
            self.failure = f"the cache of this conversation is not kept: {error}"

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def wait(self, seconds: float | None) -> bool:
        """Whether it ended within the time."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def give_up(self) -> None:
        self._wanted = False

    def _write(self, states: KeptStates, kept: KeptState, model: CachedModel, conversation: int) -> None:
        yield_to_others()
        try:
            states.save(
                conversation, model.identity, kept, cuts_anywhere=model.cuts_anywhere, wanted=lambda: self._wanted
            )
        except GivenUp:
            pass
        except Unwritten as error:
            self.note = f"the cache of this conversation is not kept: {error}"
        except OSError as error:
            why = "the disk is full" if is_full(error) else error.strerror or str(error)
            self.failure = f"the cache of this conversation is not kept: {why}"
