"""Speculation: guesses from the text and from a second model, what they are worth, and that no text changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.backend import Batch
from runtime.engine import Engine
from runtime.errors import Incompatible
from runtime.events import Notice, SampleFinished
from runtime.gguf import read_card
from runtime.llama import LlamaBackend, OpenOptions
from runtime.sequence import Demand, Request
from runtime.speculation import (
    LONGEST_DRAFT,
    Drafter,
    DraftStatistics,
    ModelDrafter,
    NgramDrafter,
    Pace,
    common_vocabulary,
)
from runtime.speculation.drafter import Acceptance, Worth
from runtime.thinking import ThinkingMarkers
from runtime.types import Completion, SamplingParams
from tests.fakes import FakeBackend, saying
from tests.gguf_writer import write

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

    def begin(self, tokens: Sequence[int]) -> None:
        self.text = [*tokens]

    def follow(self, tokens: Sequence[int]) -> None:
        self.text += tokens

    def propose(self, most: int, worth: Worth) -> list[int]:
        return self._guess(self.text)[:most]


def knowing(reply: str, *, wrong_every: int = 0) -> Scripted:
    """Guesses eight tokens of the reply, each `wrong_every`-th of them wrong."""

    def guess(text: list[int]) -> list[int]:
        said = len(text) - len(PROMPT)
        following = range(said, min(said + 8, len(reply)))
        return [ord("#") if wrong_every and at % wrong_every == 0 else ord(reply[at]) for at in following]

    return Scripted(guess)


def request(**fields: object) -> Request:
    params = fields.pop("params", SamplingParams())
    return Request(tuple(PROMPT.encode()), params, **fields)  # type: ignore[arg-type]


def drawn(reply: str, drafter: Drafter | None, asked: Request | None = None, **backend: int) -> tuple[Completion, int]:
    """The completion and how often the model was run for it."""
    fake = FakeBackend(saying(reply, after=PROMPT), **backend)
    [completion] = Engine(fake, drafter=drafter, now=lambda: 0.0).generate([asked or request()])
    return completion, len(fake.batches)


# In the engine


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


def test_a_recurrent_model_goes_on_without_drafts_and_says_so() -> None:
    reply = "abcdefghijklmnopqrstuvwxyz"

    class Recurrent(FakeBackend):
        def trim(self, slot: int, length: int) -> bool:
            return super().trim(slot, length) if length in (0, len(self._held[slot])) else False

    fake = Recurrent(saying(reply, after=PROMPT))
    engine = Engine(fake, drafter=knowing(reply, wrong_every=5), now=lambda: 0.0)
    events = list(engine.stream([request()]))
    [completion] = [event.completion for event in events if isinstance(event, SampleFinished)]
    assert completion.answer == reply
    [notice] = [event for event in events if isinstance(event, Notice)]
    assert notice.text == "drafting is off: this model cannot forget what was drafted wrongly"
    drafts = engine.take_drafts()
    assert drafts is not None
    assert drafts.off == "this model cannot forget wrong drafts"
    assert drafts.drafted == 8


RICH = SamplingParams(statistics=True, max_tokens=400, think_budget=20, extensions=1, stop=("STOP",))
REPLIES = (
    "<think>abc</think>Yes.",
    "<think>one two three four five six seven</think>Yes.",
    "<think>x</think>Yes. STOP no",
    "<think>" + "round " * 70 + "</think>z",
    "plain answer STOPPED",
    "<think>größer 日本</think>ü" * 2,
)


def rich_backend(reply: str, confident: int) -> FakeBackend:
    """One that puts the end of the thought into a token of its own, and loses confidence after so many tokens."""
    close, text = 300, [*reply.encode()]
    at = reply.encode().find(b"</think>")
    if at >= 0:
        text[at : at + len(b"</think>")] = [close]

    def speak(held: list[int], seed: int) -> int:
        said = len(held) - len(PROMPT)
        # What was forced upon it does not stop it: it goes on with its text from where that would be.
        return text[said] if said < len(text) else 256

    fake = FakeBackend(speak)
    fake.specials = {"</think>": close}
    fake.confidence = lambda held: 4.0 if len(held) < len(PROMPT) + confident else 0.5
    return fake


@given(
    st.sampled_from(REPLIES),
    st.lists(st.lists(st.tuples(st.booleans(), st.sampled_from([97, 256, 300])), max_size=12), max_size=30),
    st.sampled_from([3, 10, 40, 1000]),
    st.sampled_from([None, 1, 5, 20]),
)
def test_no_drafter_changes_a_completion(
    reply: str, drafts: list[list[tuple[bool, int]]], confident: int, budget: int | None
) -> None:
    """Random guesses, half of them right: budgets, loops, stops, extensions, demands and statistics stay the same."""
    asked = Request(
        tuple(PROMPT.encode()), replace(RICH, think_budget=budget), TAGS, demand=Demand(confidence=1.0, window=4)
    )
    scripted = iter(drafts)
    truth = rich_backend(reply, confident)

    def guess(text: list[int]) -> list[int]:
        guessed = [*text]
        for right, token in next(scripted, []):
            guessed.append(truth._speak(guessed, 0) if right else token)
        return guessed[len(text) :]

    [plain] = Engine(rich_backend(reply, confident), now=lambda: 0.0).generate([asked])
    [fast] = Engine(rich_backend(reply, confident), drafter=Scripted(guess), now=lambda: 0.0).generate([asked])
    assert repr(fast) == repr(plain)  # NaN equals nothing


def test_a_cancelled_sample_ends_after_the_step() -> None:
    reply = "abcdefghijklmnopqrstuvwxyz"
    engine = Engine(FakeBackend(saying(reply, after=PROMPT)), drafter=knowing(reply))
    for event in engine.stream([request()]):
        engine.cancel([0])
        if isinstance(event, SampleFinished):
            assert event.completion.finish_reason == "cancelled"
            assert len(event.completion.tokens) <= 9


# From the text itself


def guesses(text: str, most: int = LONGEST_DRAFT) -> str:
    drafter = NgramDrafter()
    drafter.begin(text.encode())
    return bytes(drafter.propose(most, everything)).decode()


def test_what_followed_is_copied() -> None:
    assert guesses("the cat sat. the cat", most=5) == " sat."


def test_without_three_known_tokens_there_is_no_guess() -> None:
    assert guesses("abcdefgh") == ""
    assert guesses("xy1 xy") == ""
    assert guesses("ab") == guesses("") == ""


def test_the_longest_match_wins() -> None:
    assert guesses("say abcd1 say bcd2 abcd", most=1) == "1"


def test_of_equal_matches_the_latest_wins() -> None:
    assert guesses("abc1 abc2 abc", most=1) == "2"


def test_a_match_at_the_end_goes_round() -> None:
    assert guesses("ababab", most=5) == "ababa"
    assert guesses("xxxx", most=4) == "xxxx"


def test_an_index_that_grew_is_an_index_that_was_built() -> None:
    text = b"to be or not to be, that is the question: to be or"
    whole, grown = NgramDrafter(), NgramDrafter()
    whole.begin(text)
    grown.begin(text[:7])
    for at in range(7, len(text)):
        grown.propose(4, everything)
        grown.follow(text[at : at + 1])
    assert grown.propose(8, everything) == whole.propose(8, everything) == [*b" not to "]


def test_a_new_text_forgets_the_old_one() -> None:
    drafter = NgramDrafter()
    drafter.begin(b"the cat sat. the cat")
    drafter.begin(b"the cat")
    assert drafter.propose(4, everything) == []


@given(st.binary(max_size=80).map(lambda data: bytes(byte % 3 for byte in data)), st.integers(1, LONGEST_DRAFT))
def test_a_guess_follows_an_earlier_match(text: bytes, most: int) -> None:
    drafter = NgramDrafter()
    drafter.begin(text)
    guess = drafter.propose(most, everything)
    assert bool(guess) == (len(text) >= 3 and text[-3:] in text[:-1])
    if guess:
        assert len(guess) == most
        assert text[-3:] + bytes(guess[:1]) in text


def test_chances_grow_with_what_matched_and_with_success() -> None:
    seen: list[list[float]] = []

    def watch(chances: Sequence[float]) -> int:
        seen.append(list(chances))
        return 0

    drafter = NgramDrafter()
    drafter.begin(b"abcdefgh abcd")
    drafter.propose(4, watch)
    drafter.follow(b"e")  # as guessed, though nothing was checked
    drafter.propose(4, watch)
    assert all(a < b for a, b in pairwise(seen[0]))
    assert seen[0][0] == 4 / 6
    drafter.begin(b"abcdefgh abcd")
    drafter.propose(4, watch)
    assert seen[2][0] > seen[0][0]
    drafter.follow(b"x")
    drafter.begin(b"abcdefgh abcd")
    drafter.propose(4, watch)
    assert seen[3][0] < seen[2][0]


def test_after_a_wrong_guess_the_rest_says_nothing() -> None:
    judged = Acceptance([0.5, 0.5, 0.5])
    judged.judge(0, [1, 2, 3], [1, 9, 3])
    assert judged.chances(0, 4) == pytest.approx([2 * 0.95 / 2.9 - 0.95 / 2.9 + 1 / 2.9, 0.95 / 2.9, 0.5, 0.5])


# From a second model


def follower(reply: str, **options: int) -> ModelDrafter:
    return ModelDrafter(FakeBackend(saying(reply, after=PROMPT), **options), vocabulary=256)


def test_a_second_model_writes_on() -> None:
    drafter = follower("abcdef")
    drafter.begin(PROMPT.encode())
    assert bytes(drafter.propose(4, everything)) == b"abcd"
    drafter.follow(b"ab")
    assert bytes(drafter.propose(4, everything)) == b"cdef"


def test_the_end_of_a_reply_is_not_drafted() -> None:
    drafter = follower("abc")
    drafter.begin(PROMPT.encode())
    assert bytes(drafter.propose(8, everything)) == b"abc"


def test_what_is_known_is_not_read_again() -> None:
    fake = FakeBackend(saying("abcdefgh", after=PROMPT))
    drafter = ModelDrafter(fake, vocabulary=256)
    drafter.begin(PROMPT.encode())
    drafter.propose(3, everything)
    # The prompt but its last token, that token, and two of the three drafted.
    assert fake.batches == [9, 1, 1, 1]
    drafter.follow(b"abcd")
    drafter.propose(1, everything)
    assert fake.batches[4:] == [2]
    drafter.begin(PROMPT.encode() + b"ax")
    assert fake.batches[5:] == []


def test_a_wrong_draft_is_forgotten() -> None:
    drafter = follower("abcdef")
    drafter.begin(PROMPT.encode())
    drafter.propose(4, everything)
    drafter.follow(b"x")
    assert drafter.propose(4, everything) == []  # a text it cannot go on with ends at once
    drafter.begin(PROMPT.encode() + b"ab")
    assert bytes(drafter.propose(2, everything)) == b"cd"


def test_a_text_with_unknown_tokens_or_beyond_its_context_is_not_drafted() -> None:
    drafter = ModelDrafter(FakeBackend(saying("abc", after=PROMPT)), vocabulary=100)
    drafter.begin([*PROMPT.encode(), 120])
    assert drafter.propose(4, everything) == []
    small = follower("abcdef", context=len(PROMPT) + 2)
    small.begin(PROMPT.encode())
    assert small.propose(4, everything) == []
    assert bytes(small.propose(2, everything)) == b"ab"


def test_a_draft_model_that_is_the_model_is_always_right() -> None:
    reply = "a reply of thirty-five characters.."
    drafter = follower(reply)
    backend = FakeBackend(saying(reply, after=PROMPT))
    clock = iter(range(10_000))
    engine = Engine(backend, drafter=drafter, now=lambda: next(clock))
    [completion] = engine.generate([request()])
    assert completion.answer == reply
    drafts = engine.take_drafts()
    assert drafts is not None
    assert drafts.accepted == drafts.drafted > 0


def test_vocabularies_are_compared_by_their_spellings(tmp_path: Path, nano_path: Path) -> None:
    nano = read_card(nano_path)
    assert common_vocabulary(nano, nano) == 640
    other = read_card(write(tmp_path / "other.gguf"))
    with pytest.raises(
        Incompatible, match="cannot draft for Nano: their vocabularies differ from token 0 on"
    ) as caught:
        common_vocabulary(nano, other)
    assert caught.value.hint == "choose a smaller model of the same family, or --draft ngram"


# What it is worth


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def step(pace: Pace, clock: Clock, drafted: int, tokens: int, seconds: float) -> None:
    pace.start()
    clock.time += seconds
    pace.done(drafted, tokens)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    """One that knows what a token takes: a second."""
    made = Pace(clock)
    for _ in range(3):
        step(made, clock, 0, 1, 1.0)
    return made


SURE = [0.98] * LONGEST_DRAFT


def test_first_it_is_measured_what_a_token_takes(clock: Clock) -> None:
    pace = Pace(clock)
    for _ in range(3):
        assert pace.worth(SURE) == 0
        step(pace, clock, 0, 1, 1.0)
    assert pace.worth(SURE) == LONGEST_DRAFT


def test_unlikely_guesses_are_not_checked(pace: Pace) -> None:
    assert pace.worth([0.5] * 8) == 0
    assert pace.worth([]) == 0


def test_a_draft_ends_where_its_tokens_become_unlikely(pace: Pace) -> None:
    assert pace.worth([0.99] * 8 + [0.2] * 7) == 8


def test_drafts_are_longer_where_checking_is_cheap(pace: Pace, clock: Clock) -> None:
    chances = [0.85] * LONGEST_DRAFT
    before = pace.worth(chances)
    for drafted in (2, 8, 12, 4) * 5:
        step(pace, clock, drafted, drafted + 1, 1.0 + 0.02 * drafted)
    step(pace, clock, 0, 1, 1.0)
    assert pace.worth(chances) > before


def test_no_drafts_where_checking_costs_as_much_as_drawing(pace: Pace, clock: Clock) -> None:
    for drafted in (2, 8, 12, 4) * 3:
        step(pace, clock, drafted, drafted + 1, 1.0 + drafted)
    step(pace, clock, 0, 1, 1.0)
    assert pace.worth(SURE) == 0


def test_wrong_drafts_soon_use_up_the_advance(pace: Pace, clock: Clock) -> None:
    wasted = 0
    while pace.worth(SURE):
        step(pace, clock, 8, 1, 3.0)
        wasted += 1
    assert wasted == 3  # two seconds each, of four and a little
    assert pace.off_after is None


def test_drafts_that_do_not_pay_are_switched_off_after_two_hundred_tokens(pace: Pace, clock: Clock) -> None:
    while pace.worth(SURE):
        step(pace, clock, 8, 1, 3.0)
    tokens = 6
    while pace.off_after is None:
        step(pace, clock, 0, 1, 1.0)
        tokens += 1
    assert tokens == pace.off_after == 200
    assert pace.worth(SURE) == 0
    pace.begin()
    assert pace.off_after is None


def test_drafts_that_pay_stay(pace: Pace, clock: Clock) -> None:
    for _ in range(100):
        step(pace, clock, 8, 9, 3.0)
        step(pace, clock, 0, 1, 1.0)
    assert pace.off_after is None
    assert pace.worth(SURE) >= 8


def test_no_drafts_are_no_loss(pace: Pace, clock: Clock) -> None:
    for _ in range(1000):
        step(pace, clock, 0, 1, 1.0)
    assert pace.off_after is None


def test_what_a_token_takes_is_measured_again_now_and_then(pace: Pace, clock: Clock) -> None:
    for _ in range(16):
        assert pace.worth(SURE) > 0
        step(pace, clock, 8, 9, 3.0)
    assert pace.worth(SURE) == 0
    step(pace, clock, 0, 1, 1.0)
    assert pace.worth(SURE) > 0


def test_an_interruption_is_no_price(pace: Pace, clock: Clock) -> None:
    step(pace, clock, 8, 9, 1000.0)
    for _ in range(3):
        step(pace, clock, 0, 1, 1.0)
    assert pace.worth(SURE) > 0


# With the real engine


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
    return Request(tuple(backend.tokenize(prompt)), params, TAGS, starts_in_thought=True)


class Eager:
    """Another drafter, whose guesses are all checked."""

    def __init__(self, drafter: Drafter) -> None:
        self._drafter = drafter
        self.kind, self.begin, self.follow = drafter.kind, drafter.begin, drafter.follow

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
