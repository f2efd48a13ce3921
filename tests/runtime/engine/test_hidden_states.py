"""Hidden states of texts: with a fake model, and with the embedded one against its embedding of the last token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime.base.errors import Aborted, TooLong, UsageError
from runtime.base.events import SampleFinished, value_of
from runtime.base.run import Run
from runtime.base.types import SamplingParams
from runtime.engine.embedding import EmbedOptions
from runtime.engine.engine import Engine
from runtime.engine.hidden_states import hidden_states
from runtime.engine.routing import RoutedBackend
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.llama import LlamaBackend, OpenOptions
from tests.fakes import FakeBackend, saying

TEXT = tuple(b"The capital of France is")
QUESTION = "What is 347 + 586?\n"


def fake(**kinds: object) -> FakeBackend:
    """The state tells the length of the text and its last token."""
    backend = FakeBackend(saying("yes", after="? "), **kinds)  # type: ignore[arg-type]
    backend.hidden = lambda held: (float(len(held)), float(held[-1]))
    return backend


def states(engine: Engine, texts: list[tuple[int, ...]]) -> list[tuple[float, ...]]:
    return value_of(hidden_states(engine, texts))


def test_each_text_has_the_state_of_its_last_token() -> None:
    assert states(Engine(fake(slots=3)), [TEXT, TEXT[:3], TEXT]) == [
        (24.0, ord("s")),
        (3.0, ord("e")),
        (24.0, ord("s")),
    ]
    assert states(Engine(fake()), []) == []


def test_a_text_behind_a_cached_one_costs_its_new_tokens() -> None:
    backend = fake(slots=2)
    engine = Engine(backend)
    states(engine, [TEXT])
    before = backend.decoded
    states(engine, [(*TEXT, *b" a"), (*TEXT, *b" b")])
    assert backend.decoded - before <= 2 * 2 + 2


def test_samples_that_draw_go_on_meanwhile() -> None:
    backend = fake(slots=2)
    engine = Engine(backend)
    asked = [
        Request(Prompt(tuple(b"Is it? ")), SamplingParams(temperature=0), sample=0),
        Request(Prompt(TEXT), SamplingParams(temperature=0), sample=1, plain=True, hidden=True),
    ]
    ended = {
        event.completion.sample: event.completion for event in engine.stream(asked) if isinstance(event, SampleFinished)
    }
    assert ended[0].answer == "yes"
    assert (ended[1].hidden, ended[1].tokens, ended[1].finish_reason) == ((24.0, ord("s")), (), "stop")


def test_a_stop_and_a_text_without_room() -> None:
    backend = fake()
    backend.stop.set()
    with pytest.raises(Aborted):
        states(Engine(backend), [TEXT])
    with pytest.raises(TooLong):
        states(Engine(fake(context=20)), [TEXT])


def test_two_models_that_write_together_have_no_state() -> None:
    with pytest.raises(UsageError, match="two models write this reply"):
        states(Engine(RoutedBackend(fake(), fake(), 0.2)), [TEXT])


def test_the_embedded_model_gives_the_state_of_its_last_layer(nano_path: Path) -> None:
    with LlamaBackend(nano_path, OpenOptions(context=512, slots=2)) as backend:
        text = tuple(backend.tokenize(QUESTION, add_bos=True))
        [found] = states(Engine(backend), [text])
        options = EmbedOptions("last", in_parts=False, longest=64, together=64, room=64, sequences=1)
        with backend.embedder(options, Run()) as embedder:
            [vector] = embedder.embed([text])
        unit = np.array(found) / np.linalg.norm(found)
        assert len(found) == 256
        assert float(unit @ np.array(vector)) > 0.9999


def test_reading_states_leaves_later_logits_as_they_are(nano_path: Path) -> None:
    def greedy(engine: Engine, text: tuple[int, ...]) -> tuple[int, ...]:
        params = SamplingParams(temperature=0, max_tokens=12)
        return engine.generate([Request(Prompt(text), params, plain=True)])[0].tokens

    with LlamaBackend(nano_path, OpenOptions(context=512, slots=2)) as backend:
        text = tuple(backend.tokenize(QUESTION, add_bos=True))
        alone = greedy(Engine(backend, reproducible=True), text)
        engine = Engine(backend, reproducible=True)
        states(engine, [text, text[:5]])
        assert greedy(engine, text) == alone
