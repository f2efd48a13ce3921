"""Decides where a text begins in the KV cache: from the sequence that has its longest prefix. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from runtime.engine.backend import Checkpoint
from runtime.engine.splice import Splice

# Reading so few tokens again costs less than giving something up for them: the rest of a conversation, or a checkpoint.
FEW_TOKENS = 64
# Attention covers multiples of so many cells (llama_kv_cache::get_n_kv): fewer idle ones hardly cost time.
_STEP = 256
_LITTLE = 1 / 8  # of the running text's cells: so many idle ones hardly add to its attention
# One answer needs a checkpoint behind its question or a file. A conversation has a system prompt, files, questions.
_OF_AN_ANSWER, _OF_A_CONVERSATION = 1, 3


def planned_checkpoints(slots: int) -> int:
    """The most checkpoints that an engine with `slots` keeps. One slot is a single question."""
    return _OF_AN_ANSWER if slots == 1 else _OF_A_CONVERSATION


def is_crowded(idle: int, running: int) -> bool:
    """Whether so many `idle` cells should leave the cache before a text of `running` cells begins to run alone.

    Every token of its answer attends to them, while moving a cell out and back copies it twice.
    """
    return idle > max(_STEP, running * _LITTLE)


@dataclass(frozen=True, slots=True)
class Start:
    """How a text begins: `target` gets the first `length` tokens of `source`, by the `checkpoint` if it needs one.

    `target` equals `source` if the text continues in the same sequence. `dropped` are idle sequences that are given up
    first. With a `splice`, a later part of `source` is moved behind the prefix.
    """

    target: int
    source: int | None = None
    length: int = 0
    checkpoint: Checkpoint | None = None
    dropped: tuple[int, ...] = ()
    splice: Splice | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A cached sequence of `length` tokens, with its checkpoints by length.

    `earliest` is the shortest length above 0 to which it can be trimmed. 1 means any length, and then a fork can be
    trimmed, too. Other forks hold only what their next token sees.
    """

    length: int
    earliest: int
    checkpoints: Mapping[int, Checkpoint]

    def reach(self, most: int, *, forked: bool = False) -> tuple[int, Checkpoint | None]:
        """The largest length up to `most` to which it, or a fork of it, can go back, and the checkpoint for that."""
        if self.length <= most:
            return self.length, None
        if self.earliest <= (1 if forked else most):
            return most, None
        lengths = [length for length in self.checkpoints if length <= most]
        return (max(lengths), self.checkpoints[max(lengths)]) if lengths else (0, None)


def plan_start(
    common: Mapping[int, tuple[int, Held]], *, free: Collection[int], idle: Sequence[int], busy: Collection[int]
) -> Start | None:
    """Where a text begins; None while every sequence is busy.

    `common` has for each sequence the number of tokens that the text shares with it. `free` sequences hold nothing,
    `idle` ones hold earlier texts, the least recently used first, and `busy` ones draw or read.

    The longest prefix wins. If an idle sequence ends there, the text continues in it. Otherwise the prefix is forked
    into a free sequence, or into the least recently used idle one. If trimming an idle sequence in place saves
    `FEW_TOKENS` more than a fork, it is trimmed, and loses the rest of its text.
    """
    best, source, checkpoint = 0, None, None
    for sequence, (same, held) in common.items():
        length, needed = held.reach(same, forked=True)
        ends_here = needed is None and length == held.length and sequence not in busy
        if length > best or (length == best > 0 and ends_here):
            best, source, checkpoint = length, sequence, needed
    trimmed = ((held.reach(same)[0], sequence) for sequence, (same, held) in common.items() if sequence in idle)
    length, sequence = max(trimmed, default=(0, 0))
    if length - best >= FEW_TOKENS:
        return Start(sequence, sequence, length)
    if source is None:
        target = next(iter(sorted(free)), None)
        target = target if target is not None else next(iter(idle), None)
        return None if target is None else Start(target, dropped=(target,) if target in idle else ())
    if source in idle and checkpoint is None and best == common[source][1].length:
        return Start(source, source, best)
    if free:
        return Start(min(free), source, best, checkpoint)
    others = [sequence for sequence in idle if sequence != source]
    if others:
        return Start(others[0], source, best, checkpoint, dropped=(others[0],))
    return Start(source, source, best, checkpoint) if source in idle else None
