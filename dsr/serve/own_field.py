"""The `dsr` field of a body, in any API: how to draw."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from dsr.serve.http.body import Body
from dsr.serve.names import Named


class DsrOptions(Body):
    """dsr's own field: how to draw. `{"vote": 8}` is short for `{"strategy": "vote", "set": {"n": 8}}`.

    `think`: on or off. `continue`: the last message is an answer that goes on. A field that dsr does not know is an
    error here.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    vote: int | None = Field(default=None, ge=1, le=255)
    strategy: str | None = None
    set: dict[str, str | int | float | bool] = Field(default_factory=dict)
    think: bool | None = None
    think_budget: int | None = Field(default=None, ge=0)
    continues: bool = Field(default=False, alias="continue")
    keep_thoughts: bool = False
    events: bool = False
    timeout: float | None = Field(default=None, gt=0)  # seconds


def strategy_of(own: DsrOptions, named: Named) -> tuple[str, tuple[str, ...]]:
    """The strategy of the `dsr` field, else that of the model's name; its settings as "KEY=VALUE"."""
    settings = tuple(f"{key}={_word(value)}" for key, value in own.set.items())
    if own.vote is not None:
        return "vote", (f"n={own.vote}", *settings)
    if own.strategy:
        return own.strategy, settings
    return named.strategy, (*named.settings, *settings)


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
