"""The names that clients call models by: those of the library, those given to `dsr serve`, and "NAME@STRATEGY"."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsr.models import library
from dsr.models.model import Model
from runtime.base.errors import DsrError, NotFound, UsageError
from runtime.base.quoted import quoted
from runtime.strategies.strategy import find

_VOTE = re.compile(r"(vote|deepconf|short-m|no-think-vote|first-finish)(\d{1,3})")
_LONGEST = 300
ANY = "*"  # the alias for all names
_FRESH = 5.0  # seconds for which a listing of the cache is believed


@dataclass(frozen=True, slots=True)
class Named:
    """What a name means: a model, and how it draws. `strategy` is empty without one."""

    model: Model
    strategy: str = ""
    settings: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        return shown(self.model)


class Names:
    """The models that may be asked for: all that are installed, and those `given` at the start.

    A request never names a file: a path is a name only if the person who started the server gave it.
    """

    def __init__(self, given: Sequence[Model] = (), aliases: Sequence[str] = ()) -> None:
        """`aliases` are other names of the first given model; "*" are all names that mean no model.

        Raises UsageError for aliases without a model.
        """
        if aliases and not given:
            raise UsageError("--alias names the first model, and none is given", hint="dsr serve MODEL --alias NAME")
        self._given = tuple(given)
        self.aliases = tuple(aliases)
        self._listed: tuple[Model, ...] = ()
        self._read = -_FRESH

    @property
    def default(self) -> Model | None:
        """The model for requests that name none."""
        return self._given[0] if self._given else None

    def models(self) -> tuple[Model, ...]:
        """All whose files are there; those given at the start come first."""
        if time.monotonic() - self._read >= _FRESH:
            self._listed, self._read = tuple(library.installed()), time.monotonic()
        here = tuple(model for model in self._given if model.path.is_file())
        references = {model.reference for model in here}
        gguf = (model for model in self._listed if model.kind == "gguf" and model.reference not in references)
        return (*here, *(model for model in gguf if model.path.is_file()))

    def find(self, name: str | None) -> Named:
        """What a name means. Raises NotFound, UsageError."""
        if not name:
            if self.default is None:
                raise UsageError("the request names no model", hint="name one of /v1/models")
            return Named(self.default)
        if len(name) > _LONGEST:
            raise UsageError(f"a model's name of {len(name)} characters")
        if name in self.aliases and self.default is not None:
            return Named(self.default)
        plain, at, how = name.partition("@")
        strategy, settings = _strategy_of(how) if at else ("", ())
        return Named(self._model(plain), strategy, settings)

    def _model(self, name: str) -> Model:
        if name in self.aliases and self.default is not None:
            return self.default
        for model in self.models():
            if name in (model.reference, model.short_name, model.path.stem, model.path.name):
                return model
        if not _looks_like_path(name):
            try:
                found = library.find(name)
            except DsrError:
                pass
            else:
                if found.embedded or any(found.path == model.path for model in self.models()):
                    return found
        if ANY in self.aliases and self.default is not None:
            return self.default
        raise NotFound(f"there is no model {quoted(name)!r} here", hint="GET /v1/models lists what is here")


def shown(model: Model) -> str:
    """The name of a model for clients. A file that the person gave has no folders there."""
    return model.path.name if _looks_like_path(model.reference) else model.reference


def shown_reference(reference: str) -> str:
    """As `shown`, for the reference of a model."""
    return Path(reference).name if _looks_like_path(reference) else reference


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~", "\\")) or "\\" in name or ".." in name or name.lower().endswith(".gguf")


def _strategy_of(text: str) -> tuple[str, tuple[str, ...]]:
    """'vote8' is vote with n=8; 'deepconf' is deepconf as it is. Raises UsageError."""
    counted = _VOTE.fullmatch(text)
    name, settings = (counted[1], (f"n={counted[2]}",)) if counted else (text, ())
    find(name).configured(settings)
    return name, settings
