"""A whole answer from what is told of an ask, for clients that do not stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field, replace

from dsr.serve.ask import Ask
from dsr.serve.pool.engine import EngineProcess, ToldFailed
from dsr.serve.told import Begun, Decided, Done, Ended, Failed, Told
from runtime.base.events import TokenDrawn
from runtime.strategies.strategy import find

# Of one answer, which keeps them until it ends: half a gigabyte. 32,768 tokens with 20 others each are 690,000.
_MOST_LOGPROBS = 1_000_000
_TOO_MANY = Failed(
    "UsageError", f"the answers have more than {_MOST_LOGPROBS:,} log-probabilities", "ask for fewer answers or tokens"
)


@dataclass(slots=True)
class Answer:
    """What was told so far. `samples` are those to show, by number; of a strategy the chosen one, else its first."""

    begun: Begun | None = None
    ended: list[Ended] = field(default_factory=list)
    decided: Decided | None = None
    disk_use: dict[str, float] | None = None
    tokens: dict[int, list[TokenDrawn]] = field(default_factory=dict)
    _logprobs: int = 0  # in `tokens`

    def add(self, told: Told) -> None:
        """Raises ToldFailed."""
        if isinstance(told, Begun):
            self.begun = told
        elif isinstance(told, Ended):
            self.ended.append(told)
        elif isinstance(told, TokenDrawn):
            self._logprobs += 1 + len(told.top)
            if self._logprobs > _MOST_LOGPROBS:
                raise ToldFailed(_TOO_MANY)
            self.tokens.setdefault(told.sample, []).append(told)
        elif isinstance(told, Decided):
            self.decided = told
        elif isinstance(told, Done):
            self.disk_use = told.disk_use
        elif isinstance(told, Failed):
            raise ToldFailed(told)

    @property
    def samples(self) -> list[Ended]:
        if self.decided is not None:
            return [each for each in self.ended if each.sample == self.decided.chosen][-1:] or self.ended[:1]
        return sorted(self.ended, key=lambda each: each.sample)

    @property
    def prompt_tokens(self) -> int:
        return self.begun.prompt_tokens if self.begun is not None else 0

    @property
    def drawn(self) -> int:
        """All tokens that were drawn, those of samples that lost too."""
        if self.decided is not None:
            spent: int = self.decided.verdict["tokens"]["spent"]
            return spent
        return sum(each.tokens for each in self.ended)

    @property
    def thought(self) -> int:
        return sum(each.thinking_tokens for each in self.samples)

    @property
    def cached(self) -> int:
        return max((each.cached for each in self.ended), default=0)


async def whole(engine: EngineProcess, ask: Ask) -> Answer:
    """The answer once it is complete. Raises ToldFailed."""
    answer = Answer()
    async for told in _each(engine, replace(ask, streams=False)):
        answer.add(told)
    return answer


async def all_whole(engine: EngineProcess, asks: Iterable[Ask]) -> list[Answer]:
    """The answers, once all are complete. If one fails, the others are withdrawn. Raises ToldFailed."""
    answering = [asyncio.ensure_future(whole(engine, ask)) for ask in asks]
    try:
        return await asyncio.gather(*answering)
    finally:
        for each in answering:
            each.cancel()
        await asyncio.gather(*answering, return_exceptions=True)


async def _each(engine: EngineProcess, ask: Ask) -> AsyncIterator[Told]:
    async for come in engine.ask(ask):
        for told in come:
            yield told


def shows_as_drawn(ask: Ask) -> bool:
    """Whether the text that is drawn is the answer, so that it can be sent at once; a vote is sent when decided."""
    return not ask.strategy or find(ask.strategy).draws == "one"
