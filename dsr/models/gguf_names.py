"""Reads the names of GGUF files: the quantization, and which files belong to one model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from runtime.base.errors import Incompatible, NotFound, UsageError, VerificationFailed
from runtime.base.shard_names import check_shards, is_whole, shard_of
from runtime.base.types import ByteCount, listed
from runtime.gguf.types import IK_LLAMA

# The spellings of llama.cpp's file types (tools/quantize/README.md), of the mixtures other people publish
# (Q6_K_L, Q3_K_XL, UD- for Unsloth's dynamic ones), of ik_llama.cpp (IQ2_KS) and of our own recipes (DQ3_K_M).
_QUANT = re.compile(
    r"(?<![A-Za-z0-9])"
    r"(?:UD-)?"
    r"(?:BF16|FP?16|FP?32|MXFP4(?:_MOE)?|NVFP4|TQ[12]_0|I2_S"
    r"|D?Q[1-8]_(?:[01](?:_\d_\d)?|K(?:V|_(?:XXL|XL|XS|S|M|L|P))?)"
    r"|IQ[1-6]_(?:XXS|XS|S|M|NL|KSS|KS|KT|KL|K|BN|TN))"
    r"(?:_R(?:4|8|16))?"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[1-9]|lpt[1-9])", re.IGNORECASE)  # names of devices on Windows

# Quantizations that only other programs read; the sources are those of runtime/gguf/types.py. IQ3_KL is a mixture of
# ik_llama.cpp without a type of its own.
_FOREIGN = {
    re.compile(r"(?:UD-)?(?:.*_R\d+|IQ\d_(?:K|KS|KSS|KT|KL|BN|TN)|Q6_0|Q8_KV)"): IK_LLAMA,
    re.compile(r"I2_S"): "bitnet.cpp",
    re.compile(r"Q4_0_\d_\d"): "older versions of llama.cpp",
}


@dataclass(frozen=True, slots=True)
class QuantChoice:
    """One quantization a repository offers: all its files in order and their size together."""

    quant: str
    files: tuple[str, ...]
    size: ByteCount


def quant_of(filename: str) -> str | None:
    """The quantization a GGUF file's name (or its folder's) tells, in upper case; None when it tells none.

    'UD-Q2_K_XL/R1-UD-Q2_K_XL-00001-of-00005.gguf' -> 'UD-Q2_K_XL'; 'qwen3-8b-q4_k_m.gguf' -> 'Q4_K_M'.
    """
    for part in reversed(PurePosixPath(filename.replace("\\", "/")).parts):
        found = _QUANT.findall(part)
        if found:
            return normal_quant(found[-1])
    return None


def is_quant(text: str) -> bool:
    """Whether a text is a quantization and nothing else."""
    return _QUANT.fullmatch(text) is not None


def normal_quant(quant: str) -> str:
    """One spelling for each: upper case, and F16 for FP16."""
    return re.sub(r"^FP(16|32)$", r"F\1", quant.upper())


def foreign_program(label: str | None) -> str | None:
    """The program that a quantization is for, where the engine cannot read it: 'IQ4_K' -> 'ik_llama.cpp'; else None."""
    quant = quant_of(label or "") or ""
    return next((program for pattern, program in _FOREIGN.items() if pattern.fullmatch(quant)), None)


def foreign_error(label: str, program: str, others: Sequence[str]) -> Incompatible:
    """The error for a quantization that the engine cannot read; `others` are the others of the repository."""
    readable = [other for other in others if foreign_program(other) is None]
    return Incompatible(
        f"{label} is a quantization for {program}, which the engine of dsr cannot read",
        hint=f"take another one: {listed(readable)}" if readable else "take another repository of the model",
    )


def readable(choices: Sequence[QuantChoice]) -> list[QuantChoice]:
    """The choices that the engine can read. Raises Incompatible where there are only others."""
    found = [choice for choice in choices if foreign_program(choice.quant) is None]
    if choices and not found:
        quant = choices[0].quant
        raise foreign_error(quant, foreign_program(quant) or "", [choice.quant for choice in choices])
    return found


def described(label: str) -> str:
    """A label for a listing: 'IQ4_K (for ik_llama.cpp)'."""
    program = foreign_program(label)
    return f"{label} (for {program})" if program else label


def same_quant(wanted: str, offered: str) -> bool:
    """Whether both name the same quantization, in any case."""
    return normal_quant(wanted) == normal_quant(offered)


def pick_quant(wanted: str, offered: Sequence[str]) -> str | None:
    """The one of `offered` that `wanted` names: exactly, or else with the prefix UD- in front."""
    exact = [q for q in offered if same_quant(wanted, q)]
    dynamic = [q for q in offered if same_quant("UD-" + wanted, q)]
    return next(iter(exact or dynamic), None)


def is_model_file(path: str) -> bool:
    """A GGUF file with a language model in it: no image projector, no importance matrix."""
    name = PurePosixPath(path).name.lower()
    return name.endswith(".gguf") and "mmproj" not in name and not ("imatrix" in name and quant_of(name) is None)


def check_file_name(path: str) -> None:
    """Refuse a repository's file name that could leave its folder, or that POSIX or Windows cannot have."""
    parts = path.split("/")
    for part in parts:
        bad = (
            part in ("", ".", "..")
            or part[-1] in ". "
            or len(part.encode("utf-8", "surrogatepass")) > 255
            or re.search(r'[\x00-\x1f\x7f<>:"|?*\\]', part)
            or _RESERVED.fullmatch(part.partition(".")[0].rstrip())
        )
        if bad or len(path) > 1024:
            raise VerificationFailed(f"the repository lists an unsafe file name: {path[:200]!r}")


