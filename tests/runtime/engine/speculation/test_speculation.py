"""Speculation in the engine: what is saved, what is counted, and that no text changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.base.events import Notice, SampleFinished
from runtime.base.types import SamplingParams
from runtime.engine.backend import Batch, Checkpoint
from runtime.engine.engine import Engine
from runtime.engine.sequence import Demand, Request
from runtime.engine.speculation import LONGEST_DRAFT, Drafter, DraftStatistics, ModelDrafter, NgramDrafter
from runtime.engine.speculation.drafter import Worth
from runtime.engine.template import Prompt
from runtime.llama import LlamaBackend, OpenOptions
from tests.fakes import FakeBackend, saying
from tests.runtime.engine.speculation.drafting import PROMPT, TAGS, Scripted, drawn, everything, knowing, request


def test_right_drafts_save_steps() -> None:
    reply = "abcdefghijklmnopqrstuvwxyz"
    plain, plain_steps = drawn(reply, None)
    fast, steps = drawn(reply, knowing(reply))
    assert fast == plain
    assert fast.answer == reply
    # The prompt, then 27 tokens with the end: 9 + 9 + 9, of which the last was not drafted.
    assert plain_steps == 1 + 27
    assert steps == 1 + 3


@pytest.mark.parametrize("wrong_every", [1, 2, 3, 5])
def test_wrong_drafts_change_nothing(wrong_every: int) -> None:
    reply = "What is drafted wrongly is drawn again. " * 3
    drafter = knowing(reply, wrong_every=wrong_every)
    assert drawn(reply, drafter)[0] == drawn(reply, None)[0]


def test_what_was_accepted_is_counted() -> None:
    reply = "abcdefghijkl"
    engine = Engine(FakeBackend(saying(reply, after=PROMPT)), drafter=knowing(reply, wrong_every=5), now=lambda: 0.0)
    engine.generate([request()])
    # Wrong are the tokens 0, 5 and 10: nothing, then 1 to 4, nothing, 6 to 9, nothing, 11, each with the true next one.
    drafts = engine.take_drafts()
    assert drafts == DraftStatistics("scripted", drafted=8 + 8 + 6 + 1, accepted=4 + 4 + 1, steps=4, tokens=13)
    assert drafts.tokens_per_step == 13 / 4
    assert engine.take_drafts() == DraftStatistics("scripted")


def test_an_engine_without_a_drafter_has_no_drafts() -> None:
    assert Engine(FakeBackend(saying("x", after=PROMPT))).take_drafts() is None


def test_the_drafter_knows_the_whole_text() -> None:
    drafter = Scripted(lambda text: [ord("b")])
    drawn("abab", drafter)
    # The last step drew the last b and the end.
    assert bytes(drafter.text) == PROMPT.encode() + b"aba"


def test_a_draft_goes_no_further_than_the_token_limit() -> None:
    reply = "abcdefghij"
    fake = FakeBackend(saying(reply, after=PROMPT))
    [completion] = Engine(fake, drafter=knowing(reply)).generate([request(params=SamplingParams(max_tokens=3))])
    assert completion.answer == "abc"
    assert completion.finish_reason == "length"
    assert fake.batches == [len(PROMPT) - 1, 3]


def test_a_draft_takes_only_the_room_there_is() -> None:
    reply = "abcdefghijklmnopqrstuvwxyz"
    context = len(PROMPT) + 12
    fast, _ = drawn(reply, knowing(reply), context=context)
    plain, _ = drawn(reply, None, context=context)
    assert fast == plain
    assert fast.finish_reason == "length"


def test_a_draft_goes_no_further_than_the_model_reaches() -> None:
    reply = "0123456789" * 4
    fake = FakeBackend(saying(reply, after=PROMPT), reach=len(PROMPT) + 20)
    [completion] = Engine(fake, drafter=knowing(reply)).generate([request()])
    assert (completion.answer, completion.finish_reason) == (reply[:21], "length")


def test_without_room_for_the_draft_the_pending_token_goes_alone() -> None:
    reply = "abcdefghijklmnopqrstuvwxyz"
    fake = FakeBackend(saying(reply, after=PROMPT))
    fake.refuse_above = len(PROMPT) + 12
    [completion] = Engine(fake, drafter=knowing(reply)).generate([request()])
    assert completion.answer == reply[:13]
    assert completion.finish_reason == "length"


def test_no_more_rows_are_asked_for_than_the_backend_has() -> None:
    reply = "abcdefghijklmnopqrstuvwxyz"
    fake = FakeBackend(saying(reply, after=PROMPT))
    fake.most_outputs = 4
    [completion] = Engine(fake, drafter=knowing(reply)).generate([request()])
    assert completion.answer == reply
    assert max(fake.batches[1:]) == 4


def test_several_samples_are_drawn_without_drafts_until_one_is_left() -> None:
    long = "abcdefghijklmnopqrstuvwxyz"
    fake = FakeBackend(saying("xyz", long, after=PROMPT), slots=2)
    engine = Engine(fake, drafter=knowing(long), now=lambda: 0.0)
    completions = engine.generate([request(), replace(request(), sample=1)])
    assert [each.answer for each in completions] == ["xyz", long]
    # Together: x y z and the end of the first. Then alone: 22 letters and the end.
    assert fake.batches == [9, 2, 2, 2, 2, 9, 9, 5]


def test_a_recurrent_model_goes_back_to_the_state_before_a_wrong_draft() -> None:
    reply = "abcdefghijklmnopqrstuvwxyz"
    fake = FakeBackend(saying(reply, after=PROMPT), goes_back=0)
    engine = Engine(fake, drafter=knowing(reply, wrong_every=5), now=lambda: 0.0)
    [completion] = engine.generate([request()])
    assert completion.answer == reply
    drafts = engine.take_drafts()
    assert drafts is not None and drafts.off is None
    assert drafts.accepted > 8


def test_a_recurrent_model_without_checkpoints_goes_on_without_drafts_and_says_so() -> None:
    class Forgetful(FakeBackend):
        def checkpoint(self, slot: int) -> Checkpoint | None:
            return None

    reply = "abcdefghijklmnopqrstuvwxyz"
    fake = Forgetful(saying(reply, after=PROMPT), goes_back=0)
    engine = Engine(fake, drafter=knowing(reply, wrong_every=5), now=lambda: 0.0)
    events = list(engine.stream([request()]))
    [completion] = [event.completion for event in events if isinstance(event, SampleFinished)]
    assert completion.answer == reply
    [notice] = [event for event in events if isinstance(event, Notice)]
    assert notice.text == "drafting is off: this model cannot remove rejected draft tokens from its cache"
    drafts = engine.take_drafts()
    assert drafts is not None
    assert drafts.off == "this model cannot forget wrong drafts"
    assert drafts.drafted == 16  # the first draft that was refused was not known to need a checkpoint


RICH = SamplingParams(statistics=True, max_tokens=400, think_budget=20, extensions=1, stop=("STOP",))
REPLIES = (
    "<think>abc</think>Yes.",
    "<think>one two three four five six seven</think>Yes.",
    "<think>x</think>Yes. STOP no",
    "<think>" + "round " * 70 + "</think>z",
    "plain answer STOPPED",
    "<think>größer 日本</think>ü" * 2,
)


def rich_backend(reply: str, confident: int, goes_back: int | None = None) -> FakeBackend:
    """One that puts the end of the thought into a token of its own, and loses confidence after so many tokens."""
    close, text = 300, [*reply.encode()]
    at = reply.encode().find(b"</think>")
    if at >= 0:
        text[at : at + len(b"</think>")] = [close]

    def speak(held: list[int], seed: int) -> int:
        said = len(held) - len(PROMPT)
        # What was forced upon it does not stop it: it goes on with its text from where that would be.
        return text[said] if said < len(text) else 256

    fake = FakeBackend(speak, goes_back=goes_back)
    fake.specials = {"</think>": close}
    fake.confidence = lambda held: 4.0 if len(held) < len(PROMPT) + confident else 0.5
    return fake


@given(
    st.sampled_from(REPLIES),
    st.lists(st.lists(st.tuples(st.booleans(), st.sampled_from([97, 256, 300])), max_size=12), max_size=30),
    st.sampled_from([3, 10, 40, 1000]),
    st.sampled_from([None, 1, 5, 20]),
    st.sampled_from([None, 0]),
)
def test_no_drafter_changes_a_completion(
    reply: str,
    drafts: list[list[tuple[bool, int]]],
    confident: int,
    budget: int | None,
    goes_back: int | None,
) -> None:
    """Random guesses, half of them right: budgets, loops, stops, extensions, demands and statistics stay the same."""
    asked = Request(
        Prompt(tuple(PROMPT.encode())),
        replace(RICH, think_budget=budget),
        TAGS,
        demand=Demand(confidence=1.0, window=4),
    )
    scripted = iter(drafts)
    truth = rich_backend(reply, confident)

    def guess(text: list[int]) -> list[int]:
        guessed = [*text]
        for right, token in next(scripted, []):
            guessed.append(truth._speak(guessed, 0) if right else token)
        return guessed[len(text) :]

    [plain] = Engine(rich_backend(reply, confident), now=lambda: 0.0).generate([asked])
    [fast] = Engine(rich_backend(reply, confident, goes_back), drafter=Scripted(guess), now=lambda: 0.0).generate(
        [asked]
    )
    assert repr(fast) == repr(plain)  # NaN equals nothing


def test_a_cancelled_sample_ends_after_the_step() -> None:
    reply = "abcdefghijklmnopqrstuvwxyz"
    engine = Engine(FakeBackend(saying(reply, after=PROMPT)), drafter=knowing(reply))
    for event in engine.stream([request()]):
        engine.cancel([0])
        if isinstance(event, SampleFinished):
            assert event.completion.finish_reason == "cancelled"
            assert len(event.completion.tokens) <= 9


@pytest.fixture(scope="module")
def nano(nano_path: Path) -> Iterator[LlamaBackend]:
    with LlamaBackend(nano_path, OpenOptions(context=1024, drafted=LONGEST_DRAFT, visible=TAGS.texts)) as backend:
        yield backend


@pytest.fixture(scope="module")
def second_nano(nano_path: Path) -> Iterator[LlamaBackend]:
    with LlamaBackend(nano_path, OpenOptions(context=512)) as backend:
        yield backend


def nano_request(backend: LlamaBackend, question: str, params: SamplingParams) -> Request:
    prompt = f"<｜begin▁of▁sentence｜><｜User｜>{question}<｜Assistant｜><think>\n"
    return Request(Prompt(tuple(backend.tokenize(prompt)), starts_in_thought=True), params, TAGS)


class Eager:
    """Another drafter, whose guesses are all checked."""

    def __init__(self, drafter: Drafter) -> None:
        self._drafter = drafter
        self.kind, self.begin, self.follow, self.learn = drafter.kind, drafter.begin, drafter.follow, drafter.learn

    def propose(self, most: int, worth: Worth) -> list[int]:
        return self._drafter.propose(min(most, 6), everything)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("question", ["What is 347 + 586?", "Write 'igloo' backwards."])
def test_the_same_seed_gives_the_same_text_with_and_without_drafts(
    nano: LlamaBackend, second_nano: LlamaBackend, question: str, seed: int
) -> None:
    asked = nano_request(nano, question, SamplingParams(temperature=0.8, seed=seed, max_tokens=120))
    [plain] = Engine(nano).generate([asked])
    for drafter in (NgramDrafter(), ModelDrafter(second_nano, 640)):
        engine = Engine(nano, drafter=Eager(drafter))
        [fast] = engine.generate([asked])
        assert fast.tokens == plain.tokens
        drafts = engine.take_drafts()
        assert drafts is not None
        assert drafts.drafted > 0


def test_rows_of_a_draft_are_those_of_single_tokens(nano: LlamaBackend) -> None:
    tokens = nano.tokenize("What is 347 + 586?")
    single = []
    nano.trim(0, 0)
    draw = nano.sampler(SamplingParams(temperature=0), 0)
    for position, token in enumerate(tokens):
        batch = Batch()
        batch.add([token], position, 0, output=True)
        nano.decode(batch)
        single.append(draw(0))
    nano.trim(0, 0)
    batch = Batch()
    batch.add(tokens, 0, 0, output=False)
    batch.outputs = [*range(len(tokens))]
    nano.decode(batch)
    assert [draw(row) for row in range(len(tokens))] == single
    nano.trim(0, 0)
