"""A vocabulary on its way into a GGUF: the tokens in order with their types, and the engine's tokenizer for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gguf import Keys, TokenType

from quant.gguf import writer
from quant.gguf.writer import KeyValue
from runtime.base.errors import ONE_MODEL, PUBLISHED, BadModelFile
from runtime.base.quoted import spelled

SPACE = "\u2581"  # how SentencePiece writes a space
UNLIKELY = -1000.0  # the score of a token that no merging yields
NEVER = -10000.0


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`model` and `pre` are the engine's names of the tokenizer and its pre-tokenizer; `pre` is "" for one without.
    `types` are numbers of gguf.TokenType. `merges` may be empty. `added` has the numbers of added tokens by their text.
    `space_prefix`: whether the files say that a text begins with a space; None if they do not say it."""

    model: str
    tokens: Sequence[bytes]
    types: Sequence[int]
    pre: str = ""
    scores: Sequence[float] = ()
    merges: Sequence[bytes] = ()
    added: Mapping[str, int] = field(default_factory=dict)
    space_prefix: bool | None = None

    def entries(self) -> list[KeyValue]:
        """Returns the metadata, in the order of llama.cpp's converter."""
        keys = Keys.Tokenizer
        entries = [writer.text(keys.MODEL, self.model)]
        if self.pre:
            entries.append(writer.text(keys.PRE, self.pre))
        entries.append(writer.texts(keys.LIST, self.tokens))
        if self.scores:
            entries.append(writer.f32s(keys.SCORES, self.scores))
        entries.append(writer.i32s(keys.TOKEN_TYPE, self.types))
        if self.merges:
            entries.append(writer.texts(keys.MERGES, self.merges))
        return entries


def filled(
    known: Mapping[int, tuple[str | bytes, int]], size: int, path: Path
) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
    """Returns `size` tokens and their types from `known`, which has both by number. Numbers without a token get a text
    of their own. Raises BadModelFile for a number that is no token of a vocabulary of `size`."""
    if known and max(known) >= size:
        raise BadModelFile(path, f"has a token {max(known)}, but config.json says vocab_size {size}", hint=ONE_MODEL)
    tokens, types = [], []
    for number in range(size):
        text, kind = known.get(number, (f"[PAD{number}]", TokenType.UNUSED))
        tokens.append(text if isinstance(text, bytes) else text.encode("utf-8", "replace"))
        types.append(int(kind))
    return tuple(tokens), tuple(types)


def proper_number(token: str, number: object, path: Path) -> int:
    """Returns the number of a token. Raises BadModelFile for anything else."""
    if type(number) is not int or not 0 <= number < 2**31:
        raise BadModelFile(path, f"the token {spelled(token)} has no valid number", hint=PUBLISHED)
    return number


def looks_special(text: str) -> bool:
    """Some models forget to mark control tokens as special (does_token_look_special in conversion/base.py)."""
    bars = (text.startswith("<|") and text.endswith("|>")) or (text.startswith("<｜") and text.endswith("｜>"))
    unused = text.startswith("<unused") and text.endswith(">")
    return bars or unused or text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]")


def _byte_characters() -> dict[str, int]:
    """GPT-2's characters for bytes: printable ones stand for themselves, the others for code points from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + number): byte for number, byte in enumerate(others)}


BYTE_OF = _byte_characters()
CHARACTER_OF = {byte: character for character, byte in BYTE_OF.items()}


def spelled_bytes(raw: Iterable[int]) -> str:
    """Returns bytes in GPT-2's characters."""
    return "".join(CHARACTER_OF[byte] for byte in raw)
