"""Text to tokens, whatever the text: nothing in it ends the process, and nothing only quoted becomes a special token.

Facts from llama.cpp (src/llama-vocab.cpp as vendored in llama-cpp-python 0.3.36) that are handled here:
- A long match of a pre-tokenizer overflows the stack; see `runtime.llama.text_pieces`.
- `add_special` also adds the token that ends a text, if the vocabulary has that flag. The flag is for training.
- Without `parse_special`, user-defined tokens are still found, and merges can still spell a control token.
- SPM vocabularies put a space before a text, so also before the second part of a text that was cut.
- The length of a text is an int32. A greater one would wrap around.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

from runtime.base.errors import Aborted, EngineFailed, UsageError
from runtime.base.run import Stop
from runtime.llama.native import native
from runtime.llama.text_pieces import LONGEST, SpecialToken, has_long_stretch, pieces, split_at_specials

# Up to this many characters the engine itself looks for special tokens. More could make that slow, and then it does
# not take long to do it here.
_SHORT = 8192
_MOST_BYTES = 2**31 - 2**10
# Stands before a part that continues a text, so that SPM's space comes before this. A character of no language
# (Unicode 3.4, noncharacters), so no token has it.
_JOINT = "\ufdd0"

_SPM, _BPE, _WPM = 1, 2, 3  # enum llama_vocab_type (llama.h)
# enum llama_token_attr (llama.h)
_SPECIAL = native.LLAMA_TOKEN_ATTR_UNKNOWN | native.LLAMA_TOKEN_ATTR_CONTROL | native.LLAMA_TOKEN_ATTR_USER_DEFINED

# Ordinary text; white space that some vocabularies cannot read; and characters of all kinds.
TRIAL_TEXT = "Is 1 + 1 = 2?  Ja,\tgrößer: 日本語 🙂\n\n" + "".join(
    chr(code) for code in range(0, 0x110000, 61) if not 0xD800 <= code < 0xE000
)
_BYTES_OF_UTF8 = (*range(0xC0), *range(0xC2, 0xF5))


class Tokenizer:
    """The tokenizer of an open vocabulary (`struct llama_vocab *`), valid as long as its model is."""

    def __init__(self, vocab: Any, stop: Stop | None = None) -> None:
        """A set `stop` ends the work on a long text with Aborted."""
        self._vocab = vocab
        self._stop = stop or Stop()
        self._type = int(native.llama_vocab_type(vocab))
        self._known: dict[str, list[int]] = {}  # short pieces of this text: a run is one piece a thousand times

    @property
    def first_token(self) -> int | None:
        """The token that begins every text of this model; None if it has none."""
        token = int(native.llama_vocab_bos(self._vocab)) if native.llama_vocab_get_add_bos(self._vocab) else -1
        return token if token >= 0 else None

    def tokenize(self, text: str, *, add_bos: bool = False, literal: Sequence[int] = ()) -> list[int]:
        """Token ids of a text in which special tokens are spelled out; the spellings at `literal` offsets are text.

        `add_bos`: begin with `first_token`, if the text does not do so itself. Texts without a stretch that is too long
        for the engine get the engine's own result. Raises UsageError for 2 GiB of text and more, Aborted.
        """
        self._known.clear()
        tokens = self._tokens(text, sorted(literal))
        first = self.first_token
        if add_bos and first is not None and tokens[:1] != [first]:
            tokens.insert(0, first)
        return tokens

    def whole(self, text: str) -> list[int]:
        """Token ids of a whole text, between `begin` and `end`. Raises as `tokenize` does."""
        return [*self.begin, *self.tokenize(text), *self.end]

    @cached_property
    def begin(self) -> tuple[int, ...]:
        """The tokens that begin a whole text: the first one that the engine adds, if it begins texts."""
        return self._frame[: int(self._begins)]

    @cached_property
    def end(self) -> tuple[int, ...]:
        """The tokens that end a whole text, such as BERT's [SEP]."""
        return self._frame[int(self._begins) :]

    @cached_property
    def _frame(self) -> tuple[int, ...]:
        return tuple(self._read(b"", add_special=True))

    @property
    def _begins(self) -> bool:
        return self._type == _WPM or bool(native.llama_vocab_get_add_bos(self._vocab))

    @property
    def spells_bytes(self) -> bool:
        """Whether a character without a token is read byte by byte; other vocabularies have a token for all of them."""
        return self._type in (_SPM, _BPE)

    def read_every_byte(self) -> list[int]:
        """The tokens of each byte that UTF-8 has, one by one.

        Vocabularies read a character without a token byte by byte, whatever other characters they have. At a byte that
        it cannot read the engine ends the process or never returns, so only a child process calls this.
        """
        return [token for byte in _BYTES_OF_UTF8 for token in self._read(bytes((byte,)))]

    def _tokens(self, text: str, literal: Sequence[int]) -> list[int]:
        if not literal and len(text) <= _SHORT and not (self._type == _BPE and has_long_stretch(text)):
            return self._call(text, special=True)
        tokens: list[int] = []
        for part in split_at_specials(text, self._specials, frozenset(literal)):
            if isinstance(part, int):
                tokens.append(part)
            else:
                begin, end = part
                inside = literal[bisect_left(literal, begin) : bisect_left(literal, end)]
                tokens += self._plain(text[begin:end], [at - begin for at in inside])
        return tokens

    def _plain(self, text: str, literal: Sequence[int]) -> list[int]:
        """Tokens of a text that has special tokens at most at `literal`, where they are text."""
        tokens = self._in_pieces(text)
        if literal and not self._special_ids.isdisjoint(tokens):
            # The engine found one all the same. Cut after its first character it cannot be found.
            cuts = [0, *(at + 1 for at in literal if at + 1 < len(text)), len(text)]
            tokens = [each for begin, end in pairwise(cuts) for each in self._in_pieces(text[begin:end], begin > 0)]
        return tokens

    def _in_pieces(self, text: str, continued: bool = False) -> list[int]:
        """`continued`: the text goes on from a part before it."""
        if continued and self._type == _SPM:
            return self._call(_JOINT + text)[len(self._call(_JOINT)) :]
        parts: Iterable[str] = pieces(text) if self._type == _BPE else (text,)
        tokens: list[int] = []
        for part in parts:
            if self._stop.take():
                raise Aborted
            if len(part) > LONGEST:
                tokens += self._call(part)
                continue
            if part not in self._known:
                self._known[part] = self._call(part)
            tokens += self._known[part]
        return tokens

    def _call(self, text: str, *, special: bool = False) -> list[int]:
        data = text.encode("utf-8", "replace")
        if len(data) > _MOST_BYTES:
            raise UsageError(f"the text has {len(data)} bytes, and the engine reads at most {_MOST_BYTES} at once")
        return self._read(data, special=special)

    def _read(self, data: bytes, *, special: bool = False, add_special: bool = False) -> list[int]:
        room = len(data) + 8
        while True:
            buffer = (ctypes.c_int32 * room)()
            count = native.llama_tokenize(self._vocab, data, len(data), buffer, room, add_special, special)
            if count >= 0:
                return buffer[:count]
            if -count <= room:
                raise EngineFailed("the engine could not tokenize this text")
            room = -count

    @cached_property
    def _specials(self) -> tuple[SpecialToken, ...]:
        """The tokens that the engine finds by their spelling, in the order in which it looks for them."""
        vocab, found = self._vocab, []
        for token in range(native.llama_vocab_n_tokens(vocab)):
            attributes = native.llama_vocab_get_attr(vocab, token)
            if attributes & _SPECIAL:
                found.append((native.llama_vocab_get_text(vocab, token), token, attributes))
        found.sort(key=lambda each: -len(each[0]))
        return tuple(
            SpecialToken(
                token,
                text.decode("utf-8", "replace"),
                lstrip=bool(attributes & native.LLAMA_TOKEN_ATTR_LSTRIP),
                rstrip=bool(attributes & native.LLAMA_TOKEN_ATTR_RSTRIP),
            )
            for text, token, attributes in found
            if text
        )

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(each.token for each in self._specials)
