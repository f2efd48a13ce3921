"""How soon a conversation goes on that an earlier process read, and what keeping it costs the answers.

    python tests/peers/resume.py MODEL [--tokens 7500] [--context 8192] [--pairs 5] [--threads T]

Prints two lists of interleaved pairs. First the seconds from a conversation of so many tokens, as `dsr chat --resume`
has it, to the first token of its next answer: from the cache on the disk, and by reading. The file was written by the
same script, so it is in the system's memory as after a short break. Then the seconds of an answer of 64 tokens: while a
thread writes the whole cache of that conversation, which is the worst moment, and without it. The last line has the
seconds in which the state is taken out of the engine between two answers, and the size of the file.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dsr.chat.conversation import Conversation
from dsr.chat.disk_cache import CachedModel, DiskCache
from dsr.loading.load import LoadedModel, load
from dsr.loading.options import LoadOptions
from dsr.models import library
from dsr.store.kept_states import KeptStates
from dsr.ui.console import Console
from runtime.base.events import TextDrawn
from runtime.base.run import Run
from runtime.base.types import Message, SamplingParams
from tests.peers.common import report

ANSWER = 64  # tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=7500)
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # The first opening of a model measures the number of threads and tries the file; neither belongs here.
        os.environ["DSR_HOME"] = folder
        run = Run(threads=options.threads)
        with load(library.find(options.model), LoadOptions(context=options.context), run) as loaded:
            measure(loaded, options.tokens, options.pairs, Path(folder) / "kept")


def measure(loaded: LoadedModel, tokens: int, pairs: int, folder: Path) -> None:
    turns = turns_of(loaded, tokens)
    states = KeptStates(folder, 1 << 40)
    begun = conversation(loaded, turns, states)
    first_token(begun)
    save(begun)
    resumed, read = [], []
    for _ in range(pairs):
        warm, cold = conversation(loaded, turns, states), conversation(loaded, turns, None)
        resumed.append(first_token(warm))
        read.append(first_token(cold))
        for each, cached in ((warm, True), (cold, False)):
            assert each.last is not None
            assert (each.last.cached > 0.9 * tokens) is cached, each.last.cached
    report(f"first token after --resume of {tokens} tokens", resumed, read, "s", "read again")
    kept, alone, taken = [], [], []
    for _ in range(pairs):
        for seconds, keeps in ((kept, True), (alone, False)):
            each = conversation(loaded, turns, states)
            first_token(each)
            if keeps:
                taken.append(save(each, wait=False))
            seconds.append(answer(each))
            assert each.disk is not None
            each.disk._wait()
    report(f"an answer of {ANSWER} tokens while the cache is written", kept, alone, "s", "not written")
    [file] = folder.glob("*.state")
    print(
        f"taken out of the engine in {statistics.median(taken):.3f} s; {file.stat().st_size / 1e6:.0f} MB on the disk"
    )


def turns_of(loaded: LoadedModel, tokens: int) -> list[Message]:
    """A conversation of about so many tokens."""
    turns: list[Message] = []
    number = 0
    while len(loaded.prompt([*turns, Message("user", "x")]).tokens) < tokens - 150:
        words = " ".join(f"note {number + each} says {(number + each) * 7919 % 1009}" for each in range(20))
        turns += [Message("user", f"Remember: {words}."), Message("assistant", f"I remember note {number}.")]
        number += 20
    return turns


def conversation(loaded: LoadedModel, turns: list[Message], states: KeptStates | None) -> Conversation:
    disk = DiskCache(states, Console(quiet=True)) if states is not None else None
    params = SamplingParams(temperature=0, max_tokens=ANSWER)
    return Conversation(loaded, params, turns=list(turns), disk=disk)


def first_token(conversation: Conversation) -> float:
    """Seconds from the open model to the first text of the answer, which is then drawn to its end."""
    started = time.perf_counter()
    conversation.begin_from_disk(1)
    first = None
    for event in conversation.ask("Which note was the first?"):
        if isinstance(event, TextDrawn) and first is None:
            first = time.perf_counter() - started
    assert first is not None
    return first


def answer(conversation: Conversation) -> float:
    started = time.perf_counter()
    for _ in conversation.ask("And which one was the last? Tell me all that you know about it."):
        pass
    assert conversation.last is not None
    return (time.perf_counter() - started) / max(1, len(conversation.last.completion.tokens)) * ANSWER


def save(conversation: Conversation, *, wait: bool = True) -> float:
    """Write the whole state as if there were no file; returns the seconds before the thread has it."""
    assert conversation.disk is not None and conversation._engine is not None
    conversation.disk._file = None
    started = time.perf_counter()
    conversation.disk.keep(conversation._engine, CachedModel.of(conversation.loaded), conversation._read, 1, ends=True)
    seconds = time.perf_counter() - started
    if wait:
        conversation.disk._wait()
    return seconds


if __name__ == "__main__":
    main()
