"""Parses model references: a short name, a repository, a web address or a path."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dsr.models.catalog import Catalog, CatalogEntry, load
from dsr.models.gguf_names import normal_quant, quant_of
from dsr.models.other_programs import offered, split_program
from dsr.models.spellings import Spelled, spelled
from dsr.store import aliases, paths
from quant.sources.weight_files import is_raw_part
from runtime.base.errors import DsrError, NotFound, UsageError
from runtime.base.files import expanded

EMBEDDED = "nano"

# One part of "org/repo", as the hub checks it (huggingface_hub, utils/_validators.py, validate_repo_id).
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_LONGEST_PART = 96
_LONGEST_PATH = 4096
# A quantization, or the path in its repository of a model whose quantization several share.
_QUANT = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._/-]*[A-Za-z0-9_])?")
_LATEST = ":latest"  # what Ollama adds to a name without a size
_LONGEST_QUANT = 255
# Words that are no model: sums. Words that look like one: a name with a tag, or one that ends in a size such as 8b.
_SUM = re.compile(r"[\d.,+*/^()=?%x-]+")
_TAGGED = re.compile(r"[A-Za-z][\w.-]*[:@][\w.-]+")
_SIZED = re.compile(r"[A-Za-z][\w.-]*\d+(?:\.\d+)?[bB]")
# How alike a word is to a name (difflib's ratio: "gamma" and "gemma" are 0.8 alike), and how long it must be.
_NEAR = 0.8
_SHORTEST_NEAR = 3
_HUB = re.compile(r"(?:hf://(?:models/)?|(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/)", re.IGNORECASE)
_WINDOWS_NAMES = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reference:
    """One parsed reference. For a short name `repo` is the GGUF repository of its `entry`.

    `quant` is upper case, and None if the user named none. A model of another program has a `path` that is no path:
    `dsr.models.other_programs` finds it.
    """

    kind: Literal["embedded", "path", "name", "repo", "program"]
    text: str
    repo: str | None = None
    quant: str | None = None
    path: Path | None = None
    entry: CatalogEntry | None = None


def parse(text: str) -> Reference:
    """Parse a reference; a name that the user gave (`dsr alias`) stands for its target. Of the disk only the names of
    files and the user's own names are read.

    Raises NotFound with suggestions for an unknown short name, and UsageError for an invalid or ambiguous name.
    """
    target = target_of(text, aliases.load(paths.aliases_file()))
    return parse_target(text) if target is None else replace(parse_target(target), text=text)


def is_known(name: str) -> bool:
    """Whether the catalogue has a model of this name, with a quantization or without."""
    try:
        return parse(name).entry is not None
    except DsrError:
        return False


def target_of(name: str, names: Mapping[str, str]) -> str | None:
    """The model that the user's own name stands for; None for another name.

    Raises UsageError if that is one of the user's own names again, which only an edited file has.
    """
    target = names.get(name.casefold())
    if target is not None and target.casefold() in names:
        raise UsageError(
            f"your name {name} stands for {target}, which is not a model but another of your names",
            hint=f"name the model itself: dsr alias {name} MODEL",
        )
    return target


def sizes(name: str) -> tuple[CatalogEntry, ...]:
    """The models that a name without a size means (deepseek-r1, deepseek-r1:latest, llama3.2); none if it means one."""
    bare = name.casefold().removesuffix(_LATEST)
    if bare in aliases.load(paths.aliases_file()) or load().lookup(bare):
        return ()
    if tags := load().tags(bare):
        return tags
    found = _as_others_spell_it(bare, load())
    return found.entries if len(found.entries) > 1 and found.quant is None else ()


def parse_target(text: str) -> Reference:
    """`parse` without the user's own names."""
    if not text.strip():
        raise UsageError("the model's name is empty", hint="to see the names: dsr list --catalog")
    if len(text) > _LONGEST_PATH:
        raise UsageError(f"{text[:40]!r}... is too long to be a model's name")
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise UsageError(
            f"a model's name cannot hold control characters: {text!r}", hint="rename the file, if it has that name"
        )
    if text.casefold() == EMBEDDED:
        return Reference("embedded", text)
    if split_program(text) is not None:
        return Reference("program", text, path=Path(text))
    if hub := _HUB.match(text):
        return _repository(text, _without_web_tail(text[hub.end() :]))
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise UsageError(f"{text}: dsr only accepts addresses of huggingface.co", hint="dsr pull org/repo")
    if _is_path(text):
        return Reference("path", text, path=expanded(text))
    if "/" in text:
        return _repository(text, text)
    return _short_name(text, load())


