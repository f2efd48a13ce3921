"""Best of n: the model's own judgement of each answer decides."""

from __future__ import annotations

from runtime.strategies import bon, vote
from runtime.strategies.bon import BonSettings
from runtime.strategies.verdict import Verdict
from tests.fakes import FakeBackend
from tests.runtime.strategies.scripted import backend, drain, task


def script(question: str, sample: int) -> str:
    return ("\\boxed{7}", "\\boxed{8}", "I do not know.", "\\boxed{8}")[sample]


def judging() -> FakeBackend:
    """A model that finds 7 right, and 8 rather not."""
    fake = backend(script)

    def likelihood(held: list[int], token: int) -> float:
        text = bytes(each for each in held if each < 256).decode()
        yes = "boxed{7}" in text
        return -0.1 if token == (b"Y" if yes else b"N")[0] else -3.0

    fake.likelihood = likelihood
    return fake


def chosen(settings: BonSettings) -> Verdict:
    asked = task(script, fake=judging())
    return drain(bon.run(asked, settings))[1]


def test_the_answer_that_the_model_finds_right_wins() -> None:
    verdict = chosen(BonSettings(n=4))
    assert verdict.winner == "7"
    assert verdict.rule == "the best of 4, judged by the model itself"
    assert verdict.spent == sum(len(each.completion.tokens) for each in verdict.samples)


def test_scores_of_equal_answers_add_up() -> None:
    verdict = chosen(BonSettings(n=4, pick="sum"))
    weights = {each.answer: each.weight for each in verdict.tally}
    assert weights["7"] > 0.5 > weights["8"]
    assert verdict.tally[1].votes == 2


def test_a_stop_while_judging_leaves_the_votes() -> None:
    fake = judging()
    asked = task(script, fake=fake)
    running = bon.run(asked, BonSettings(n=4))
    for event in running:
        if getattr(event, "text", "") == "bon: judging 3 answers":
            fake.abort_after = 0
            break
    _, verdict = drain(running)
    assert (verdict.winner, verdict.rule) == ("8", "majority of 4, not judged")


def test_a_close_vote_is_decided_by_the_model() -> None:
    fake = judging()

    def prefers_seven(held: list[int], token: int) -> float:
        text = bytes(each for each in held if each < 256).decode()
        seven = b"A" if text.find("boxed{7}") < text.find("boxed{8}") else b"B"
        return -0.1 if token == seven[0] else -3.0

    fake.likelihood = prefers_seven
    settings = vote.VoteSettings(n=4, stop="none", judge="close")
    _, verdict = drain(vote.run(task(script, fake=fake), settings))
    assert (verdict.winner, verdict.chosen and verdict.chosen.sample) == ("7", 0)
    assert [each.answer for each in verdict.tally] == ["7", "8"]
    assert verdict.rule.startswith("majority of 4; the model prefers it to the next, 9")


def test_a_clear_vote_needs_no_judge() -> None:
    fake = backend(lambda question, sample: "\\boxed{8}" if sample else "\\boxed{7}")
    settings = vote.VoteSettings(n=4, stop="none", judge="close")
    _, verdict = drain(vote.run(task(script, fake=fake), settings))
    assert (verdict.winner, verdict.rule) == ("8", "majority of 4")
