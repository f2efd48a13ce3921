"""Models of Ollama and LM Studio on this machine: read where they are, never copied, changed or deleted.

    ollama:llama3.2            the tag latest, as in Ollama
    ollama:user/model:7b       ollama:hf.co/org/repo:Q4_K_M
    lmstudio:org/repo          lmstudio:org/repo:Q4_K_M

Ollama (envconfig/config.go, manifest/paths.go): a manifest in MODELS/manifests/HOST/NAMESPACE/MODEL/TAG names blobs by
their SHA-256; they lie in MODELS/blobs/sha256-DIGEST. LM Studio: MODELS/PUBLISHER/REPOSITORY/FILE.gguf.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from dsr.models.gguf_names import groups_in, pick_quant, quant_of
from dsr.models.model import Model
from runtime.base.errors import Incompatible, NotFound, UsageError
from runtime.base.shard_names import missing_shards
from runtime.base.types import ByteCount, listed

PROGRAMS = {"ollama": "Ollama", "lmstudio": "LM Studio"}
_PREFIX = re.compile(rf"({'|'.join(PROGRAMS)}):(.+)", re.IGNORECASE)
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")  # what Ollama's own check lets pass
_LARGEST_MANIFEST = 1 << 20
_MODEL, _ADAPTER = "application/vnd.ollama.image.model", "application/vnd.ollama.image.adapter"
_HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"


def split_program(text: str) -> tuple[str, str] | None:
    """'ollama:llama3.2' -> ('ollama', 'llama3.2'); None for a reference without a program."""
    found = _PREFIX.fullmatch(text)
    return None if found is None else (found[1].lower(), found[2])


def folders(program: str) -> tuple[Path, ...]:
    """The folders with a program's models that exist here."""
    home = Path.home()
    if program == "ollama":
        told = os.environ.get("OLLAMA_MODELS")
        places = [Path(told).expanduser()] if told else [home / ".ollama" / "models"]
        if not told and sys.platform.startswith("linux"):
            places.append(Path("/usr/share/ollama/.ollama/models"))  # of the service that its installer makes
    else:
        places = [*_of_lm_studio(home), home / ".lmstudio" / "models", home / ".cache" / "lm-studio" / "models"]
    found = []
    for place in dict.fromkeys(places):
        with suppress(OSError):
            if place.is_dir():
                found.append(place)
    return tuple(found)


def _of_lm_studio(home: Path) -> Iterator[Path]:
    """The folder that its settings name: in the folder that its pointer names, or in its usual one."""
    pointer = home / ".lmstudio-home-pointer"
    base = home / ".lmstudio"
    with suppress(OSError, UnicodeDecodeError):
        base = Path(pointer.read_text(encoding="utf-8")[:4096].strip() or base)
    told = _json(base / "settings.json").get("downloadsFolder")
    if isinstance(told, str) and told and "\0" not in told:
        yield Path(told)
    yield base / "models"


def models_of(program: str) -> list[Model]:
    """Every model of a program, by name; one that cannot be used has a `problem`."""
    found: dict[str, Model] = {}
    for folder in folders(program):
        for model in _ollama_models(folder) if program == "ollama" else _lm_studio_models(folder):
            found.setdefault(model.reference, model)
    return sorted(found.values(), key=lambda model: model.reference)


def find_in(program: str, name: str) -> Model:
    """One model of a program. Raises NotFound with the names that are there, UsageError, Incompatible."""
    model = _find_in_ollama(name) if program == "ollama" else _find_in_lm_studio(name)
    if model.problem:
        raise Incompatible(f"{model.reference}: {model.problem}", hint=f"to see the others: dsr list --from {program}")
    return model


def offered(name: str) -> str | None:
    """The reference of a model that Ollama has under this name; None if it has none."""
    with suppress(NotFound, UsageError, OSError):
        return _find_in_ollama(name).reference
    return None


# --- Ollama


def _find_in_ollama(name: str) -> Model:
    parts = _manifest_path(name)
    for folder in folders("ollama"):
        with suppress(OSError):
            if folder.joinpath("manifests", *parts).is_file():
                return _of_manifest(folder, parts)
    raise _unknown("ollama", name)


def _manifest_path(name: str) -> tuple[str, ...]:
    """Host, namespace, model, tag. Raises UsageError for a name that Ollama cannot have."""
    path, _, tag = name.partition(":")
    parts = path.split("/")
    whole = (*(_HOST, _NAMESPACE)[: max(0, 3 - len(parts))], *parts, tag or _TAG)
    if len(whole) != 4 or not all(_PART.fullmatch(part) and ".." not in part for part in whole):
        raise UsageError(f"{name!r} is not a name of Ollama", hint="as in ollama:llama3.2 or ollama:user/model:7b")
    return whole


def _ollama_models(folder: Path) -> Iterator[Model]:
    try:
        paths = sorted(path for path in (folder / "manifests").glob("*/*/*/*") if path.is_file())
    except OSError:
        return
    for path in paths:
        parts = path.relative_to(folder / "manifests").parts
        if all(_PART.fullmatch(part) for part in parts):
            yield _of_manifest(folder, parts)