@dataclass(frozen=True, slots=True)
class Guess:
    """Whether a word is meant as a model ("model"), may be a model with a mistake ("near"), or cannot be one ("no").

    `names` are models whose names look like the word, the closest first.
    """

    kind: Literal["model", "near", "no"]
    names: tuple[str, ...] = ()


def guess(word: str) -> Guess:
    """Whether a word that may be a model or a question is a model. The disk is read only to look for a file."""
    if word.casefold() == EMBEDDED or _HUB.match(word) or "://" in word:
        return Guess("model")
    if word.casefold() in aliases.load(paths.aliases_file()) or split_program(word) or offered(word):
        return Guess("model")
    if _SUM.fullmatch(word):
        return Guess("no")
    catalog = load()
    if _is_path(word) or "/" in word or catalog.lookup(word) or catalog.tags(word) or _holds_weights(Path(word)):
        return Guess("model")
    if _as_others_spell_it(word, catalog).entries:
        return Guess("model")
    names = near_names(word, catalog)
    if _TAGGED.fullmatch(word):
        return Guess("model", names)
    return Guess("near" if names or _SIZED.fullmatch(word) else "no", names)


def near_names(word: str, catalog: Catalog) -> tuple[str, ...]:
    """Short names that the word may be meant as, at most three, the closest first."""
    wanted = word.casefold().partition(":")[0]
    if len(wanted) < _SHORTEST_NEAR or not _PART.fullmatch(wanted):
        return ()
    own = tuple(aliases.load(paths.aliases_file()))
    smallest = {EMBEDDED: EMBEDDED, **{name: name for name in own}}
    for entry in sorted(catalog.entries, key=lambda entry: entry.parameters):
        smallest.setdefault(entry.name.partition(":")[0], entry.name)
    listed = dict.fromkeys([EMBEDDED, *own, *(entry.name.partition(":")[0] for entry in catalog.entries)])
    families: dict[str, list[str]] = {}
    for name in listed:
        families.setdefault(re.split(r"[\d.-]", name)[0], []).append(name)
    close = difflib.get_close_matches(wanted, [*listed, *families], n=3, cutoff=_NEAR)
    begun = [name for name in listed if name.startswith(wanted)]
    begins = [family for family in families if len(family) >= _SHORTEST_NEAR and wanted.startswith(family)]
    found = [*close, *begun, *begins]
    bare = dict.fromkeys(name for each in found for name in ([each] if each in listed else families[each]))
    return tuple(smallest[name] for name in bare)[:3]


def check_repo(repo: str) -> None:
    """Raise UsageError for an invalid repository id, or one that cannot be a folder name on every system."""
    parts = repo.split("/")
    if len(parts) != 2:
        raise UsageError(f"{repo!r} is not a repository: it must look like org/repo")
    for part in parts:
        if len(part) > _LONGEST_PART:
            raise UsageError(f"{part[:40]!r}... is longer than {_LONGEST_PART} characters")
        if not _PART.fullmatch(part) or ".." in part or "--" in part or part.lower().endswith(".git"):
            raise UsageError(
                f"{part!r} cannot be a part of a repository's name",
                hint="use letters, digits, '.', '_' and '-'; not '..' or '--', and not '.' or '-' at the start or end",
            )
        if _WINDOWS_NAMES.fullmatch(part):
            raise UsageError(f"{part!r} is a reserved name on Windows")


def _is_path(text: str) -> bool:
    looks_like_one = (
        text.lower().endswith(".gguf")
        or is_raw_part(text)
        or text in (".", "..", "~")
        or text.startswith(("./", "../", "~/", "/", ".\\", "..\\", "~\\", "\\"))
        or re.match(r"[A-Za-z]:[\\/]", text) is not None
    )
    if looks_like_one:
        return True
    try:
        return ("/" in text or "\\" in text) and Path(text).exists()
    except OSError:  # longer than the system allows: then it is not a path
        return False


