"""A task whose model follows a script: (question, sample number) -> reply. Tokens are bytes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from runtime.base.events import Event
from runtime.base.types import Completion, Message, SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.markers import ThinkingMarkers
from runtime.engine.template import Prompt, build_prompt, template_of
from runtime.gguf.reader import read_card
from runtime.strategies.task import Task
from runtime.strategies.verdict import Sample
from tests.fakes import END, FakeBackend

MARKERS = ThinkingMarkers("<think>", "</think>")
Script = Callable[[str, int], str]
Result = TypeVar("Result")


def backend(script: Script, *, slots: int = 4, context: int = 20_000) -> FakeBackend:
    """Goes on with the reply it has begun, whatever was put into its mouth; ends when there is no more."""

    def speak(held: list[int], seed: int) -> int:
        text = bytes(token for token in held if token < 256)
        asked, _, said = text.rpartition(b"\nA:")
        reply = script(asked.decode().removeprefix("Q:"), seed).encode()
        return reply[len(said)] if len(said) < len(reply) else END

    return FakeBackend(speak, slots=slots, context=context, batch_size=512)


def task(script: Script, question: str = "How many?", *, fake: FakeBackend | None = None, **kinds: Any) -> Task:
    def make_prompt(text: str, thinking: bool | None) -> Prompt:
        return Prompt(tuple(f"Q:{text}\nA:".encode()))

    engine = Engine(fake or backend(script))
    return Task(question, make_prompt(question, None), make_prompt, SamplingParams(), engine, MARKERS, **kinds)


def drain(running: Generator[Event, None, Result]) -> tuple[list[Event], Result]:
    """All events, and what the strategy returned."""
    events = []
    while True:
        try:
            events.append(next(running))
        except StopIteration as end:
            return events, end.value


def completion(sample: int, answer: str, *, tokens: int = 4, thinking: str = "", **kinds: Any) -> Completion:
    return Completion(sample, thinking, answer, (1,) * tokens, 0, kinds.pop("finish_reason", "stop"), 0.1, **kinds)


def sample(number: int, answer: str, **kinds: Any) -> Sample:
    return Sample.of(completion(number, answer, **kinds))


@contextmanager
def nano_task(path: Path, question: str, *, slots: int = 4) -> Iterator[Task]:
    """The same question to the embedded model."""
    from runtime.llama import LlamaBackend, OpenOptions

    card = read_card(path)
    assert card.bos_token is not None
    template = template_of(card.template, None, name="nano", bos=card.token_text(card.bos_token), eos="")
    with LlamaBackend(path, OpenOptions(context=2048, slots=slots, visible=MARKERS.texts)) as opened:

        def make_prompt(text: str, thinking: bool | None) -> Prompt:
            prompt = build_prompt(template, [Message("user", text)], MARKERS, thinking, "")
            return prompt.tokenized(opened.tokenize)

        yield Task(
            question,
            make_prompt(question, None),
            make_prompt,
            SamplingParams(max_tokens=300, seed=1),
            Engine(opened),
            MARKERS,
        )
