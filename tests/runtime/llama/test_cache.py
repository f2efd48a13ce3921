"""The KV cache of the real engine, and stops at any time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime.base.errors import Aborted, DoesNotFit, EngineFailed, NoRoom, UsageError
from runtime.base.events import Event, Progress, SampleFinished, TextDrawn
from runtime.base.run import Run, Stop
from runtime.base.types import SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.llama import LlamaBackend, OpenOptions
from tests.runtime.native_engine import DAY, GREEDY, SUM, WORD, StopWhenAsked, asked, batch, one, request, row_of, small

# The cache


def test_a_fork_continues_from_what_its_source_holds(backend: LlamaBackend) -> None:
    tokens = backend.tokenize(asked(WORD))
    backend.decode(batch(tokens[:-1], slot=8, output=False))
    backend.fork(8, 0)
    backend.fork(8, 5)
    backend.decode(batch(tokens[-1:], len(tokens) - 1, slot=0))
    first = row_of(backend, 0)
    backend.decode(batch(tokens[-1:], len(tokens) - 1, slot=5))
    assert np.array_equal(row_of(backend, 0), first)


def test_a_fork_replaces_what_its_target_held(backend: LlamaBackend) -> None:
    tokens = backend.tokenize(asked(WORD))
    backend.decode(batch([9] * 40, slot=1))
    backend.decode(batch(tokens[:-1], slot=8, output=False))
    backend.fork(8, 1)
    backend.decode(batch(tokens[-1:], len(tokens) - 1, slot=1))
    assert backend.sampler(GREEDY, 0)(0) == one(backend, WORD).tokens[0]


def test_trimming_a_fork_leaves_its_source_whole(backend: LlamaBackend) -> None:
    tokens = backend.tokenize(asked(WORD))
    backend.decode(batch(tokens[:-1], slot=8, output=False))
    backend.fork(8, 0)
    assert backend.trim(0, 3)
    backend.decode(batch([9], 3, slot=0))
    backend.decode(batch(tokens[-1:], len(tokens) - 1, slot=8))
    assert backend.sampler(GREEDY, 0)(0) == one(backend, WORD).tokens[0]


def test_trim_forgets_from_the_length_on(backend: LlamaBackend) -> None:
    tokens = backend.tokenize(asked(WORD))
    backend.decode(batch(tokens))
    expected = row_of(backend, len(tokens) - 1)
    backend.decode(batch([9, 9, 9], len(tokens)))
    assert backend.trim(0, len(tokens) - 1)
    with pytest.raises(EngineFailed, match="code -1"):
        backend.decode(batch([9], len(tokens)))
    backend.decode(batch(tokens[-1:], len(tokens) - 1))
    assert row_of(backend, 0) == pytest.approx(expected, abs=0.05)
    assert backend.trim(0, 0)
    backend.decode(batch(tokens))
    assert np.array_equal(row_of(backend, len(tokens) - 1), expected)


def test_no_room_leaves_the_cache_as_it_was(nano_path: Path) -> None:
    with small(nano_path) as backend:
        draw = backend.sampler(GREEDY, 0)
        tokens = (backend.tokenize(asked(SUM)) * 20)[:250]

        def after(failures: int) -> np.ndarray:
            backend.trim(0, 0)
            backend.decode(batch(tokens, output=False))
            for _ in range(failures):
                with pytest.raises(NoRoom, match="the KV cache of 256 tokens is full"):
                    backend.decode(batch([9] * 7, 250))
            backend.decode(batch([9] * 6, 250))
            assert draw(5) == int(row_of(backend, 5).argmax())
            return row_of(backend, 5)

        assert np.array_equal(after(failures=2), after(failures=0))


def test_the_end_of_the_context_ends_the_sample_by_length(nano_path: Path) -> None:
    class Unending(LlamaBackend):
        def ends(self, token: int) -> bool:
            return False

    for context in (256, 300):  # the engine itself rounds up to a multiple of 256
        with Unending(nano_path, OpenOptions(context=context)) as backend:
            asking = request(backend, SUM, SamplingParams(temperature=0))
            [completion] = Engine(backend).generate([asking])
        assert completion.finish_reason == "length"
        # The last token drawn needs no cell of its own.
        assert len(asking.prompt.tokens) + len(completion.tokens) == context + 1


def test_a_prompt_as_long_as_the_context_is_refused_and_one_shorter_answers_one_token(nano_path: Path) -> None:
    with small(nano_path) as backend:
        tokens = tuple((backend.tokenize(asked(SUM)) * 20)[:256])
        with pytest.raises(DoesNotFit, match="the prompt is 256 tokens long, and 256 is the most"):
            Engine(backend).generate([Request(Prompt(tokens), GREEDY)])
        [completion] = Engine(backend).generate([Request(Prompt(tokens[:255]), GREEDY)])
        assert 0 < len(completion.tokens) <= 2


def test_a_prompt_of_more_than_one_batch(nano_path: Path) -> None:
    with small(nano_path, context=4096) as backend:
        tokens = (backend.tokenize("a b c\n") * 1000)[:1700] + backend.tokenize(asked(SUM))
        events = list(
            Engine(backend).stream([Request(Prompt(tuple(tokens)), SamplingParams(temperature=0, max_tokens=3))])
        )
    done = [event.done for event in events if isinstance(event, Progress)]
    assert done == [0, 512, 1024, 1536, len(tokens) - 1]


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "f32", "bf16"])
def test_other_cache_types_answer_too(nano_path: Path, kind: str) -> None:
    with small(nano_path, context=512, kv_type=kind) as backend:
        assert one(backend, SUM).answer == "The answer is \\boxed{933}."


def test_an_unknown_cache_type_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(UsageError, match="'q3_0' is not a type of KV cache"):
        OpenOptions(context=512, kv_type="q3_0")


@pytest.mark.parametrize("options", [{"slots": 0}, {"slots": 256}, {"context": 0}, {"threads": 0}])
def test_impossible_options_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        OpenOptions(**{"context": 512, **options})  # type: ignore[arg-type]


def test_two_engines_use_one_backend_one_after_the_other(backend: LlamaBackend) -> None:
    assert Engine(backend).generate([request(backend, SUM)])[0].answer == "The answer is \\boxed{933}."
    second = Engine(backend)
    assert second.generate([request(backend, DAY)])[0].answer == "The answer is \\boxed{Thursday}."
    assert second.generate([request(backend, SUM)])[0].answer == "The answer is \\boxed{933}."


# Stopping


def test_a_stop_before_a_decode_is_obeyed_once(nano_path: Path) -> None:
    stop = Stop()
    with LlamaBackend(nano_path, OpenOptions(context=256), Run(stop)) as backend:
        stop.set()
        with pytest.raises(Aborted):
            backend.decode(batch([9]))
        assert stop.wanted is False
        backend.decode(batch([9]))


@pytest.mark.parametrize("looks", [1, 20, 60, 90])
def test_a_stop_in_the_middle_of_a_long_prompt(nano_path: Path, looks: int) -> None:
    stop = Stop()
    with LlamaBackend(nano_path, OpenOptions(context=2048), Run(stop)) as backend:
        engine = Engine(backend)
        tokens = tuple((backend.tokenize("a b c\n") * 1000)[:1800])
        backend._stop = asking = StopWhenAsked(after=looks)
        [completion] = engine.generate([Request(Prompt(tokens), GREEDY)])
        assert completion.finish_reason == "cancelled"
        assert completion.tokens == ()
        assert asking.looked <= 2  # the wish is spent
        backend._stop = stop
        assert engine.generate([request(backend, SUM)])[0].answer == "The answer is \\boxed{933}."


def test_a_stop_while_drawing_keeps_what_was_said(backend: LlamaBackend) -> None:
    stop, said = backend._stop, ""
    engine = Engine(backend)
    for event in engine.stream([request(backend, SUM)]):
        if isinstance(event, TextDrawn):
            said += event.text
            if "column" in said:
                stop.set()
        if isinstance(event, SampleFinished):
            completion = event.completion
    assert completion.finish_reason == "cancelled"
    assert completion.thinking.startswith("Let me add column")
    assert len(completion.thinking) < 30
    assert engine.generate([request(backend, SUM)])[0].answer == "The answer is \\boxed{933}."


def test_a_stop_while_loading(nano_path: Path) -> None:
    stop = Stop()
    heard: list[Event] = []

    def listen(event: Event) -> None:
        heard.append(event)
        stop.set()

    with pytest.raises(Aborted, match="stopped while loading"):
        LlamaBackend(nano_path, OpenOptions(context=256), Run(stop, listen))
    assert len(heard) == 1
    assert stop.wanted is False
    with LlamaBackend(nano_path, OpenOptions(context=256), Run(stop)) as backend:
        assert backend.vocab_size == 640


def test_a_listener_that_fails_stops_the_load(nano_path: Path) -> None:
    def listen(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Aborted, match="stopped while loading"):
        LlamaBackend(nano_path, OpenOptions(context=256), Run(listen=listen))


def test_progress_of_a_load_ends_at_all(nano_path: Path) -> None:
    heard: list[Event] = []
    with LlamaBackend(nano_path, OpenOptions(context=256), Run(listen=heard.append)):
        pass
    assert heard[-1] == Progress("loading", "nano.gguf", 100, 100, "percent")
    assert [e.done for e in heard] == sorted(e.done for e in heard)  # type: ignore[union-attr]
