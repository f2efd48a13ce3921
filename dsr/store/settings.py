"""The user's settings: environment variables override the settings file, which overrides the defaults."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from runtime.base.errors import NotFound, UsageError
from runtime.base.run import MOST_THREADS
from runtime.base.texts import read_toml
from runtime.base.types import ByteCount, SamplingParams, out_of_range

Thinking = Literal["show", "hide", "summary"]
# How dsr answers when a conversation outgrows the context.
OnFull = Literal["stop", "forget", "summary"]
Effort = Literal["minimal", "low", "medium", "high", "max"]


@dataclass(frozen=True, slots=True)
class Settings:
    """The keys of config.toml; each is also read from DSR_<KEY>. None means: decide by model and machine.

    `sampling` has the keys that are sampling settings, for all models.
    """

    model: str | None = None
    thinking: Thinking = "show"
    threads: int | None = None
    ctx_size: int | None = None
    kv_type: str = "f16"
    on_full: OnFull | None = None
    log: bool = True
    cache_limit: str | None = None
    effort: Effort | None = None
    keep_thoughts: bool = False
    sampling: Mapping[str, Any] = field(default_factory=dict)


KINDS: dict[str, type] = {
    "model": str,
    "thinking": str,
    "threads": int,
    "ctx_size": int,
    "kv_type": str,
    "on_full": str,
    "log": bool,
    "cache_limit": str,
    "effort": str,
    "keep_thoughts": bool,
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "thinking": get_args(Thinking),
    "effort": get_args(Effort),
    "on_full": get_args(OnFull),
}
# Biases and DRY's sequence breakers are left out: tokens belong to one model.
SAMPLING: dict[str, type] = {
    name: type(getattr(SamplingParams(), name))
    for name in (
        "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repeat_penalty",
        "penalty_last_n", "dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n", "xtc_probability",
        "xtc_threshold", "typical_p", "top_n_sigma", "dynatemp_range", "dynatemp_exponent",
    )
}  # fmt: skip
KINDS |= SAMPLING
_WORDS: dict[type, str] = {str: "a text in quotes", int: "a whole number", float: "a number", bool: "true or false"}
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings; a missing file is an empty one. Raises UsageError naming the file or variable and the key."""
    values = {**from_file(path), **from_environment(environ)}
    sampling = {key: values.pop(key) for key in SAMPLING if key in values}
    return Settings(**values, sampling=sampling)


def from_file(path: Path) -> dict[str, Any]:
    """The settings in the file, checked; a missing file has none."""
    try:
        table = read_toml(path)
    except NotFound:
        return {}
    for key, value in table.items():
        _check(str(path), key, value)
    return table


def from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings in variables, checked."""
    found: dict[str, Any] = {}
    for key in KINDS:
        name = f"DSR_{key.upper()}"
        if environ.get(name):
            found[key] = checked(name, key, environ[name])
    return found


def checked(source: str, key: str, text: str) -> Any:
    """The value of a setting that is written as a text. Raises UsageError naming `source` and the key."""
    check_key(source, key)
    kind = KINDS[key]
    value: Any = text
    if kind is int:
        try:
            value = int(text)
        except ValueError:
            raise UsageError(f"{source}: must be a whole number, not {text!r}") from None
    elif kind is float:
        try:
            value = float(text)
        except ValueError:
            raise UsageError(f"{source}: must be a number, not {text!r}") from None
    elif kind is bool:
        if text.lower() not in _TRUE + _FALSE:
            raise UsageError(f"{source}: must be true or false, not {text!r}")
        value = text.lower() in _TRUE
    _check(source, key, value)
    return value


def check_key(source: str, key: str) -> None:
    """Raise UsageError for a setting that dsr does not know."""
    if key not in KINDS:
        near = difflib.get_close_matches(key, KINDS, n=1)
        plain = ", ".join(each for each in KINDS if each not in SAMPLING)
        raise UsageError(
            f"{source}: unknown setting {key!r}",
            hint=f"did you mean {near[0]!r}?"
            if near
            else f"known settings: {plain}, and sampling settings such as top_p",
        )


def _check(source: str, key: str, value: object) -> None:
    check_key(source, key)
    kind = KINDS[key]
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise UsageError(f"{source}: {key} must be {_WORDS[kind]}, not {value!r}")
    if key in _CHOICES and value not in _CHOICES[key]:
        raise UsageError(f"{source}: {key} must be one of {', '.join(_CHOICES[key])}, not {value!r}")
    if key == "cache_limit":
        try:
            ByteCount.parse(cast(str, value))
        except UsageError as error:
            raise UsageError(f"{source}: cache_limit: {error.message}", hint=error.hint) from None
    if key in SAMPLING:
        if complaint := out_of_range(key, cast(float, value)):
            raise UsageError(f"{source}: {key} {complaint}")
    elif kind is int and cast(int, value) < 1:
        raise UsageError(f"{source}: {key} must be at least 1, not {value}")
    elif key == "threads" and cast(int, value) > MOST_THREADS:
        raise UsageError(f"{source}: threads must be between 1 and {MOST_THREADS}, not {value}")
