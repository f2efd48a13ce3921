"""A cached sequence that can leave the process and come back: its tokens, its state, its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.engine.backend import Checkpoint


@dataclass(frozen=True, slots=True)
class KeptState:
    """What `Engine.export` gives and `Engine.adopt` takes.

    `state` is the whole state of a sequence that holds exactly `tokens`, in the engine's own format. `checkpoints` are
    the shorter lengths that the model can go back to, ascending; models that can go back to any length have none.
    """

    tokens: tuple[int, ...]
    state: bytes
    checkpoints: tuple[Checkpoint, ...] = ()
