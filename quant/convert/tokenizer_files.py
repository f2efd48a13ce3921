"""Which of a checkpoint's files is its tokenizer, by what the files hold and not by their names.

Llama 3 publishes a tiktoken file as tokenizer.model, and other models keep the tokenizer.model of an older vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from quant.convert import pretokenizer, ranks, rwkv_world, sentencepiece
from quant.convert.sentencepiece import Piece
from quant.sources.checkpoint import Checkpoint
from runtime.base.errors import PUBLISHED, PULL_ITSELF, BadModelFile, DsrError, Incompatible, NotFound
from runtime.base.file_kind import JSON as JSON_FILE
from runtime.base.file_kind import TEXT, file_kind
from runtime.base.quoted import spelled

MODEL, JSON, CONFIG = "tokenizer.model", "tokenizer.json", "tokenizer_config.json"
TEKKEN, KIMI, HUNYUAN, RWKV = "tekken.json", "tiktoken.model", "hy.tiktoken", rwkv_world.NAME
_VOCABULARY, _MERGES, _ADDED = "vocab.json", "merges.txt", "added_tokens.json"
# Files that hold a tokenizer in a form that dsr does not read.
_FOREIGN = (
    ("vocab.txt", "a WordPiece vocabulary, which dsr does not read"),
    ("spiece.model", "a SentencePiece model of T5's family, which dsr does not read"),
)
_TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")
# The pre-tokenizer of classes without tokenizer.json (tokenization_qwen2.py, tokenization_gpt2.py of transformers, and
# tokenization_kimi.py).
_CLASSES = {"Qwen2Tokenizer": "qwen2", "GPT2Tokenizer": "gpt-2", "TikTokenTokenizer": "kimi-k2"}
_HUNYUAN_PRE = "hunyuan"  # tokenization_hy.py has the expression of Qwen 2, and the engine has a name of its own for it

Form = Literal["byte level", "byte fallback", "pieces", "tekken", "kimi", "hunyuan", "rwkv"]


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """`form` says which of the fields hold the vocabulary, `path` is the file. `described` is the object in
    tokenizer.json, or one like it; it may be empty next to `pieces` (of a SentencePiece model), `ranks` (of a tiktoken
    file) and `text` (RWKV's). `pre` names the pre-tokenizer of byte-level BPE."""

    form: Form
    path: Path
    described: Mapping[str, Any] = field(default_factory=dict)
    pieces: tuple[Piece, ...] = ()
    ranks: Mapping[bytes, int] = field(default_factory=dict)
    text: str = ""
    pre: str = ""


def is_there(checkpoint: Checkpoint) -> bool:
    """Whether there is any file that looks like a tokenizer."""
    names = (MODEL, JSON, _VOCABULARY, TEKKEN, KIMI, HUNYUAN, RWKV, *(name for name, _ in _FOREIGN))
    return any((checkpoint.folder / name).is_file() for name in names)


def find_tokenizer(checkpoint: Checkpoint, pre: str | None) -> TokenizerFiles:
    """The tokenizer to convert: tokenizer.json with byte-level BPE, else a SentencePiece tokenizer.model, else
    tokenizer.json with byte fallback, else Mistral's, Kimi's, Hunyuan's or RWKV's own file, else vocab.json with
    merges.txt.

    `pre` overrides what would be recognised. If no file can be read, the error names each of them with the reason: one
    file's own error, else Incompatible. Raises NotFound if there is no such file at all.
    """
    failures: list[DsrError] = []
    described = _described(checkpoint, failures)
    ways: list[Callable[[], TokenizerFiles | None]] = [
        lambda: _of_json(checkpoint, described, pre),
        lambda: _of_tekken(checkpoint),
        lambda: _of_tiktoken(checkpoint, pre),
        lambda: _of_rwkv(checkpoint),
        lambda: _of_vocabulary(checkpoint, pre),
    ]
    # Next to byte-level BPE it is of an older vocabulary.
    ways.insert(1 if _is_byte_level(described) else 0, lambda: _of_model(checkpoint, described))
    for way in ways:
        try:
            found = way()
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
            hint=f"copy a {JSON} with BPE, or a SentencePiece {MODEL}, from the base model's repository",
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


def _of_model(checkpoint: Checkpoint, described: Mapping[str, Any] | None) -> TokenizerFiles | None:
    """The tokenizer of a SentencePiece tokenizer.model; None without one."""
    raw = checkpoint.bytes(MODEL)
    if raw is None:
        return None
    path = checkpoint.folder / MODEL
    if _TIKTOKEN.match(raw):
        raise Incompatible(f"{path}: a tiktoken vocabulary, not a SentencePiece model")
    kind = file_kind(raw, len(raw))
    if kind == JSON_FILE:
        raise Incompatible(f"{path}: JSON, not a SentencePiece model")
    if kind not in ("", TEXT):
        raise BadModelFile(path, f"{kind}, not a SentencePiece model", hint=PULL_ITSELF)
    return TokenizerFiles("pieces", path, described or {}, pieces=sentencepiece.read_pieces(raw, path))


def _of_json(checkpoint: Checkpoint, described: Mapping[str, Any] | None, pre: str | None) -> TokenizerFiles | None:
    """The BPE tokenizer of tokenizer.json; None without one, and for a tekken.json of that name."""
    path = checkpoint.folder / JSON
    if described is None or _is_tekken(described):
        return None if described is None else TokenizerFiles("tekken", path, described)
    model = described.get("model")
    if not isinstance(model, Mapping) or not isinstance(model.get("vocab"), (Mapping, list)):
        raise BadModelFile(path, "has no vocabulary", hint=PUBLISHED)
    if model.get("type", "BPE") != "BPE" or not isinstance(model["vocab"], Mapping):
        kind = spelled(model.get("type"))
        raise Incompatible(f"{path}: a tokenizer of the kind {kind}; only BPE can be converted")
    if model.get("byte_fallback"):
        return TokenizerFiles("byte fallback", path, described)
    return TokenizerFiles("byte level", path, described, pre=pre or pretokenizer.recognise(described, path))


def _is_tekken(described: Mapping[str, Any]) -> bool:
    return isinstance(described.get("vocab"), list) and isinstance(described.get("config"), Mapping)


def _of_tekken(checkpoint: Checkpoint) -> TokenizerFiles | None:
    described = checkpoint.json(TEKKEN)
    if described is None:
        return None
    path = checkpoint.folder / TEKKEN
    if not _is_tekken(described):
        raise BadModelFile(path, "has no vocabulary", hint=PUBLISHED)
    return TokenizerFiles("tekken", path, described)


def _of_tiktoken(checkpoint: Checkpoint, pre: str | None) -> TokenizerFiles | None:
    """The tokenizer of Kimi's tiktoken.model or Hunyuan's hy.tiktoken. The code that says how they cut words is never
    run, so a model of another class needs a name."""
    raw = checkpoint.bytes(HUNYUAN)
    path = checkpoint.folder / HUNYUAN
    if raw is not None:
        return TokenizerFiles("hunyuan", path, ranks=ranks.read_tiktoken(raw, path), pre=pre or _HUNYUAN_PRE)
    raw = checkpoint.bytes(KIMI)
    if raw is None:
        return None
    path = checkpoint.folder / KIMI
    return TokenizerFiles(
        "kimi", path, ranks=ranks.read_tiktoken(raw, path), pre=pre or _pre_of_class(checkpoint, path)
    )


def _of_rwkv(checkpoint: Checkpoint) -> TokenizerFiles | None:
    text = checkpoint.text(RWKV)
    return None if text is None else TokenizerFiles("rwkv", checkpoint.folder / RWKV, text=text)


def _pre_of_class(checkpoint: Checkpoint, path: Path) -> str:
    """The pre-tokenizer of the class that tokenizer_config.json names. Raises Incompatible for an unknown one."""
    kind = (checkpoint.json(CONFIG) or {}).get("tokenizer_class")
    known = _CLASSES.get(kind.removesuffix("Fast")) if isinstance(kind, str) else None
    if known is None:
        raise Incompatible(
            f"{path}: it does not say how words are cut, and the class of the tokenizer is not known: {spelled(kind)}",
            hint="give the name of a pre-tokenizer with --pre NAME",
        )
    return known


def _of_vocabulary(checkpoint: Checkpoint, pre: str | None) -> TokenizerFiles | None:
    """The tokenizer of vocab.json and merges.txt; None without them."""
    vocabulary, merges = checkpoint.json(_VOCABULARY), checkpoint.text(_MERGES)
    if vocabulary is None:
        return None
    path = checkpoint.folder / _VOCABULARY
    if merges is None:
        raise NotFound(f"{path}: there is no {_MERGES} with it", hint="pull the tokenizer files too")
    lines = merges.split("\n")
    listed = [line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#version")]
    added = [
        {"content": text, "id": number, "special": False} for text, number in (checkpoint.json(_ADDED) or {}).items()
    ]
    model = {"type": "BPE", "vocab": vocabulary, "merges": listed}
    described = {"model": model, "added_tokens": added}
    return TokenizerFiles("byte level", path, described, pre=pre or _pre_of_class(checkpoint, path))


def _without_folder(error: DsrError, checkpoint: Checkpoint) -> str:
    return error.message.removeprefix(f"{checkpoint.folder}/").removeprefix(f"{checkpoint.folder}: ")