def groups_in(paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Label -> the files of one model, all shards in order.

    The label is the quantization; where two models of a repository share one, the file's own name; and where
    two folders share that too, the path.
    """
    groups: dict[tuple[str, int], list[str]] = {}
    for path in paths:
        if is_model_file(path):
            stem, _, count = shard_of(path)
            groups.setdefault((stem, count), []).append(path)
    labels = [_labels(stem, count) for stem, count in groups]
    taken = Counter(label for four in labels for label in set(four))
    return {
        next((label for label in four if taken[label] == 1), four[-1]): tuple(sorted(files))
        for four, files in zip(labels, groups.values(), strict=True)
    }


def _labels(stem: str, count: int) -> tuple[str, ...]:
    """What a model in a repository may be called, the shortest first; the last is never shared."""
    name = PurePosixPath(stem).name
    return quant_of(stem) or name, name, stem, f"{stem}-of-{count}"


def _without_copies(paths: Sequence[str]) -> list[str]:
    """Without the parts of a split model that is there in one file too, as in Qwen/QwQ-32B-GGUF."""
    whole = {stem for stem, _, count in map(shard_of, paths) if count == 1}
    return [path for path in paths if shard_of(path)[2] == 1 or shard_of(path)[0] not in whole]


def choose_files(paths: Sequence[str], quant: str) -> tuple[str, ...]:
    """The files of one quantization out of a repository's listing, all shards in order.

    Raises NotFound with the candidates when it is not there, VerificationFailed when a shard is missing and
    UsageError when the name fits several models of the repository.
    """
    groups = groups_in(_without_copies(paths))
    label = pick_quant(quant, tuple(groups))
    if label is None:
        several = [name for name, files in groups.items() if same_quant(quant, quant_of(files[0]) or "")]
        if several:
            raise UsageError(
                f"several models match {quant}: {listed(several)}",
                hint="name one of them instead of the quantization",
            )
        offered = listed([described(label) for label in groups]) or "no GGUF file at all"
        raise NotFound(f"there is no {quant} in the repository", hint=f"it has: {offered}")
    check_shards(groups[label])
    return groups[label]


def quants_in(files: Mapping[str, int]) -> list[QuantChoice]:
    """Every complete quantization among a repository's files (name -> bytes), the smallest first."""
    choices = [
        QuantChoice(label, paths, ByteCount(sum(files[path] for path in paths)))
        for label, paths in groups_in(_without_copies(tuple(files))).items()
        if is_whole(paths)
    ]
    return sorted(choices, key=lambda choice: (choice.size, choice.quant))
