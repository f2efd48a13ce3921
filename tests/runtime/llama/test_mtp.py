"""Drafts from layers that predict ahead (MTP): what the drafter asks, and that the engine is asked rightly.

In the round-robin model every number of the layer is known: whatever its guesses tell, they tell of what went in. The
untrained layer of the other file attends to all that it was fed, so that a place left out or filled twice shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from runtime.base.types import SamplingParams
from runtime.engine.backend import Batch
from runtime.engine.engine import Engine
from runtime.engine.sequence import Request
from runtime.engine.speculation import LONGEST_AHEAD, MtpDrafter
from runtime.engine.template import Prompt
from runtime.llama import LlamaBackend, OpenOptions
from runtime.llama.mtp import MtpLayers
from runtime.llama.native import native
from tests.nextn import FIRST, LAST, recurrent, round_robin, turn_and_embedding, with_mtp

QUESTION = "<｜User｜>What is 347 + 586?<｜Assistant｜><think>\n"
EAGER = len  # what every guess is worth: as many as there are chances


class FakeLayers:
    def __init__(self, *guesses: list[int]) -> None:
        self._guesses = iter(guesses)
        self.asked: list[tuple[int, int, int]] = []

    def guess(self, token: int, position: int, count: int) -> list[int]:
        self.asked.append((token, position, count))
        return next(self._guesses)


def test_the_layers_are_asked_for_what_follows_the_pending_token() -> None:
    layers = FakeLayers([7, 8, 9], [4])
    drafter = MtpDrafter(layers)
    drafter.begin([5, 6])
    assert drafter.propose(3, EAGER) == [7, 8, 9]
    drafter.follow([7, 3])
    assert drafter.propose(99, EAGER) == [4]
    assert layers.asked == [(6, 1, 3), (3, 3, 4)]


def test_nothing_is_asked_for_what_is_not_worth_it_or_before_a_text() -> None:
    layers = FakeLayers()
    drafter = MtpDrafter(layers)
    assert drafter.propose(3, EAGER) == []
    drafter.begin([5])
    assert drafter.propose(3, lambda chances: 0) == []
    assert layers.asked == []


def test_a_guess_that_nobody_checks_is_judged_all_the_same() -> None:
    seen: list[float] = []

    def never(chances: Sequence[float]) -> int:
        seen.append(chances[0])
        return 0

    layers = FakeLayers([7], [8])
    drafter = MtpDrafter(layers)
    drafter.learn()  # before there is a text
    drafter.begin([5])
    for _ in range(3):
        assert drafter.propose(4, never) == []
        if len(layers.asked) < 2:
            drafter.learn()
        drafter.follow([7])
    assert layers.asked == [(5, 0, 1), (7, 1, 1)]
    assert seen == pytest.approx([0.85, 2.615 / 2.9, 2.48425 / 3.755])


def test_what_came_of_guesses_changes_their_chances() -> None:
    seen: list[float] = []

    def worth(chances: Sequence[float]) -> int:
        seen.append(chances[0])
        return 1

    drafter = MtpDrafter(FakeLayers([1], [2], [9]))
    drafter.begin([0])
    drafter.propose(1, worth)
    drafter.follow([1])
    drafter.propose(1, worth)
    drafter.follow([3])
    drafter.propose(1, worth)
    assert seen == pytest.approx([0.85, 2.615 / 2.9, 2.48425 / 3.755])
    drafter.begin([0])  # a new text says nothing about the last guess of the old one
    drafter.propose(1, lambda chances: seen.append(chances[0]) or 0)  # type: ignore[func-returns-value]
    assert seen[-1] == seen[-2]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, nano_path: Path) -> Path:
    folder = tmp_path_factory.mktemp("mtp")
    with_mtp(folder / "nano.gguf", nano_path)
    recurrent(folder / "recurrent.gguf", nano_path)
    round_robin(folder / "hidden.gguf", nano_path)
    round_robin(folder / "token.gguf", nano_path, hidden=False)
    return folder


Open = Callable[..., LlamaBackend]


@pytest.fixture
def open_file(files: Path) -> Iterator[Open]:
    opened: list[LlamaBackend] = []

    def open_one(name: str, *, slots: int = 1, mtp: bool = True, context: int = 640) -> LlamaBackend:
        options = OpenOptions(context=context, slots=slots, drafted=LONGEST_AHEAD, mtp=mtp)
        opened.append(LlamaBackend(files / f"{name}.gguf", options))
        return opened[-1]

    yield open_one
    for backend in opened:
        backend.close()


def read(backend: LlamaBackend, tokens: Sequence[int], position: int, slot: int) -> None:
    batch = Batch()
    batch.add([*tokens], position, slot, output=True)
    backend.decode(batch)


def ahead(backend: LlamaBackend) -> MtpLayers:
    assert backend.mtp is not None
    return backend.mtp


def last_logits(backend: LlamaBackend) -> np.ndarray:
    """Of the layer that predicts ahead."""
    return np.ctypeslib.as_array(native.llama_get_logits_ith(ahead(backend).context, 0), (LAST + 1,)).copy()


@pytest.mark.parametrize("name", ["hidden", "token"])
def test_guesses_go_on_from_token_and_hidden_state(open_file: Open, name: str) -> None:
    backend = open_file(name)
    read(backend, range(100, 110), 0, 0)
    assert ahead(backend).guess(110, 10, 5) == [111, 112, 113, 114, 115]


def test_which_of_both_speaks_is_told_apart(open_file: Open) -> None:
    text = range(100, 110)
    by_hidden, by_token = open_file("hidden"), open_file("token")
    for backend in (by_hidden, by_token):
        read(backend, text, 0, 0)
    # A pending token that is not the expected one: one layer goes on behind it, the other does not look at it.
    assert ahead(by_hidden).guess(300, 10, 3) == [111, 112, 113]
    assert ahead(by_token).guess(300, 10, 3) == [301, 302, 303]


def test_the_logits_are_those_of_the_projected_hidden_state(open_file: Open) -> None:
    backend = open_file("hidden")
    read(backend, [30, 31, 200], 0, 0)
    assert ahead(backend).guess(17, 3, 1) == [202]
    turn, embedding = turn_and_embedding()
    state = turn @ embedding[200]  # the hidden state at the last place that was read, and its length does not count
    state /= np.sqrt((state**2).mean())
    expected = np.zeros(LAST + 1)
    expected[FIRST + 1 :] = embedding[FIRST:LAST] @ state
    expected[FIRST] = embedding[LAST] @ state
    assert last_logits(backend) == pytest.approx(expected, abs=1e-3)


def test_a_guess_ends_before_a_token_that_ends_the_reply(open_file: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = open_file("hidden")
    read(backend, range(100, 110), 0, 0)
    monkeypatch.setattr(native, "llama_vocab_is_eog", lambda vocab, token: token == 113)
    assert ahead(backend).guess(110, 10, 5) == [111, 112]


def test_nobody_knows_what_follows_a_place_that_was_not_read(open_file: Open) -> None:
    backend = open_file("hidden")
    assert ahead(backend).guess(100, 0, 5) == []
    read(backend, range(100, 110), 0, 0)
    assert ahead(backend).guess(100, 9, 5) == []
    backend.trim(0, 0)
    assert ahead(backend).guess(110, 10, 5) == []


def test_a_model_that_was_opened_without_them_has_no_such_layers(open_file: Open) -> None:
    assert open_file("hidden", mtp=False).mtp is None


TEXT = [3, *(int(token) for token in np.random.default_rng(5).integers(FIRST, LAST, 60))]


def at_once(backend: LlamaBackend) -> None:
    read(backend, TEXT, 0, 0)


def token_by_token(backend: LlamaBackend) -> None:
    for place, token in enumerate(TEXT):
        read(backend, [token], place, 0)


def with_guesses_between(backend: LlamaBackend) -> None:
    for place in range(0, len(TEXT), 7):
        ahead(backend).guess(TEXT[place], place, 4)
        read(backend, TEXT[place : place + 7], place, 0)


def with_wrong_drafts(backend: LlamaBackend) -> None:
    """Some are forgotten before the layer has read them, some after."""
    for place in range(0, len(TEXT), 5):
        right = TEXT[place : place + 5]
        read(backend, [*right, 99, 98, 97], place, 0)
        if place % 2:
            ahead(backend).guess(96, place + len(right) + 3, 1)
        backend.trim(0, place + len(right))


def forked_from_a_prompt(backend: LlamaBackend) -> None:
    read(backend, TEXT[:30], 0, 1)
    backend.fork(1, 0)
    read(backend, TEXT[30:], 30, 0)


def beside_another(backend: LlamaBackend) -> None:
    """Rows of both in each batch, and the other one is forgotten in between."""
    for place in range(0, len(TEXT), 13):
        part = TEXT[place : place + 13]
        batch = Batch()
        batch.add([7] * 5, 0, 1, output=False)
        batch.add(part, place, 0, output=True)
        backend.decode(batch)
        backend.trim(1, 0)


@pytest.fixture(scope="module")
def logits_of_a_fresh_reading(files: Path) -> np.ndarray:
    with LlamaBackend(files / "nano.gguf", OpenOptions(context=640, drafted=15, mtp=True)) as backend:
        at_once(backend)
        ahead(backend).guess(50, len(TEXT), 1)
        return last_logits(backend)


@pytest.mark.parametrize(
    "way", [at_once, token_by_token, with_guesses_between, with_wrong_drafts, forked_from_a_prompt, beside_another]
)
def test_the_layer_has_read_the_same_whichever_way_the_text_came(
    open_file: Open, logits_of_a_fresh_reading: np.ndarray, way: Callable[[LlamaBackend], None]
) -> None:
    backend = open_file("nano")
    way(backend)
    ahead(backend).guess(50, len(TEXT), 1)
    # A text of this length is computed alike in any batches here, elsewhere they may round otherwise. A place that was
    # left out or misread makes a difference between 0.1 and 3.
    assert np.abs(last_logits(backend) - logits_of_a_fresh_reading).max() < 0.05


def test_what_waits_is_read_when_there_is_no_room_for_more(open_file: Open) -> None:
    backend = open_file("hidden", context=1400)
    text = [FIRST + place % 600 for place in range(1300)]
    for place in range(0, 1300, 100):
        read(backend, text[place : place + 100], place, 0)
    assert ahead(backend).guess(text[-1] + 1, 1300, 3) == [text[-1] + 2, text[-1] + 3, text[-1] + 4]


def test_a_prompt_that_goes_on_from_an_earlier_place_is_guessed_as_well(open_file: Open) -> None:
    """What was decoded there is not kept: one hidden state is missing, and none where the guess begins."""
    backend = open_file("hidden")
    read(backend, range(100, 140), 0, 0)
    read(backend, range(140, 180), 40, 0)
    backend.trim(0, 20)
    assert ahead(backend).guess(120, 20, 3) == []
    read(backend, [120, 121], 20, 0)
    assert ahead(backend).guess(122, 22, 3) == [123, 124, 125]


def drawn(backend: LlamaBackend, params: SamplingParams, *, draft: bool, prompts: int = 1) -> tuple[list[object], int]:
    """What each sample came to, and how many drafts were accepted; a clock that stands drafts all the time."""
    drafter = MtpDrafter(ahead(backend)) if draft else None
    engine = Engine(backend, drafter=drafter, now=lambda: 0.0)
    prompt = tuple(backend.tokenize(QUESTION, add_bos=True))
    requests = [Request(Prompt(prompt[number:]), params, sample=number) for number in range(prompts)]
    found: list[object] = [(each.tokens, each.finish_reason) for each in engine.generate(requests)]
    # The same again: now the prompt is in the cache.
    found += [(each.tokens, each.finish_reason) for each in engine.generate(requests)]
    drafts = engine.take_drafts()
    assert (drafts is not None) == draft
    if drafts is None:
        return found, 0
    assert drafts.kind == "mtp"
    assert drafts.drafted > 0
    return found, drafts.accepted


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_drafts_change_nothing_but_the_number_of_steps(open_file: Open, temperature: float) -> None:
    params = SamplingParams(temperature=temperature, max_tokens=80, seed=4)
    plain, _ = drawn(open_file("nano", mtp=False), params, draft=False)
    drafted, _ = drawn(open_file("nano"), params, draft=True)
    assert drafted == plain


@pytest.mark.parametrize("name", ["hidden", "token"])
def test_right_guesses_are_accepted(open_file: Open, name: str) -> None:
    params = SamplingParams(temperature=0, max_tokens=100)
    plain, _ = drawn(open_file(name, mtp=False), params, draft=False)
    drafted, accepted = drawn(open_file(name), params, draft=True)
    assert drafted == plain
    assert accepted > 100


def test_recurrent_layers_go_back_to_before_a_wrong_draft(open_file: Open) -> None:
    params = SamplingParams(temperature=0, max_tokens=200)
    backend = open_file("recurrent", slots=2)
    plain, _ = drawn(open_file("recurrent", slots=2, mtp=False), params, draft=False)
    engine = Engine(backend, drafter=MtpDrafter(ahead(backend)), now=lambda: 0.0)
    prompt = tuple(backend.tokenize(QUESTION, add_bos=True))
    found = [engine.generate([Request(Prompt(prompt), params)])[0] for _ in range(2)]
    assert [(each.tokens, each.finish_reason) for each in found] == plain
    drafts = engine.take_drafts()
    assert drafts is not None and drafts.off is None
    assert 0 < drafts.accepted < drafts.drafted


def test_drafts_go_on_to_the_last_cell_of_the_context(open_file: Open) -> None:
    params = SamplingParams(temperature=0)
    plain, _ = drawn(open_file("hidden", mtp=False, context=256), params, draft=False)
    drafted, accepted = drawn(open_file("hidden", context=256), params, draft=True)
    assert drafted == plain
    assert accepted > 300


def test_the_sample_that_is_left_alone_is_drafted_in_whichever_slot_it_is(open_file: Open) -> None:
    params = SamplingParams(temperature=0, max_tokens=60)
    plain, _ = drawn(open_file("hidden", slots=2, mtp=False), params, draft=False, prompts=3)
    drafted, accepted = drawn(open_file("hidden", slots=2), params, draft=True, prompts=3)
    assert drafted == plain
    assert accepted > 60