def _of_manifest(folder: Path, parts: tuple[str, ...]) -> Model:
    manifest = _json(folder.joinpath("manifests", *parts))
    layers = [each for each in _list(manifest.get("layers")) if isinstance(each, dict)]
    weights = [each for each in layers if each.get("mediaType") == _MODEL]
    problem, blob = "its manifest names no GGUF file", None
    if len(weights) == 1:
        blob = _blob(folder, weights[0].get("digest"))
        problem = "its manifest names no valid digest" if blob is None else _damage(blob, weights[0].get("size"))
    elif weights:
        problem = f"it has {len(weights)} files of weights"
    if not problem and any(each.get("mediaType") == _ADAPTER for each in layers):
        problem = "it has an adapter, which dsr would leave out"
    config = _json(_blob(folder, _dict(manifest.get("config")).get("digest")) or folder / "none")
    kind = config.get("file_type")
    host, namespace, model, tag = parts
    usual = (_HOST, _NAMESPACE)
    short = model if (host, namespace) == usual else f"{namespace}/{model}"
    name = (short if host == _HOST else f"{host}/{short}") + ("" if tag == _TAG else f":{tag}")
    path = blob or folder.joinpath("manifests", *parts)
    return Model(
        path,
        (path,),
        name=f"{name} (of Ollama)",
        reference=f"ollama:{name}",
        size=_size(path),
        quant=(quant_of(kind) if isinstance(kind, str) else None) or quant_of(tag),
        digests=(path.name.removeprefix("sha256-"),) if blob is not None else (),
        problem=problem or None,
        program="ollama",
    )


def _blob(folder: Path, digest: object) -> Path | None:
    """The file of a digest; None for a text that is none, so that no path is built from it."""
    found = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    return None if found is None else folder / "blobs" / f"sha256-{found[1]}"


def _damage(blob: Path, told: object) -> str:
    """Why the file of weights cannot be used; "" if it can."""
    try:
        size = blob.stat().st_size
    except OSError as error:
        return f"its weights cannot be read: {error.strerror}"
    if isinstance(told, int) and size != told:
        return f"its weights have {size} bytes, and its manifest says {told}"
    return ""


# --- LM Studio


def _lm_studio_models(folder: Path) -> Iterator[Model]:
    try:
        repositories = sorted(path for path in folder.glob("*/*") if path.is_dir())
    except OSError:
        return
    for repository in repositories:
        with suppress(OSError):
            yield from _in_repository(repository)


def _in_repository(repository: Path) -> list[Model]:
    names = sorted(path.relative_to(repository).as_posix() for path in repository.rglob("*.gguf") if path.is_file())
    groups, models = groups_in(names), []
    repo = f"{repository.parent.name}/{repository.name}"
    for label, parts in groups.items():
        files = tuple(repository / part for part in parts)
        missing = missing_shards(parts)
        reference = f"lmstudio:{repo}" + (f":{label}" if len(groups) > 1 else "")
        models.append(
            Model(
                files[0],
                files,
                name=f"{repo}, {label} (of LM Studio)",
                reference=reference,
                size=ByteCount(sum(_size(file) for file in files)),
                quant=quant_of(parts[0]),
                problem=str(missing[0]) if missing else None,
                program="lmstudio",
            )
        )
    return models


def _find_in_lm_studio(name: str) -> Model:
    repo, _, label = name.partition(":")
    parts = repo.split("/")
    if len(parts) != 2 or not all(_PART.fullmatch(part) and ".." not in part for part in parts):
        raise UsageError(
            f"{name!r} is not a name of LM Studio", hint="as in lmstudio:org/repo or lmstudio:org/repo:Q4_K_M"
        )
    found = []
    for folder in folders("lmstudio"):
        with suppress(OSError):
            if folder.joinpath(*parts).is_dir():
                found = _in_repository(folder.joinpath(*parts))
                break
    if label and found:
        # With one file there is no label in its reference, and the quantization still names it.
        labels = {each.reference.partition(":")[2].partition(":")[2] or each.quant or "": each for each in found}
        chosen = pick_quant(label, list(labels))
        found = [] if chosen is None else [labels[chosen]]
    if not found:
        raise _unknown("lmstudio", name)
    return max(found, key=lambda model: model.size)


def _unknown(program: str, name: str) -> NotFound:
    """The error for a name that the program does not have, with those that it has."""
    names = [model.reference for model in models_of(program)]
    places = listed([str(folder) for folder in folders(program)]) or "no folder of its models was found"
    hint = f"it has: {listed(names)}" if names else f"looked in: {places}"
    return NotFound(f"{PROGRAMS[program]} has no model {name!r} on this machine", hint=hint)


def _size(path: Path) -> ByteCount:
    with suppress(OSError):
        return ByteCount(path.stat().st_size)
    return ByteCount(0)


def _json(path: Path) -> dict[str, Any]:
    """The object in a small file; an empty one for a file that holds none."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_MANIFEST + 1)
        return _dict(json.loads(text)) if len(text) <= _LARGEST_MANIFEST else {}
    except (OSError, ValueError, RecursionError):
        return {}


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
