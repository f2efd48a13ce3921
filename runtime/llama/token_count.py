"""Counts the tokens of a prompt with the vocabulary alone, in a process that may die, grow or hang.

The weights stay unread, so that a prompt can be refused before a large model is loaded.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from runtime.base.errors import DsrError
from runtime.base.run import Run
from runtime.base.types import ByteCount
from runtime.engine.template import Prompt
from runtime.llama.defaults import model_params
from runtime.llama.limited_child import Limits, answer_of, end_with_parent, restrict, run_child
from runtime.llama.native import native
from runtime.llama.tokenizer import Tokenizer

_JOB = "counting tokens"
_MEMORY = ByteCount(1 << 30)  # program, vocabulary and tables: SmolLM2 takes 0.2 GiB
_MEMORY_PER_BYTE = 64  # of text: Python's numbers, the engine's buffer, pieces
_SECONDS = 60.0
_BYTES_PER_SECOND = 1e5  # of a slow machine


def count_tokens(path: Path, prompt: Prompt, run: Run | None = None) -> int | None:
    """The number of tokens that the model in `path` reads for `prompt`, which need not be tokenized.

    None if the child fails: loading the model then says why. Raises Aborted.
    """
    given = json.dumps({"text": prompt.text, "literal": prompt.literal}).encode()
    limits = Limits(
        memory=ByteCount(_MEMORY + _MEMORY_PER_BYTE * len(given)), seconds=_SECONDS + len(given) / _BYTES_PER_SECOND
    )
    asked = {"path": str(path.absolute()), "memory": limits.memory, "given": len(given)}
    command = [sys.executable, "-c", "from runtime.llama.token_count import main; main()"]
    end = run_child(command, asked, path, limits, run or Run(), given=given, job=_JOB)
    count = (answer_of(end.said) or {}).get("tokens")
    return count if end.code == 0 and isinstance(count, int) else None


def main() -> None:
    """The child."""
    # What native code prints must not mix with the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    asked = json.loads(sys.argv[1])
    given = json.loads(_read(asked["given"]))
    threading.Thread(target=end_with_parent, daemon=True).start()
    restrict(asked["memory"], 1)
    try:
        result = {"tokens": _count(Path(asked["path"]), given["text"], given["literal"])}
    except (DsrError, MemoryError):
        result = {}
    os.write(answer, json.dumps(result).encode())


def _read(length: int) -> bytes:
    """`length` bytes of stdin; nothing after them, which `end_with_parent` waits for."""
    parts = []
    while length and (part := os.read(0, length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _count(path: Path, text: str, literal: list[int]) -> int | None:
    callback = native.llama_progress_callback(lambda *_: True)
    params = model_params(load_mtp=False, vocab_only=True, progress_callback=callback)
    model = native.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        return None
    return len(Tokenizer(native.llama_model_get_vocab(model)).tokenize(text, add_bos=True, literal=literal))