def _without_web_tail(rest: str) -> str:
    """Shorten an address from a browser: 'org/repo/blob/main/x-Q4_K_M.gguf?download=true' -> 'org/repo:Q4_K_M'."""
    rest = re.split(r"[?#]", rest)[0].rstrip("/")
    parts = rest.split("/")
    if len(parts) < 3:
        return rest
    repo, where, revision, inside = "/".join(parts[:2]), parts[2], parts[3:4], "/".join(parts[4:])
    if where in ("tree", "blob", "resolve") and revision == ["main"]:
        quant = quant_of(inside)
        return f"{repo}:{quant}" if quant else repo
    if where in ("tree", "blob", "resolve") and revision:
        raise UsageError(f"{rest} names a revision", hint=f"dsr pull {repo} --revision {revision[0]}")
    raise UsageError(f"{rest!r} is not a repository: it must look like org/repo")


def _repository(text: str, rest: str) -> Reference:
    repo, quant = _split_quant(rest)
    check_repo(repo)
    return Reference("repo", text, repo=repo, quant=quant, entry=load().entry_for_repo(repo))


def _split_quant(text: str) -> tuple[str, str | None]:
    """'x@q8_0' and 'x:Q8_0' -> ('x', 'Q8_0')."""
    found = re.search(r"[@:]([^@:]*)$", text)
    if found is None:
        return text, None
    if text.casefold().endswith(_LATEST):
        return text[: found.start()], None
    if not _QUANT.fullmatch(found[1]) or len(found[1]) > _LONGEST_QUANT:
        raise UsageError(f"{found[1]!r} is not a quantization", hint="write it as org/repo:Q4_K_M")
    return text[: found.start()], normal_quant(found[1])


def _short_name(text: str, catalog: Catalog) -> Reference:
    entry, quant = catalog.lookup(text), None
    found = _as_others_spell_it(text, catalog) if entry is None else Spelled((), None)
    if entry is None and not found.entries and re.search(r"[@:]", text) and not text.casefold().endswith(_LATEST):
        name, quant = _split_quant(text)
        entry = catalog.lookup(name)
    if entry is not None:
        return Reference("name", text, repo=entry.gguf, quant=quant, entry=entry)
    tags = catalog.tags(text.casefold().removesuffix(_LATEST))
    if tags:
        raise _ambiguous_name(text, tags)
    if _holds_weights(Path(text)):
        return Reference("path", text, path=Path(text))
    if len(found.entries) > 1:
        raise _ambiguous_name(text, found.entries)
    if found.entries:
        return Reference("name", text, repo=found.entries[0].gguf, quant=found.quant, entry=found.entries[0])
    near = catalog.suggest(text)
    meant = f"did you mean {', '.join(near)}?" if near else "to see the names: dsr list --catalog"
    others = " Any other model of the hub: dsr pull org/repo" if near and _TAGGED.fullmatch(text) else ""
    raise NotFound(f"no model is called {text!r}", hint=meant + others)


def _as_others_spell_it(name: str, catalog: Catalog) -> Spelled:
    """The models that a name of another program means; a word that has no digit is no name."""
    return spelled(name, catalog.entries if re.search(r"\d", name) else ())


def _holds_weights(path: Path) -> bool:
    """Whether a name without a slash is a path: any file, which is then named as what it is, or a model's folder."""
    try:
        return path.is_file() or (path / "config.json").is_file() or any(path.glob("*.gguf"))
    except OSError:  # longer than the system allows
        return False


def _ambiguous_name(name: str, tags: Sequence[CatalogEntry]) -> UsageError:
    distills = [entry.name for entry in tags if entry.distill]
    others = [f"{entry.name} = {entry.model}" if distills else entry.name for entry in tags if not entry.distill]
    count = f"{len(tags)} models, {len(distills)} of them distills" if distills else f"{len(tags)} models"
    hint = ", ".join(others) + (f"; distills: {', '.join(distills)}" if distills else "")
    return UsageError(f"{name} matches {count}; name one of them", hint=hint)
