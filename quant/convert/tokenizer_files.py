"""Which of a checkpoint's files is its tokenizer, by what the files hold and not by their names.

Llama 3 publishes a tiktoken file as tokenizer.model, and other models keep the tokenizer.model of an older vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quant.convert import pretokenizer, sentencepiece
from quant.convert.sentencepiece import Piece
from quant.sources.checkpoint import Checkpoint
from runtime.base.errors import PUBLISHED, PULL_ITSELF, BadModelFile, DsrError, Incompatible, NotFound
from runtime.base.file_kind import JSON as JSON_FILE
from runtime.base.file_kind import TEXT, file_kind
from runtime.base.quoted import spelled

MODEL, JSON, CONFIG = "tokenizer.model", "tokenizer.json", "tokenizer_config.json"
_VOCABULARY, _MERGES, _ADDED = "vocab.json", "merges.txt", "added_tokens.json"
# Files that hold a tokenizer in a form that dsr does not read.
_FOREIGN = (
    ("tekken.json", "Mistral's own vocabulary format, which dsr does not read"),
    ("tiktoken.model", "a tiktoken vocabulary, which dsr does not read"),
    ("vocab.txt", "a WordPiece vocabulary, which dsr does not read"),
    ("spiece.model", "a SentencePiece model of T5's family, which dsr does not read"),
)
_TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")
# The pre-tokenizer of classes without tokenizer.json (tokenization_qwen2.py, tokenization_gpt2.py of transformers).
_CLASSES = {"Qwen2Tokenizer": "qwen2", "GPT2Tokenizer": "gpt-2"}


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """`pieces` are those of a SentencePiece model; without any it is byte-level BPE, and `pre` names its pre-tokenizer.
    `described` is the object in tokenizer.json, or one like it; it may be empty next to pieces."""

    described: Mapping[str, Any]
    pieces: tuple[Piece, ...] = ()
    pre: str = ""


def is_there(checkpoint: Checkpoint) -> bool:
    """Whether there is any file that looks like a tokenizer."""
    names = (MODEL, JSON, _VOCABULARY, *(name for name, _ in _FOREIGN))
    return any((checkpoint.folder / name).is_file() for name in names)


def find_tokenizer(checkpoint: Checkpoint, pre: str | None, *, may_be_sentencepiece: bool) -> TokenizerFiles:
    """The tokenizer to convert: tokenizer.json with byte-level BPE, else a SentencePiece tokenizer.model, else
    vocab.json with merges.txt.

    `pre` overrides what would be recognised. If no file can be read, the error names each of them with the reason: one
    file's own error, else Incompatible. Raises NotFound if there is no such file at all.
    """
    failures: list[DsrError] = []
    described = _described(checkpoint, failures)
    if may_be_sentencepiece and not _is_byte_level(described):
        raw = checkpoint.bytes(MODEL)
        try:
            if raw is not None:
                return TokenizerFiles(described or {}, pieces=_pieces(checkpoint, raw))
        except DsrError as error:
            failures.append(error)
    if described is not None:
        try:
            return _of_json(checkpoint, described, pre)
        except DsrError as error:
            failures.insert(0, error)
    elif not failures or (checkpoint.folder / _VOCABULARY).is_file():
        try:
            found = _of_vocabulary(checkpoint, pre)
            if found is not None:
                return found
        except DsrError as error:
            failures.append(error)
    foreign = [(name, why) for name, why in _FOREIGN if (checkpoint.folder / name).is_file()]
    if len(failures) == 1 and not foreign:
        raise failures[0]
    if failures or foreign:
        reasons = [_without_folder(error, checkpoint) for error in failures] + [f"{n}: {why}" for n, why in foreign]
        raise Incompatible(
            f"{checkpoint.folder}: no tokenizer can be read: {'; '.join(reasons)}",
            hint=f"copy a {JSON} with byte-level BPE, or a SentencePiece {MODEL}, from the base model's repository",
        )
    raise NotFound(f"{checkpoint.folder}: there is no {JSON}", hint="pull the tokenizer files of the repository too")


def _described(checkpoint: Checkpoint, failures: list[DsrError]) -> Mapping[str, Any] | None:
    try:
        return checkpoint.json(JSON)
    except DsrError as error:
        failures.append(error)
        return None


def _is_byte_level(described: Mapping[str, Any] | None) -> bool:
    """Whether a tokenizer.json is byte-level BPE, which no SentencePiece model has next to it as its equal."""
    if described is None or not isinstance(described.get("model"), Mapping):
        return False
    kind = described["model"].get("type", "BPE") == "BPE" and not described["model"].get("byte_fallback")
    return kind and pretokenizer.has_bytes(described.get("pre_tokenizer"))


def _pieces(checkpoint: Checkpoint, raw: bytes) -> tuple[Piece, ...]:
    path = checkpoint.folder / MODEL
    if _TIKTOKEN.match(raw):
        raise Incompatible(f"{path}: a tiktoken vocabulary, not a SentencePiece model")
    kind = file_kind(raw, len(raw))
    if kind == JSON_FILE:
        raise Incompatible(f"{path}: JSON, not a SentencePiece model")
    if kind not in ("", TEXT):
        raise BadModelFile(path, f"{kind}, not a SentencePiece model", hint=PULL_ITSELF)
    return sentencepiece.read_pieces(raw, path)


def _of_json(checkpoint: Checkpoint, described: Mapping[str, Any], pre: str | None) -> TokenizerFiles:
    path = checkpoint.folder / JSON
    model = described.get("model")
    if not isinstance(model, Mapping) or not isinstance(model.get("vocab"), (Mapping, list)):
        if isinstance(described.get("vocab"), list) and isinstance(described.get("config"), Mapping):
            raise Incompatible(f"{path}: {dict(_FOREIGN)['tekken.json']}")
        raise BadModelFile(path, "has no vocabulary", hint=PUBLISHED)
    if model.get("type", "BPE") != "BPE" or not isinstance(model["vocab"], Mapping):
        kind = spelled(model.get("type"))
        raise Incompatible(f"{path}: a tokenizer of the kind {kind}; only BPE can be converted")
    if model.get("byte_fallback"):
        raise Incompatible(
            f"{path}: BPE with byte fallback, as SentencePiece makes it, needs the scores in {MODEL}",
            hint=f"copy {MODEL} from the base model's repository into the folder",
        )
    return TokenizerFiles(described, pre=pre or pretokenizer.recognise(described, path))


def _of_vocabulary(checkpoint: Checkpoint, pre: str | None) -> TokenizerFiles | None:
    """The tokenizer of vocab.json and merges.txt; None without them."""
    vocabulary, merges = checkpoint.json(_VOCABULARY), checkpoint.text(_MERGES)
    if vocabulary is None:
        return None
    path = checkpoint.folder / _VOCABULARY
    if merges is None:
        raise NotFound(f"{path}: there is no {_MERGES} with it", hint="pull the tokenizer files too")
    config = checkpoint.json(CONFIG) or {}
    kind = config.get("tokenizer_class")
    known = _CLASSES.get(kind.removesuffix("Fast")) if isinstance(kind, str) else None
    if pre is None and known is None:
        raise Incompatible(
            f"{path}: with {_MERGES} alone, dsr does not know how words are cut", hint="give its name with --pre NAME"
        )
    lines = merges.split("\n")
    listed = [line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#version")]
    added = [
        {"content": text, "id": number, "special": False} for text, number in (checkpoint.json(_ADDED) or {}).items()
    ]
    model = {"type": "BPE", "vocab": vocabulary, "merges": listed}
    return TokenizerFiles({"model": model, "added_tokens": added}, pre=pre or known or "")


def _without_folder(error: DsrError, checkpoint: Checkpoint) -> str:
    return error.message.removeprefix(f"{checkpoint.folder}/").removeprefix(f"{checkpoint.folder}: ")
