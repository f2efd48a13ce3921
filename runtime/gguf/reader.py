"""Reads GGUF files into a `ModelCard` with strict checks. A checked file is safe to show."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from runtime.base.errors import PULL_AGAIN, BadModelFile, DsrError, Incompatible, NotFound, UsageError
from runtime.base.quoted import quoted_name
from runtime.base.shard_names import missing_shards, shard_of
from runtime.base.types import ByteCount
from runtime.gguf.card import ModelCard
from runtime.gguf.checks import check
from runtime.gguf.engine_lists import ARCHITECTURES, MOST_EXPERTS, MOST_LAYERS, unknown
from runtime.gguf.header import (
    LONGEST_HEADER,
    Header,
    HeaderTruncated,
    TensorInfo,
    parse_header,
)
from runtime.gguf.metadata import Metadata

__all__ = [
    "Header",
    "HeaderTruncated",
    "ModelCard",
    "TensorInfo",
    "card_from_headers",
    "parse_header",
    "read_card",
    "read_header",
    "read_headers",
]

_SHARD_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$", re.DOTALL)
# Values of general.type (docs/gguf.md; "expert-profile" is ours) for files that are not language models.
_OTHER_KINDS = {
    "adapter": "a LoRA adapter",
    "expert-profile": "a profile of experts",
    "imatrix": "an importance matrix",
    "mmproj": "an image or audio projector",
    "vocab": "a vocabulary",
}
_PICTURES = "an image or video model"
# Architectures of such files. Those of pictures are from ComfyUI-GGUF (loader.py).
_OTHER_ARCHITECTURES = {
    "clip": _OTHER_KINDS["mmproj"],
    "controlvector": "a control vector",
    **dict.fromkeys(("flux", "sd1", "sdxl", "sd3", "aura", "hidream", "cosmos", "ltxv", "hyvid"), _PICTURES),
    **dict.fromkeys(("wan", "lumina2", "qwen_image"), _PICTURES),
}
_FIRST_READ = 1 << 20
_LONGEST_NAME = 200


def read_card(path: Path) -> ModelCard:
    """Check a GGUF file, or all shards of a split file if `path` is its first shard, and return its card.

    Raises NotFound (no such file), UsageError (another shard than the first), BadModelFile, Incompatible.
    """
    return card_from_headers(*read_headers(path))


def read_headers(path: Path) -> tuple[tuple[Path, ...], tuple[Header, ...]]:
    """The files of a model, all shards of a split one, and their headers. Raises what `read_card` does."""
    header = read_header(path)
    count = _split_value(header, path, "split.count", 1)
    if count <= 1:
        return (path,), (header,)
    named = _SHARD_NAME.fullmatch(path.name)
    if named is None:
        raise BadModelFile(
            path,
            f"is one of {count} shards, but its name does not end in -00001-of-{count:05d}.gguf",
            hint="give all shards the names they were published with",
        )
    first = f"{named['stem']}-00001-of-{count:05d}.gguf"
    if path.name != first:
        number = _split_value(header, path, "split.no", 0) + 1
        raise UsageError(f"{path}: part {number} of {count}", hint=f"give the first part: {path.with_name(first)}")
    # The names that are there are compared with the name that their number makes: `count` is only a claim.
    there = sorted(
        entry.name
        for entry in path.parent.iterdir()
        if entry.name == f"{named['stem']}-{shard_of(entry.name)[1]:05d}-of-{count:05d}.gguf" and entry.is_file()
    )
    for missing in missing_shards(there):
        raise NotFound(
            f"{path}: {missing.number} of {count} parts are missing: {PurePath(missing.first).name}", hint=PULL_AGAIN
        )
    files = tuple(path.with_name(name) for name in there)
    return files, (header, *(read_header(file) for file in files[1:]))


def read_header(path: Path) -> Header:
    """Check the structure of one file. Raises NotFound, BadModelFile, Incompatible."""
    if path.is_dir():
        raise NotFound(f"{path} is a folder, not a GGUF file", hint="give the path of a .gguf file")
    if path.exists() and not path.is_file():
        raise NotFound(f"{path} is not a regular file", hint="give the path of a .gguf file")
    try:
        with path.open("rb") as file:
            file_size = path.stat().st_size
            data = file.read(_FIRST_READ)
            while True:
                try:
                    return parse_header(data, file_size, path)
                except HeaderTruncated as short:
                    wanted = max(short.needed, len(data) * 8)
                    more = file.read(min(wanted, LONGEST_HEADER) - len(data))
                    if not more:
                        raise BadModelFile(path, "became shorter while it was read", hint=PULL_AGAIN) from None
                    data += more
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file", hint="dsr list shows the models on this machine") from None
    except OSError as error:
        raise DsrError(f"{path}: {error.strerror or error}") from error


def card_from_headers(files: Sequence[Path], headers: Sequence[Header]) -> ModelCard:
    """The card of a model from the headers of its shards in order. The files need not be on this machine.

    Raises BadModelFile, and Incompatible for files that hold no language model. The engine need not know the model:
    see `engine_lists.check_known`.
    """
    path, first = files[0], headers[0]
    tensors = _join(files, headers)
    architecture = first.metadata.get("general.architecture")
    metadata = Metadata(path, first.metadata, architecture if isinstance(architecture, str) else "")
    _refuse_other_kinds(metadata)
    if not metadata.architecture:
        raise BadModelFile(
            path,
            "general.architecture is missing or not a text: it is not a language model",
            hint="give the GGUF file of a language model",
        )
    digest = hashlib.sha256("".join(header.digest for header in headers).encode())
    try:
        card = _card(metadata, tensors, tuple(files), headers, digest.hexdigest())
        check(card, metadata)
    except BadModelFile:
        if metadata.architecture not in ARCHITECTURES:  # which facts it has is not known either
            raise unknown(path, "architecture", metadata.architecture) from None
        raise
    return card


def _split_value(header: Header, path: Path, key: str, default: int) -> int:
    return Metadata(path, header.metadata, "").integer(key, most=99999, default=default)


def _join(files: Sequence[Path], headers: Sequence[Header]) -> tuple[TensorInfo, ...]:
    """The tensors of all shards. Raises BadModelFile if the shards do not belong together."""
    tensors: dict[str, TensorInfo] = {}
    for index, (file, header) in enumerate(zip(files, headers, strict=True)):
        count, number = _split_value(header, file, "split.count", 1), _split_value(header, file, "split.no", 0)
        if len(headers) > 1 and (count, number) != (len(headers), index):
            raise BadModelFile(
                file,
                f"says it is shard {number + 1} of {count}, not {index + 1} of {len(headers)}",
                hint=PULL_AGAIN,
            )
        for tensor in header.tensors:
            if tensor.name in tensors:
                raise BadModelFile(file, f"the tensor {tensor.name} is also in another shard", hint=PULL_AGAIN)
            tensors[tensor.name] = replace(tensor, file=index)
    if len(headers) > 1:
        promised = Metadata(files[0], headers[0].metadata, "").integer("split.tensors.count", default=len(tensors))
        if promised != len(tensors):
            raise BadModelFile(
                files[0], f"the shards hold {len(tensors)} tensors instead of {promised}", hint=PULL_AGAIN
            )
    return tuple(tensors.values())


def _refuse_other_kinds(metadata: Metadata) -> None:
    """Raise Incompatible for what is not a language model; a LoRA adapter names the model that it belongs to."""
    kind = metadata.get("general.type")
    found = _OTHER_ARCHITECTURES.get(metadata.architecture) or _OTHER_KINDS.get(kind if isinstance(kind, str) else "")
    if found is None:
        return
    base = metadata.get("general.base_model.0.name")
    hint = "give the GGUF file of the model itself" + (
        f", {quoted_name(base)}" if isinstance(base, str) and base else ""
    )
    if found == _PICTURES:
        raise Incompatible(
            f"{metadata.path}: {found}, not a language model", hint="to see models that chat: dsr list --catalog"
        )
    raise Incompatible(f"{metadata.path}: {found}, not a model", hint=hint)


def _card(
    metadata: Metadata,
    tensors: tuple[TensorInfo, ...],
    files: tuple[Path, ...],
    headers: Sequence[Header],
    digest: str,
) -> ModelCard:
    """Read every fact. A file without weights (only a vocabulary) may lack the facts of the layers."""
    absent = None if tensors else 0
    layers = metadata.integer(".block_count", least=1, most=MOST_LAYERS, default=absent)
    embedding = metadata.integer(".embedding_length", least=1, default=absent)
    heads_per_layer = metadata.per_layer(".attention.head_count", layers, default=0)
    heads = max(heads_per_layer, default=0)
    kv_heads = metadata.get(".attention.head_count_kv")
    kv_heads_per_layer = heads_per_layer if kv_heads is None else metadata.per_layer(".attention.head_count_kv", layers)
    head_length = embedding // heads if heads else 0
    key_length = metadata.integer(".attention.key_length", default=head_length)
    tokens = metadata.array("tokenizer.ggml.tokens", ("str",))
    vocab_size = tokens.count if tokens else metadata.integer(".vocab_size", default=0)
    experts_used = metadata.per_layer(".expert_used_count", layers, most=MOST_EXPERTS, default=0)
    return ModelCard(
        files=files,
        size=ByteCount(sum(header.file_size for header in headers)),
        architecture=metadata.architecture,
        name=(metadata.text("general.name") or files[0].stem)[:_LONGEST_NAME],
        metadata=metadata.values,
        tensors=tensors,
        header_digest=digest,
        layers=layers,
        nextn_layers=metadata.integer(".nextn_predict_layers", most=layers, default=0),
        context_length=metadata.integer(".context_length", least=1, default=absent),
        embedding_length=embedding,
        heads=heads,
        kv_heads_per_layer=kv_heads_per_layer,
        key_length=key_length,
        value_length=metadata.integer(".attention.value_length", default=head_length),
        rope_dimensions=metadata.integer(".rope.dimension_count", default=key_length),
        q_lora_rank=metadata.integer(".attention.q_lora_rank", default=0),
        kv_lora_rank=metadata.integer(".attention.kv_lora_rank", default=0),
        key_length_mla=metadata.integer(".attention.key_length_mla", default=0),
        value_length_mla=metadata.integer(".attention.value_length_mla", default=0),
        experts=metadata.integer(".expert_count", most=MOST_EXPERTS, default=0),
        experts_used=max(experts_used, default=0),
        vocab_size=vocab_size,
        bos_token=_token(metadata, "tokenizer.ggml.bos_token_id", vocab_size),
        eos_token=_token(metadata, "tokenizer.ggml.eos_token_id", vocab_size),
        template=metadata.text("tokenizer.chat_template"),
        heads_per_layer=heads_per_layer,
        experts_used_per_layer=experts_used,
    )


def _token(metadata: Metadata, key: str, vocab_size: int) -> int | None:
    """The id of a special token; None if there is none. Some converters write -1 for that, and the engine also ignores
    an id beyond the vocabulary.
    """
    if metadata.get(key) in (None, -1):
        return None
    token = metadata.integer(key, most=2**32 - 1)
    return token if token < vocab_size else None
