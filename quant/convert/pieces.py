"""The vocabulary of a SentencePiece tokenizer.model, with the tokens that were added later in other files.

Rules: _create_vocab_sentencepiece of llama.cpp's converter (conversion/base.py), and Phi3MiniModel (conversion/phi.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gguf import TokenType

from quant.convert.byte_level import number_of
from quant.convert.special_tokens import listed
from quant.convert.tokenizer_files import JSON, TokenizerFiles
from quant.convert.vocabulary import NEVER, SPACE, UNLIKELY, Vocabulary, looks_special
from quant.sources.checkpoint import Checkpoint

_KEPT = (TokenType.UNKNOWN, TokenType.CONTROL, TokenType.UNUSED, TokenType.BYTE)


def pieces_vocabulary(
    checkpoint: Checkpoint, files: TokenizerFiles, config: Mapping[str, Any], size: int, *, strict: bool
) -> Vocabulary:
    """The vocabulary of `files.pieces`. `config` is the object of tokenizer_config.json. `strict`: an added token is a
    control token only where a file says so, and tokenizer.json adds tokens too. Raises BadModelFile."""
    texts = [f"[PAD{number}]".encode() for number in range(size)]
    scores, types = [NEVER] * size, [int(TokenType.UNUSED)] * size
    for number, piece in enumerate(files.pieces[:size]):
        texts[number], scores[number] = piece.text, piece.score
        types[number] = piece.type if piece.type in _KEPT else TokenType.NORMAL
    added: dict[str, int] = {}

    def add(at: int, text: str, token: str, kind: int) -> None:
        if 0 <= at < size:
            added[text] = at
            texts[at], scores[at], types[at] = token.encode("utf-8", "replace"), UNLIKELY, int(kind)

    for text, at in (checkpoint.json("added_tokens.json") or {}).items():
        if type(at) is int:
            add(at, text, text, TokenType.USER_DEFINED)
    for at, text, special in _later(checkpoint, files.described, config, strict=strict):
        control = special or (not strict and looks_special(text))
        token = text if control or strict else text.replace(SPACE, " ")
        add(at, text, token, TokenType.CONTROL if control else TokenType.USER_DEFINED)
    return Vocabulary("llama", texts, types, pre="default", scores=scores, added=added)


def _later(
    checkpoint: Checkpoint, described: Mapping[str, Any], config: Mapping[str, Any], *, strict: bool
) -> Iterator[tuple[int, str, bool]]:
    """Number, text and whether it is special, of each token that was added later."""
    decoder = config.get("added_tokens_decoder")
    entries = [(number_of(key), each) for key, each in decoder.items()] if isinstance(decoder, Mapping) else []
    if strict:
        more = listed(described, "added_tokens", checkpoint.folder / JSON)
        entries += [(each.get("id"), each) for each in more if isinstance(each, Mapping)]
    for at, each in entries:
        token = each.get("content") if isinstance(each, Mapping) else None
        if isinstance(token, str) and type(at) is int:
            yield at, token, bool(each.get("special"))
