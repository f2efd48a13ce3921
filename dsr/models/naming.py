"""Checks a name that the user gives to a model, and what it stands for."""

from __future__ import annotations

from collections.abc import Mapping

from dsr.models.catalog import load
from dsr.models.references import EMBEDDED, parse_target
from dsr.models.references import target_of as own_target
from runtime.base.errors import UsageError


def target_of(name: str, model: str, names: Mapping[str, str]) -> str:
    """The reference that `name` will stand for: that of `model`, or of the model that this is a name of.

    A path becomes absolute. Raises UsageError for a name that dsr has already, and as `references.parse`.
    """
    catalog = load()
    if name.casefold() == EMBEDDED or catalog.lookup(name) or catalog.tags(name):
        raise UsageError(f"{name} is the name of a model that dsr knows", hint="choose another name")
    if (own := own_target(model, names)) is not None:
        return own
    reference = parse_target(model)
    return str(reference.path.absolute()) if reference.kind == "path" and reference.path else model
