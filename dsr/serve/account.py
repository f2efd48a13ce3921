"""What one request has used, for the access log and the metrics. The pool and the engines write it for every API."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from dsr.serve.told import Begun, Decided, Ended, Told


@dataclass(slots=True)
class Account:
    """`route` is the path as its endpoint has it. `tokens` are all that were drawn, thoughts too."""

    route: str = ""
    model: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    tokens: int = 0
    thinking_tokens: int = 0

    def add(self, told: Told) -> None:
        if isinstance(told, Begun):
            self.prompt_tokens += told.prompt_tokens
        elif isinstance(told, Ended):
            self.tokens += told.tokens
            self.thinking_tokens += told.thinking_tokens
            self.cached_tokens = max(self.cached_tokens, told.cached)
        elif isinstance(told, Decided):
            self.tokens = told.verdict["tokens"]["spent"]


_CURRENT: ContextVar[Account] = ContextVar("account")


def opened() -> Account:
    """A new account of the request that this task answers."""
    account = Account()
    _CURRENT.set(account)
    return account


def current() -> Account:
    """The account of this request; outside of requests, one that nobody reads."""
    return _CURRENT.get(None) or Account()
