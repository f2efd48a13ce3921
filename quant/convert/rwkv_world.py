"""RWKV's vocabulary file: a line for each token, with its number, a Python literal of text or bytes, and its length.

Rules: _set_vocab_rwkv_world of llama.cpp's converter (conversion/base.py).
"""

from __future__ import annotations

import ast
import warnings
from pathlib import Path

from gguf import TokenType

from quant.convert.vocabulary import Vocabulary, filled
from runtime.base.errors import ONE_MODEL, PUBLISHED, BadModelFile

NAME = "rwkv_vocab_v20230424.txt"
_LONGEST = 1 << 10  # characters of a line; the longest published one has 543
# RWKV's own way to write a conversation (RWKV-LM, "RWKV-chat"), for repositories without a template.
TEMPLATE = (
    "{% for message in messages %}{{ {'system': 'System', 'user': 'User', 'assistant': 'Assistant'}[message['role']] "
    "+ ': ' + message['content'] | trim + '\\n\\n' }}{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def rwkv_world(text: str, size: int, path: Path) -> Vocabulary:
    """The vocabulary in `text`, the content of the file at `path`. Token 0 ends a text. Raises BadModelFile."""
    known: dict[int, tuple[str | bytes, int]] = {0: ("<s>", TokenType.CONTROL)}
    lines = text.removesuffix("\n").split("\n")
    if len(lines) >= size:
        problem = f"has {len(lines)} tokens besides the first, but config.json says vocab_size {size}"
        raise BadModelFile(path, problem, hint=ONE_MODEL)
    with warnings.catch_warnings(action="ignore", category=Warning):  # Python's own, of odd escapes in a literal
        for line in lines:
            known[len(known)] = repr(_token(line.rstrip("\r"), len(known), path))[2:-1], TokenType.NORMAL
    tokens, types = filled(known, size, path)
    return Vocabulary("rwkv", tokens, types)


def _token(line: str, number: int, path: Path) -> bytes:
    parts = line.split(" ")
    try:
        if len(parts) < 3 or len(line) > _LONGEST or parts[0] != str(number):
            raise ValueError
        value = ast.literal_eval(" ".join(parts[1:-1]))
        token = value.encode("utf-8") if isinstance(value, str) else value
        if not isinstance(token, bytes) or len(token) != int(parts[-1]):
            raise ValueError
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        raise BadModelFile(path, f"line {number} is not token {number}: {line[:60]!r}", hint=PUBLISHED) from None
    return token
