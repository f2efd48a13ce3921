"""A checkpoint's tokenizer as metadata of a GGUF: vocabulary, types of tokens, merges, special tokens, chat template.

Keys and rules are those of llama.cpp's converter and gguf's SpecialVocab (conversion/base.py, gguf-py/gguf/vocab.py of
llama.cpp as vendored in llama-cpp-python 0.3.36); what transformers does when it loads a fast tokenizer is repeated
where it shows in the result.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from gguf import Keys, TokenType

from quant.convert import pretokenizer
from quant.convert.sentencepiece import Piece
from quant.convert.special_tokens import SpecialTokens, listed, special_tokens
from quant.convert.tokenizer_files import CONFIG, JSON, TokenizerFiles, find_tokenizer
from quant.gguf import writer
from quant.gguf.writer import KeyValue
from quant.sources.checkpoint import Checkpoint
from runtime.base.errors import ONE_MODEL, PUBLISHED, BadModelFile
from runtime.base.quoted import spelled

_SPACE = "\u2581"  # how SentencePiece writes a space
_UNLIKELY = -1000.0  # the score of a token that no merging yields
_NEVER = -10000.0
_CODE_LLAMA = 32016  # the sizes of two vocabularies with rules of their own (LlamaModel in conversion/llama.py)
_SMOLLM = 49152


def read(checkpoint: Checkpoint, size: int, *, pre: str | None, sentencepiece: bool) -> tuple[KeyValue, ...]:
    """Metadata for a vocabulary of `size` tokens. `pre` overrides what would be recognised; `sentencepiece`: the
    architecture's models may have a tokenizer.model instead of byte-level BPE.

    Raises NotFound (no tokenizer), BadModelFile (a damaged one, or one larger than the model's vocabulary),
    Incompatible (not byte-level BPE, or cutting words in a way that is not recognised), UsageError (an unknown `pre`).
    """
    if pre is not None:
        pretokenizer.check_name(pre)
    config = checkpoint.json(CONFIG)
    llama = checkpoint.config.get("architectures", [""])[0] in ("LlamaForCausalLM", "MixtralForCausalLM")
    entries: list[KeyValue] = []
    if llama and config is not None and isinstance(config.get("add_prefix_space"), bool):
        entries.append(writer.boolean(Keys.Tokenizer.ADD_PREFIX, config["add_prefix_space"]))
    files = find_tokenizer(checkpoint, pre, may_be_sentencepiece=sentencepiece)
    if files.pieces:
        entries += _sentencepiece(checkpoint, files.pieces, config or {}, size)
    else:
        entries += _byte_level(checkpoint, files, config or {}, size)
    entries += _special(special_tokens(checkpoint, files.described, size))
    if llama and size == _CODE_LLAMA:
        keys = Keys.Tokenizer
        for key, token in (
            (keys.PREFIX_ID, 32007),
            (keys.SUFFIX_ID, 32008),
            (keys.MIDDLE_ID, 32009),
            (keys.EOT_ID, 32010),
        ):
            entries.append(writer.u32(key, token))
    if llama and size == _SMOLLM:
        entries = [entry for entry in entries if entry.key != Keys.Tokenizer.ADD_BOS]
        entries.append(writer.boolean(Keys.Tokenizer.ADD_BOS, False))
    return tuple(entries)


def _byte_level(checkpoint: Checkpoint, files: TokenizerFiles, config: Mapping[str, Any], size: int) -> list[KeyValue]:
    """Returns the metadata of byte-level BPE: tokens in order, their types, and the merges."""
    path, tokenizer = checkpoint.folder / JSON, files.described
    model = tokenizer["model"]
    added = _added_tokens(tokenizer, config, model["vocab"], path)
    by_id: dict[int, str] = {}
    for token, number in (*model["vocab"].items(), *((token, each["id"]) for token, each in added.items())):
        if type(number) is not int or not 0 <= number < 2**31:
            raise BadModelFile(path, f"the token {spelled(token)} has no proper number", hint=PUBLISHED)
        by_id[number] = token
    if by_id and max(by_id) >= size:
        raise BadModelFile(path, f"has a token {max(by_id)}, but config.json says vocab_size {size}", hint=ONE_MODEL)
    texts, types = [], []
    for number in range(size):
        known = by_id.get(number)
        text, kind = (f"[PAD{number}]", TokenType.UNUSED) if known is None else _token(known, added.get(known))
        texts.append(text.encode("utf-8", "replace"))
        types.append(kind)
    entries = [
        writer.text(Keys.Tokenizer.MODEL, "gpt2"),
        writer.text(Keys.Tokenizer.PRE, files.pre),
        writer.texts(Keys.Tokenizer.LIST, texts),
        writer.i32s(Keys.Tokenizer.TOKEN_TYPE, types),
    ]
    merges = [_merge(merge, path) for merge in listed(model, "merges", path)]
    if merges:
        entries.append(writer.texts(Keys.Tokenizer.MERGES, merges))
    return entries


def _added_tokens(
    tokenizer: Mapping[str, Any], config: Mapping[str, Any], vocabulary: Mapping[str, int], path: Any
) -> dict[str, dict[str, Any]]:
    """Returns added tokens by text: of tokenizer.json, then those only tokenizer_config.json has, then named
    special tokens that are mere vocabulary (PreTrainedTokenizerFast.__init__ of transformers)."""
    added: dict[str, dict[str, Any]] = {}
    for each in listed(tokenizer, "added_tokens", path):
        if not isinstance(each, dict) or not isinstance(each.get("content"), str):
            raise BadModelFile(path, "an added token has no text", hint=PUBLISHED)
        # A text that the vocabulary has keeps the number it has there.
        added[each["content"]] = {**each, "id": vocabulary.get(each["content"], each.get("id"))}
    decoder = config.get("added_tokens_decoder")
    for number, each in decoder.items() if isinstance(decoder, Mapping) else ():
        text = each.get("content") if isinstance(each, Mapping) else None
        if isinstance(text, str) and text not in added and _number(number) is not None:
            added[text] = {**each, "id": vocabulary.get(text, _number(number))}
    for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
        value = config.get(f"{name}_token")
        text = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(text, str) and text not in added and text in vocabulary:
            added[text] = {"id": vocabulary[text], "special": True}
    return added


def _token(text: str, added: Mapping[str, Any] | None) -> tuple[str, int]:
    """Returns a token's text and type in the form of the engine."""
    if added is None:
        return text, TokenType.NORMAL
    if not added.get("normalized"):
        text = _decoded(text)
    if added.get("special") or _looks_special(text):
        return text, TokenType.CONTROL
    return text.replace(_SPACE, " "), TokenType.USER_DEFINED


def _decoded(text: str) -> str:
    """Returns the bytes of a token's text in a byte-level decoder, if every character stands for a byte."""
    codes = [_BYTE_OF.get(character) for character in text]
    known = [code for code in codes if code is not None]
    return bytes(known).decode("utf-8", "replace") if len(known) == len(codes) else text


def _byte_characters() -> dict[str, int]:
    """GPT-2's characters for bytes: printable ones stand for themselves, the others for code points from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + number): byte for number, byte in enumerate(others)}


_BYTE_OF = _byte_characters()


def _looks_special(text: str) -> bool:
    """Some models forget to mark control tokens as special."""
    bars = (text.startswith("<|") and text.endswith("|>")) or (text.startswith("<｜") and text.endswith("｜>"))
    unused = text.startswith("<unused") and text.endswith(">")
    return bars or unused or text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]")


def _number(text: str) -> int | None:
    """The number of a token, which JSON has as the name of a field."""
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None


def _merge(merge: Any, path: Any) -> bytes:
    """ "a b", from that text or from ["a", "b"], in which spaces may be part of a token."""
    if isinstance(merge, str):
        return merge.encode("utf-8", "replace")
    if isinstance(merge, list) and len(merge) == 2 and all(isinstance(part, str) for part in merge):
        return " ".join(part.replace(" ", "Ġ") for part in merge).encode("utf-8", "replace")
    raise BadModelFile(path, "a merge is not two texts", hint=PUBLISHED)


def _sentencepiece(
    checkpoint: Checkpoint, pieces: Sequence[Piece], config: Mapping[str, Any], size: int
) -> list[KeyValue]:
    """A SentencePiece vocabulary; tokens that were added later have a text of their own."""
    texts = [f"[PAD{number}]".encode() for number in range(size)]
    scores, types = [_NEVER] * size, [TokenType.UNUSED] * size
    kept = (TokenType.UNKNOWN, TokenType.CONTROL, TokenType.UNUSED, TokenType.BYTE)
    for number, piece in enumerate(pieces[:size]):
        texts[number], scores[number] = piece.text, piece.score
        types[number] = piece.type if piece.type in kept else TokenType.NORMAL
    for text, number in (checkpoint.json("added_tokens.json") or {}).items():
        if type(number) is int and 0 <= number < size:
            texts[number], scores[number], types[number] = (
                text.encode("utf-8", "replace"),
                _UNLIKELY,
                TokenType.USER_DEFINED,
            )
    decoder = config.get("added_tokens_decoder")
    for key, each in decoder.items() if isinstance(decoder, Mapping) else ():
        token = each.get("content") if isinstance(each, Mapping) else None
        at = _number(key)
        if not isinstance(token, str) or at is None or at >= size:
            continue
        control = each.get("special") or _looks_special(token)
        token = token if control else token.replace(_SPACE, " ")
        texts[at], scores[at] = token.encode("utf-8", "replace"), _UNLIKELY
        types[at] = TokenType.CONTROL if control else TokenType.USER_DEFINED
    return [
        writer.text(Keys.Tokenizer.MODEL, "llama"),
        writer.text(Keys.Tokenizer.PRE, "default"),
        writer.texts(Keys.Tokenizer.LIST, texts),
        writer.f32s(Keys.Tokenizer.SCORES, scores),
        writer.i32s(Keys.Tokenizer.TOKEN_TYPE, types),
    ]


_WITH_ID = ("bos", "eos", "unk", "sep", "pad", "mask", "eot", "eom")
_WITH_FLAG = ("bos", "eos", "sep")


def _special(found: SpecialTokens) -> list[KeyValue]:
    entries = [
        writer.u32(getattr(Keys.Tokenizer, f"{name.upper()}_ID"), number)
        for name, number in found.ids.items()
        if name in _WITH_ID
    ]
    entries += [
        writer.boolean(getattr(Keys.Tokenizer, f"ADD_{name.upper()}"), value)
        for name, value in found.add.items()
        if name in _WITH_FLAG
    ]
    return entries + _templates(found.chat_template)


def _templates(template: Any) -> list[KeyValue]:
    """One template, or several with names, as a list or an object, of which "default" is the one."""
    if isinstance(template, str):
        return [writer.text(Keys.Tokenizer.CHAT_TEMPLATE, template)]
    if isinstance(template, Mapping):
        template = [{"name": name, "template": text} for name, text in template.items()]
    entries: list[KeyValue] = []
    names: list[str] = []
    default: str | None = None
    for each in template if isinstance(template, list) else ():
        name, text = (each.get("name"), each.get("template")) if isinstance(each, Mapping) else (None, None)
        if not isinstance(name, str) or not isinstance(text, str) or not name:
            continue
        allowed = string.ascii_letters + string.digits
        name = "".join(character if character in allowed else "_" for character in name)
        if name == "default":
            default = text
        else:
            entries.append(writer.text(Keys.Tokenizer.CHAT_TEMPLATE_N.format(name=name), text))
            names.append(name)
    if names:
        entries.append(writer.texts(Keys.Tokenizer.CHAT_TEMPLATES, [name.encode() for name in names]))
    if default is not None:
        entries.append(writer.text(Keys.Tokenizer.CHAT_TEMPLATE, default))
    return entries
