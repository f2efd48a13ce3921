"""The suites on the hub: the file of each dataset, and the meaning of its keys (suites.toml)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.base.errors import NetworkError, NotFound
from runtime.base.events import Listener, ignore
from runtime.base.texts import read_text

if TYPE_CHECKING:
    from dsr.hub.client import Hub

FACTS = ("repo", "file", "problems", "fields")


@dataclass(frozen=True, slots=True)
class SuiteEntry:
    """A suite on the hub. `fields`: from our names to the keys of the file. `prompt`: the name of a text in `prompts/`.

    `source`: by document, the facts that it states. `unverified`: facts without a document.
    """

    name: str
    repo: str
    file: str
    problems: int
    fields: Mapping[str, str]
    prompt: str
    source: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unverified: tuple[str, ...] = ()


@cache
def load() -> tuple[SuiteEntry, ...]:
    """Returns the table in the package."""
    return read(resources.files("dsr.suites").joinpath("suites.toml").read_text(encoding="utf-8"))


def read(text: str) -> tuple[SuiteEntry, ...]:
    """Parses the table.

    Raises ValueError for an unknown key, and for a fact that has no source and is not in `unverified`.
    """
    table = tomllib.loads(text)
    return tuple(_entry(row, table["documents"]) for row in table["suite"])


def _entry(row: Mapping[str, Any], documents: Mapping[str, str]) -> SuiteEntry:
    name = row["name"]
    if unknown := set(row) - {each.name for each in fields(SuiteEntry)}:
        raise ValueError(f"{name}: unknown key {min(unknown)!r}")
    source = {documents[key]: tuple(facts) for key, facts in row.get("source", {}).items()}
    unverified = tuple(row.get("unverified", ()))
    listed = [fact for facts in source.values() for fact in facts] + list(unverified)
    if sorted(listed) != sorted(FACTS):
        raise ValueError(f"{name}: each of {', '.join(FACTS)} needs a source or a place in 'unverified', not both")
    return SuiteEntry(**{**row, "source": source, "unverified": unverified})


def lookup(name: str) -> SuiteEntry | None:
    return next((entry for entry in load() if entry.name == name.casefold()), None)


def fetch(entry: SuiteEntry, listen: Listener = ignore) -> str:
    """Returns the text of the suite's file, from the Hugging Face cache or from the hub, with its hash checked.

    Raises NetworkError without a network and without a copy, and other errors of the hub.
    """
    from dsr.hub import client as hubs

    hub = hubs.from_environment(listen).for_datasets()
    cache = hub.cache(entry.repo)
    commit = cache.commit_of("main")
    place = cache.pointer(commit, entry.file) if commit else None
    if place is None or not place.is_file():
        place = _download(hub, entry, listen)
    return read_text(place)


def _download(hub: Hub, entry: SuiteEntry, listen: Listener) -> Path:
    try:
        listing = hub.listing(entry.repo, listen=listen)
        if entry.file not in listing.sizes:
            raise NotFound(f"{entry.repo} no longer has {entry.file}", hint="use a file of your own: --suite FILE")
        place = hub.fetch(listing, entry.file, listen)
        hub.remember(listing)
    except NetworkError as error:
        raise NetworkError(
            f"the suite {entry.name} must be downloaded first: {error.message}",
            hint=f"{error.hint or 'try again with a network'}; the suite nano needs no network",
        ) from error
    return place
