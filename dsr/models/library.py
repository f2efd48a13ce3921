"""Finds the model that a reference names: the embedded model, a path, or one in the Hugging Face cache."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dsr.models.cache_scan import ORIGINAL, cached_models, hub_cache_folder, other_files
from dsr.models.gguf_names import foreign_program, groups_in, is_model_file, pick_quant, quant_of, same_quant
from dsr.models.model import Model
from dsr.models.other_programs import find_in, offered, split_program
from dsr.models.references import EMBEDDED, Reference, parse, sizes
from dsr.models.removal import plan_removal, remove
from quant.sources.weight_files import PICKLES, is_raw_part
from runtime.base.errors import DsrError, Incompatible, NotFound, UsageError
from runtime.base.file_kind import START
from runtime.base.files import expanded
from runtime.base.shard_names import missing_shards, shard_of
from runtime.base.types import ByteCount, listed
from runtime.gguf.other_files import not_gguf

__all__ = [
    "Model",
    "fault",
    "find",
    "find_to_remove",
    "find_weights",
    "hub_cache_folder",
    "incomplete",
    "installed",
    "other_files",
    "plan_removal",
    "remove",
]  # fmt: skip

_NANO = Path(__file__).parents[1] / "data" / "nano.gguf"
_CONFIG = "config.json"
_NANO_NAME = "nano (a 12 M demonstration model: arithmetic, words, dates, simple logic)"


def installed() -> list[Model]:
    """Every usable model: the embedded one, then what the cache holds, by repository."""
    embedded = [_embedded()] if _NANO.is_file() else []
    return embedded + [model for model in cached_models() if not model.problem]


def incomplete() -> list[Model]:
    """Incomplete models in the cache: missing parts, broken links, interrupted downloads."""
    return [model for model in cached_models() if model.problem]


def fault(model: Model) -> str | None:
    """Why a complete model cannot run, as far as its name and its first bytes tell; None where they say nothing."""
    if model.kind != "gguf":
        return None
    if program := foreign_program(model.quant):
        return f"quantized for {program}, which the engine of dsr cannot read"
    try:
        with model.path.open("rb") as file:
            start = file.read(START)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return None if start[:4] == b"GGUF" else not_gguf(start, model.size)[0]


def find(text: str) -> Model:
    """The model that a reference names; without a quantization, the largest on this machine that the engine can read.

    Raises NotFound with the command that downloads it, Incompatible for original weights, and the errors of `parse`.
    """
    try:
        reference = parse(_one_of_sizes(text))
    except NotFound as error:
        raise _with_offer(error, text) from None
    if reference.kind == "embedded":
        return _embedded()
    if (program := split_program(str(reference.path or ""))) is not None:
        return find_in(*program)
    if reference.path is not None:
        return _at_path(reference.path)
    here = _matching(reference)
    usable = [model for model in here if model.kind == "gguf" and not model.problem]
    if usable:
        readable = [model for model in usable if foreign_program(model.quant) is None]
        return max(readable or usable, key=lambda model: model.size)  # of equals the first, which is refs/main's
    raise _with_offer(_not_here_error(reference, here), text)


def _one_of_sizes(text: str) -> str:
    """A name that means models of several sizes, with its size if exactly one of them is on this machine.

    Raises NotFound if none is.
    """
    named = sizes(text)
    if not named:
        return text
    repos = {str(model.repo).casefold() for model in cached_models() if model.kind == "gguf" and not model.problem}
    here = [entry.name for entry in named if entry.gguf.casefold() in repos]
    if not here:
        one = f"dsr pull {text} takes the one of {len(named)} sizes that suits this machine"
        raise NotFound(f"no {text} is on this machine", hint=f"{one}; or pull {listed([each.name for each in named])}")
    return here[0] if len(here) == 1 else text


def _with_offer(error: DsrError, text: str) -> DsrError:
    """The error of a model that is not here; it says so if Ollama has one of this name."""
    if isinstance(error, NotFound) and (other := offered(text)) is not None:
        error.hint = f"Ollama has it: dsr chat {other}"
    return error


def find_weights(text: str) -> Model:
    """The weights to make another file from: original weights if at least config.json is there, else a GGUF file.

    A folder is preferred to a short name. Raises the errors of `find`.
    """
    folder = _checkpoint_folder(text)
    if folder is not None:
        return folder
    reference = parse(text)
    if reference.repo is not None and reference.quant in (None, ORIGINAL.upper()):
        repos = [reference.repo, *([reference.entry.original] if reference.entry else [])]
        wanted = {repo.casefold() for repo in repos}
        for model in cached_models():
            if model.kind == "safetensors" and not model.problem and str(model.repo).casefold() in wanted:
                return model
        for repo in repos:
            for config in sorted(hub_cache_folder().glob(f"models--{repo.replace('/', '--')}/snapshots/*/{_CONFIG}")):
                return _original_weights(config.parent)
        try:
            return find(text)
        except NotFound as error:
            raise NotFound(error.message, hint=f"dsr pull {_canonical_name(reference)} --original") from error
    return find(text)


def _checkpoint_folder(text: str) -> Model | None:
    """The checkpoint at a path: its folder, or a file of it."""
    path = expanded(text)
    try:
        if path.is_file() and (path.name == _CONFIG or path.suffix.lower() == ".safetensors"):
            path = path.parent
        there = path.is_dir() and ((path / _CONFIG).is_file() or _has_only_safetensors(path))
        return _original_weights(path) if there else None
    except OSError:  # longer than the system allows
        return None


def _has_only_safetensors(folder: Path) -> bool:
    """Whether a folder without config.json is meant as a checkpoint all the same, such as an adapter."""
    names = [entry.name for entry in folder.iterdir()]
    return any(name.endswith(".safetensors") for name in names) and not any(map(is_model_file, names))


def _original_weights(folder: Path) -> Model:
    files = tuple(sorted(file for file in folder.iterdir() if file.suffix in (".json", ".safetensors", ".model")))
    size = ByteCount(sum(file.stat().st_size for file in files if file.is_file()))
    return Model(folder, files, folder.resolve().name, str(folder), size, kind="safetensors", quant=ORIGINAL)


def _not_here_error(reference: Reference, here: Sequence[Model]) -> DsrError:
    wanted = _canonical_name(reference)
    originals = [model for model in here if model.kind == "safetensors" and not model.problem]
    if originals:
        return Incompatible(
            f"{wanted} has only original weights (safetensors) on this machine; dsr runs GGUF files only",
            hint=_quantize_hint(wanted),
        )
    if here:
        return NotFound(f"{here[0].name} is incomplete: {here[0].problem}", hint=f"dsr pull {wanted}")
    others = [m.quant for m in _matching(replace(reference, quant=None)) if m.quant and not m.problem]
    also = f", but {', '.join(others)} is" if others else ""
    meaning = f" = {reference.entry.describe()}" if reference.entry else ""
    return NotFound(f"{wanted}{meaning} is not on this machine{also}", hint=f"dsr pull {wanted}")


def _canonical_name(reference: Reference) -> str:
    """The reference in its shortest usual form."""
    name = reference.entry.name if reference.entry and reference.kind == "name" else reference.repo
    return f"{name}:{reference.quant}" if reference.quant else str(name)


def _matching(reference: Reference) -> list[Model]:
    """All cached models, also incomplete ones, that a name or repository matches."""
    wanted = str(reference.repo).casefold()
    models = [model for model in cached_models() if str(model.repo).casefold() == wanted]
    if reference.quant is None:
        return models
    label = pick_quant(reference.quant, [model.quant or "" for model in models])
    return [model for model in models if label is not None and same_quant(label, model.quant or "")]


def _embedded() -> Model:
    if not _NANO.is_file():
        raise NotFound("this installation of dsr lacks its embedded model, nano", hint="install dsr again")
    size = ByteCount(_NANO.stat().st_size)
    return Model(_NANO, (_NANO,), _NANO_NAME, EMBEDDED, size, quant="Q8_0", embedded=True)


def _at_path(path: Path) -> Model:
    """The model at a path: a file, any part of a split one, or a folder that holds exactly one."""
    try:
        if path.is_dir():
            return _in_folder(path)
        if not path.is_file():
            exists = path.exists() or path.is_symlink()
            if exists:
                raise NotFound(f"{path} is not a file")
            raise NotFound(f"there is no file {path}", hint="to see the models on this machine: dsr list")
        if path.suffix.lower() == ".safetensors":
            raise _original_at(path.parent)
        if is_raw_part(path.name):
            raise _raw_part(path)
        cached = _cached_at(path)
        return cached or _model_of(path.parent, _parts_of(path))
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror or error}") from error


def _in_folder(folder: Path) -> Model:
    names = sorted(entry.name for entry in folder.iterdir())
    groups = groups_in(names)
    if len(groups) > 1:
        raise UsageError(
            f"{folder} has {len(groups)} models; name one of them",
            hint=listed([str(folder / files[0]) for files in groups.values()], "; "),
        )
    if groups:
        return _at_path(folder / next(iter(groups.values()))[0])
    if any(name.endswith(".safetensors") for name in names):
        raise _original_at(folder)
    for name in names:
        if is_raw_part(name):
            raise _raw_part(folder / name)
    if any(name.endswith(PICKLES) for name in names):
        raise Incompatible(
            f"{folder} holds PyTorch weights (pickle files), which can run any program when they are opened",
            hint="use a GGUF conversion of the model, or its safetensors files",
        )
    has = f"it has {len(names)} other files" if names else "it is empty"
    raise NotFound(f"there is no GGUF file in {folder}: {has}", hint="give the path of a .gguf file")


def _original_at(folder: Path) -> Incompatible:
    return Incompatible(
        f"{folder} holds original weights (safetensors); dsr runs GGUF files only",
        hint=_quantize_hint(shlex.quote(str(folder))),
    )


def _quantize_hint(source: str) -> str:
    return f"to make a GGUF file: dsr quantize {source}; to see its size and memory first, add --dry-run"


def _raw_part(path: Path) -> Incompatible:
    """The error for a part of a file that was cut at any byte, with the command that joins the parts."""
    whole = path.name[: path.name.lower().rindex(".gguf") + len(".gguf")]
    names = (entry.name for entry in path.parent.iterdir())
    parts = sorted((name for name in names if is_raw_part(name) and name.startswith(whole)), key=_natural)
    if len(parts) > 1:
        joined = " ".join(shlex.quote(str(path.with_name(name))) for name in parts)
        hint = f"join them: cat {joined} > {shlex.quote(str(path.with_name(whole)))}"
    else:
        hint = f"put all parts into one folder, then join them in order: cat PARTS > {shlex.quote(whole)}"
    return Incompatible(f"{path}: a raw part of {whole}, not a whole file ({len(parts)} here)", hint=hint)


def _natural(name: str) -> list[int | str]:
    """A key that puts part 10 after part 9."""
    return [int(piece) if piece.isdecimal() else piece for piece in re.split(r"([0-9]+)", name)]


def _parts_of(path: Path) -> tuple[str, ...]:
    """The names of all parts of the model that a file belongs to."""
    stem, _, count = shard_of(path.name)
    if count == 1:
        return (path.name,)
    siblings = (entry.name for entry in path.parent.iterdir())
    parts = tuple(sorted(n for n in siblings if shard_of(n)[0] == stem and shard_of(n)[2] == count))
    missing = missing_shards(parts)
    if missing:
        lacking = missing[0]
        if lacking.number > 1:
            raise NotFound(f"{path}: {lacking}", hint="dsr opens a split model when all its parts are in one folder")
        raise NotFound(f"{path.parent / lacking.first} is missing: {path.name} is one of {count} parts")
    return parts


def _model_of(folder: Path, names: Sequence[str]) -> Model:
    files = tuple(folder / name for name in names)
    size = ByteCount(sum(file.stat().st_size for file in files))
    return Model(files[0], files, files[0].name, str(files[0]), size, quant=quant_of(names[0]))


def _cached_at(path: Path) -> Model | None:
    """The cached model that a file belongs to; None if the file is not in the cache."""
    target = path.resolve()
    if not target.is_relative_to(hub_cache_folder().resolve()):
        return None
    return next((m for m in cached_models() if not m.problem and target in [f.resolve() for f in m.files]), None)


def find_to_remove(text: str) -> Model:
    """The one model, complete or not, that a reference names. Raises UsageError if it matches several."""
    reference = parse(text)
    if reference.kind in ("embedded", "path", "program"):
        return find(text)
    here = _matching(reference)
    if not here:
        raise NotFound(
            f"{_canonical_name(reference)} is not on this machine", hint="to list the models on this machine: dsr list"
        )
    if len({model.reference for model in here}) > 1:
        raise UsageError(
            f"{_canonical_name(reference)} matches {len(here)} models on this machine; name one of them",
            hint="; ".join(f"dsr rm {shlex.quote(model.reference)}" for model in here),
        )
    return here[0]
