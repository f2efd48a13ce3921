"""Drafters that follow a script, and what is drawn with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runtime.base.types import Completion, SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.markers import ThinkingMarkers
from runtime.engine.sequence import Request
from runtime.engine.speculation import Drafter
from runtime.engine.speculation.drafter import Worth
from runtime.engine.template import Prompt
from tests.fakes import FakeBackend, saying

PROMPT = "Question? "
TAGS = ThinkingMarkers("<think>", "</think>")


def everything(chances: Sequence[float]) -> int:
    return len(chances)


class Scripted:
    """Guesses what it was told, whatever it may be worth; keeps what it was told about the text."""

    kind = "scripted"

    def __init__(self, guess: Callable[[list[int]], list[int]]) -> None:
        self._guess = guess
        self.text: list[int] = []
        self.learnt = 0

    def begin(self, tokens: Sequence[int]) -> None:
        self.text = [*tokens]

    def follow(self, tokens: Sequence[int]) -> None:
        self.text += tokens

    def propose(self, most: int, worth: Worth) -> list[int]:
        return self._guess(self.text)[:most]

    def learn(self) -> None:
        self.learnt += 1


def knowing(reply: str, *, wrong_every: int = 0) -> Scripted:
    """Guesses eight tokens of the reply, each `wrong_every`-th of them wrong."""

    def guess(text: list[int]) -> list[int]:
        said = len(text) - len(PROMPT)
        following = range(said, min(said + 8, len(reply)))
        return [ord("#") if wrong_every and at % wrong_every == 0 else ord(reply[at]) for at in following]

    return Scripted(guess)


def request(**fields: object) -> Request:
    params = fields.pop("params", SamplingParams())
    return Request(Prompt(tuple(PROMPT.encode())), params, **fields)  # type: ignore[arg-type]


def drawn(reply: str, drafter: Drafter | None, asked: Request | None = None, **backend: int) -> tuple[Completion, int]:
    """The completion and how often the model was run for it."""
    fake = FakeBackend(saying(reply, after=PROMPT), **backend)
    [completion] = Engine(fake, drafter=drafter, now=lambda: 0.0).generate([asked or request()])
    return completion, len(fake.batches)
