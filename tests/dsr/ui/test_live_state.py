"""What is shown of many samples in little space."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsr.ui.live_state import LiveState
from dsr.ui.text import display_width
from runtime.base.events import Event, Progress, SampleFinished, SampleNoted, TextDrawn
from runtime.base.types import Completion, FinishReason, TokenStatistics
from runtime.strategies.bounds import Budget
from runtime.strategies.verdict import Sample
from runtime.strategies.verdict import ended as finished

SURE = (TokenStatistics(-0.105360516, 4.0, 2.0),)  # 90 %


def ended(sample: int, answer: str, tokens: int = 9, reason: FinishReason = "stop", sure: bool = True) -> Completion:
    text = f"The answer is \\boxed{{{answer}}}." if answer else ""
    return Completion(sample, "", text, (1,) * tokens, 0, reason, 2.0, statistics=SURE if sure else ())


def drawn(sample: int, text: str) -> Event:
    return TextDrawn(sample, "thinking", text)


def state_after(*events: Event | Completion, seconds: float = 0.0, voting: bool = True) -> LiveState:
    """The state after `events`, each `seconds` after the one before; completions come with their tally."""
    made, samples = LiveState("vote n=8" if voting else "verify", voting), list[Sample]()
    for number, event in enumerate(events):
        for each in finished(event, samples) if isinstance(event, Completion) else (event,):
            made.take(each, number * seconds)
    return made


def plain(made: LiveState, columns: int = 60, rows: int = 24) -> list[str]:
    return ["".join(text for text, _ in line).rstrip() for line in made.lines(columns, rows)]


def test_a_lane_per_sample_with_its_last_words_and_below_the_votes() -> None:
    made = state_after(
        drawn(0, "one "), drawn(1, "two\nthree"), drawn(0, "more words"), ended(1, "933", 84), ended(2, ""), seconds=1.0
    )
    assert plain(made) == [
        "vote n=8: 2 of 3 ended, 95 tokens",
        "1  2 tokens    1/s  one more words",
        "2 84 tokens   90 %  933",
        "3  9 tokens   90 %  no answer",
        "933       ████ 1",
        "no answer ████ 1",
    ]


def test_equal_answers_are_one_line_of_the_tally_the_largest_first() -> None:
    made = state_after(
        *(ended(sample, answer) for sample, answer in enumerate(("939", "933", "933.0", "1,000", "933")))
    )
    assert [line.split() for line in plain(made)[-3:]] == [
        ["933", "████████████", "3"],
        ["939", "████", "1"],
        ["1,000", "████", "1"],
    ]


def test_a_sample_that_was_stopped_says_why_and_does_not_vote() -> None:
    made = state_after(
        drawn(0, "hm"),
        SampleNoted(0, "stopped: 4 against 0 is clear"),
        ended(0, "1", 3, "cancelled"),
        ended(1, "2", 3, "cut"),
        ended(2, "3", 3, "length"),
        ended(3, "4", 3, "cancelled"),
    )
    assert [line.partition("tokens")[2].strip() for line in plain(made, 70)[1:5]] == [
        "2/s  stopped: 4 against 0 is clear",
        "2/s  cut: not sure enough",
        "90 %  3  cut at the limit",
        "2/s  stopped",
    ]
    assert made.votes == (("3", 1),)


def test_a_note_on_a_sample_that_has_not_begun_is_kept() -> None:
    made = state_after(SampleNoted(0, "round 1 of 2"), drawn(0, "text"))
    assert plain(made)[1].endswith("round 1 of 2: text")


def test_samples_that_answer_other_questions_show_their_words_and_do_not_vote() -> None:
    made = state_after(SampleNoted(0, "judging"), drawn(0, "step 1 is right"), ended(0, "right", 4), voting=False)
    assert plain(made) == ["verify: 1 of 1 ended, 4 tokens", "1 4 tokens   90 %  judging: step 1 is right"]


def test_a_sample_that_was_stopped_before_it_began_has_no_lane() -> None:
    made = state_after(ended(0, "", 0, "cancelled"), drawn(1, "x"))
    assert list(made.samples) == [1]


def test_a_number_that_is_drawn_again_begins_anew_and_its_tokens_stay_counted() -> None:
    made = state_after(drawn(0, "x"), ended(0, "1", 10), drawn(0, "again"))
    assert made.samples[0].state == "drawing"
    assert (made.tokens, made.samples[0].text, made.votes) == (11, "again", (("1", 1),))


def test_reading_the_prompt_is_told_in_the_first_line() -> None:
    made = state_after(Progress("reading the prompt", "", 512, 4096, "tokens"))
    assert plain(made) == ["reading the prompt: 512 of 4096 tokens"]
    made.take(Progress("reading the prompt", "", 4096, 4096, "tokens"), 1.0)
    assert plain(made) == ["vote n=8: 0 of 0 ended, 0 tokens"]


def test_forty_columns_leave_out_what_does_not_fit() -> None:
    made = state_after(drawn(0, "a long thought about nothing in particular"), ended(1, "933", 84))
    assert plain(made, 36)[:3] == [
        "vote n=8: 1 of 2 ended, 85 tokens",
        "1  1 …ht about nothing in particular",
        "2 84 933",
    ]
    assert plain(made, 30)[0] == "1 of 2 ended, 85 tokens"


def test_more_samples_than_rows_those_that_draw_come_first() -> None:
    made = state_after(*(ended(sample, "7") for sample in range(10)), *(drawn(sample, "x") for sample in (3, 10, 11)))
    assert plain(made, 60, 8) == [
        "vote n=8: 9 of 12 ended, 93 tokens",
        " 4 1 tokens         x",
        " 9 9 tokens   90 %  7",
        "10 9 tokens   90 %  7",
        "11 1 tokens         x",
        "12 1 tokens         x",
        "and 7 more: 7 ended",
        "7 ████████████████████████████████████████ 10",
    ]
    assert plain(made, 60, 4)[1:3] == ["12 1 tokens         x", "and 11 more: 2 drawing, 9 ended"]
    assert plain(made, 60, 1) == ["vote n=8: 9 of 12 ended, 93 tokens"]
    assert plain(made, 60, 0) == []


@given(
    st.lists(
        st.one_of(
            st.builds(drawn, st.integers(0, 40), st.text(max_size=20)),
            st.builds(ended, st.integers(0, 40), st.sampled_from(["", "1", "22", "漢字", "x" * 90])),
            st.builds(SampleNoted, st.integers(0, 40), st.text(max_size=40)),
        ),
        max_size=60,
    ),
    st.integers(0, 90),
    st.integers(0, 30),
)
def test_it_never_grows_beyond_its_space(events: list[Event | Completion], columns: int, rows: int) -> None:
    lines = state_after(*events).lines(columns, rows)
    assert len(lines) <= rows
    assert all(display_width("".join(text for text, _ in line)) <= columns for line in lines)
    assert all("\n" not in text and "\x1b" not in text for line in lines for text, _ in line)


def test_a_budget_is_counted_in_the_headline() -> None:
    made = LiveState("vote n=8", budget=Budget(tokens=4000), started=5.0)
    made.take(ended_event(1200), 5.0)
    assert plain(made)[0] == "vote n=8: 1 of 1 ended, 1,200 of 4,000 tokens"
    timed = LiveState("vote n=8", budget=Budget(seconds=30.0), started=5.0)
    timed.take(ended_event(1200), 17.0)
    assert plain(timed)[0] == "vote n=8: 1 of 1 ended, 12 of 30 s"


def ended_event(tokens: int) -> Event:
    return SampleFinished(ended(0, "7", tokens))
