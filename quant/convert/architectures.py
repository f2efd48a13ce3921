"""The classes of models that can be converted, by the name that config.json gives them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quant.convert.config import Config
from quant.convert.facts import Facts
from quant.convert.families import FAMILIES
from quant.convert.family import Family, holds
from runtime.base.errors import Incompatible

_ENDING = re.compile(r"(For[A-Z]|LMHead).*$")

CLASSES = frozenset(name for family in FAMILIES for name in family.classes)


def configured(values: Mapping[str, Any], path: Path, *, keep_mtp: bool = False) -> tuple[Family, Facts]:
    """The family of the config.json at `path` with the object `values`, and the model's facts, with defaults.

    Raises Incompatible for an unknown class, and where `keep_mtp` asks for layers that are not there."""
    config = Config(values, path)
    family, facts = _found(config)
    if not keep_mtp:
        return family, Facts(facts.config.without_mtp(), family.sizes or {})
    if not family.has_mtp or not facts.number("mtp_layers"):
        raise Incompatible(f"{path}: this model has no MTP layers that could be kept", hint="leave out --keep-mtp")
    return family, facts


def _found(config: Config) -> tuple[Family, Facts]:
    for name in config.architectures:
        for family in FAMILIES:
            if name in family.classes:
                facts = Facts(config.flat.with_defaults(**(family.defaults or {})), family.sizes or {})
                if holds(family.when, facts):
                    return family, facts
    wanted = config.architectures[0]
    note = "; the code it brings along is never run" if config.has("auto_map") else ""
    near = _near(wanted)
    like = f"; the nearest are {', '.join(near)}" if near else ""
    raise Incompatible(
        f"{config.path}: dsr cannot convert the class {wanted}{note}",
        hint=f"take the model as GGUF; dsr converts {len(CLASSES)} classes{like}",
    )


def _near(name: str) -> list[str]:
    """Up to three known classes whose names without the ending, such as ForCausalLM, are like that of `name`."""
    stems = {_ENDING.sub("", each): each for each in sorted(CLASSES)}
    return [stems[stem] for stem in difflib.get_close_matches(_ENDING.sub("", name)[:100], stems, n=3)]
