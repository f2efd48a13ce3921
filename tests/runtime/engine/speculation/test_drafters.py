"""Guesses from the text itself and from a second model, and how often they are right."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.base.errors import Incompatible
from runtime.engine.engine import Engine
from runtime.engine.speculation import LONGEST_DRAFT, ModelDrafter, NgramDrafter, common_vocabulary
from runtime.engine.speculation.drafter import Acceptance
from runtime.gguf.reader import read_card
from tests.fakes import FakeBackend, saying
from tests.gguf_writer import write
from tests.runtime.engine.speculation.drafting import PROMPT, everything, request

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
