"""What was decided about several samples of one question, and how they were counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import Literal

from runtime import answers
from runtime.base.types import Completion
from runtime.engine import confidence

# What decides between answers of equal weight first; the other one decides second.
TieRule = Literal["confidence", "thought"]
_TOLD: dict[TieRule, str] = {
    "confidence": "tie broken by mean confidence, then by the shorter thought",
    "thought": "tie broken by the shorter thought, then by mean confidence",
}
# What the ballots are: samples that vote; "turn": answers one after the other, of which one was taken; else answers of
# which one was chosen, whatever the others say.
Unit = Literal["vote", "turn", "sample", "path", "beam"]


@dataclass(frozen=True, slots=True)
class Ballot:
    """One sample and what it counts. `answer` None is an abstention, or a sample that was not allowed to end.

    `note` tells what befell it, "stopped: the leader cannot be caught", or is empty.
    """

    completion: Completion
    answer: str | None
    weight: float = 1.0
    note: str = ""

    @property
    def finished(self) -> bool:
        return self.completion.finish_reason in ("stop", "length")

    @property
    def confidence(self) -> float:
        """The geometric mean of its tokens' probabilities; 0 where statistics were not gathered."""
        return confidence.probability(self.completion.statistics)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One line of the tally: an answer as its first voter wrote it. `samples` are the numbers of its voters."""

    answer: str
    votes: int
    weight: float
    samples: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision. `winner` is None when nobody gave an answer.

    `chosen` is the completion to show, whatever came of it; None when nothing was drawn at all. `tally` has the winner
    first. `confidence` is the winner's share of all weight. `drawn` counts the samples that were begun, with those that
    are no ballots, as judges are. Tokens: `spent` are all that were drawn, those of stopped samples too; `saved` is an
    estimate of what stopping spared, by the mean length of those that ended; `sequential` is the longest chain in which
    each token waits for the one before.
    """

    strategy: str
    winner: str | None
    chosen: Completion | None
    confidence: float
    tally: tuple[Candidate, ...]
    abstained: int
    tied: bool
    rule: str
    ballots: tuple[Ballot, ...]
    drawn: int
    spent: int
    saved: int
    sequential: int
    unit: Unit = "vote"


def ballot(completion: Completion, weight: float = 1.0, note: str = "") -> Ballot:
    """The sample's vote: the answer it ended with. One that was not allowed to end has none."""
    voting = Ballot(completion, None, weight, note)
    return replace(voting, answer=answers.find(completion.answer)) if voting.finished else voting


def tally(ballots: Sequence[Ballot], tie: TieRule = "confidence") -> tuple[Candidate, ...]:
    """Votes by equal answer, the heaviest first, then as the tie rule has it."""
    found = []
    for members in answers.groups([each.answer for each in ballots]):
        voters = [ballots[index] for index in members]
        answer = voters[0].answer
        assert answer is not None
        surest = -_rounded(fsum(voter.confidence for voter in voters) / len(voters))
        shortest = min(voter.completion.thinking_tokens for voter in voters)
        weight = fsum(voter.weight for voter in voters)
        numbers = tuple(voter.completion.sample for voter in voters)
        second = (surest, shortest) if tie == "confidence" else (shortest, surest)
        found.append((-_rounded(weight), second, Candidate(answer, len(voters), weight, numbers)))
    return tuple(candidate for *_, candidate in sorted(found, key=lambda each: each[:2]))


def count(
    strategy: str,
    ballots: Sequence[Ballot],
    rule: str,
    *,
    planned: int = 0,
    sequential: int | None = None,
    tie: TieRule = "confidence",
    unit: Unit = "vote",
) -> Verdict:
    """The verdict of these ballots. `planned` samples were to be drawn; `sequential` is the longest one unless told."""
    candidates = tally(ballots, tie)
    tied = len(candidates) > 1 and _rounded(candidates[0].weight) == _rounded(candidates[1].weight)
    whole = fsum(candidate.weight for candidate in candidates)
    lengths = [len(each.completion.tokens) for each in ballots]
    return Verdict(
        strategy=strategy,
        winner=candidates[0].answer if candidates else None,
        chosen=_shown(ballots, candidates),
        confidence=candidates[0].weight / whole if whole else 0.0,
        tally=candidates,
        abstained=sum(each.finished and each.answer is None for each in ballots),
        tied=tied,
        rule=f"{rule}; {_TOLD[tie]}" if tied else rule,
        ballots=tuple(ballots),
        drawn=sum(each.completion.begun for each in ballots),
        spent=sum(lengths),
        saved=_saved(ballots, planned),
        sequential=max(lengths, default=0) if sequential is None else sequential,
        unit=unit,
    )


def _shown(ballots: Sequence[Ballot], candidates: Sequence[Candidate]) -> Completion | None:
    """The heaviest of the winner's voters, then the surest; else the surest that ended, else the longest."""
    if candidates:
        voters = [each for each in ballots if each.completion.sample in candidates[0].samples]
    else:
        voters = [each for each in ballots if each.finished]
    if voters:
        return max(voters, key=lambda each: (each.weight, each.confidence)).completion
    return max((each.completion for each in ballots), key=lambda each: len(each.tokens), default=None)


def _saved(ballots: Sequence[Ballot], planned: int) -> int:
    ended = [len(each.completion.tokens) for each in ballots if each.finished]
    stopped = [len(each.completion.tokens) for each in ballots if not each.finished]
    if not ended:
        return 0
    mean = sum(ended) / len(ended)
    unstarted = max(planned - len(ballots), 0)
    return round(mean * unstarted + sum(max(mean - length, 0.0) for length in stopped))


def _rounded(weight: float) -> float:
    """Sums of the same weights in another order must be equal."""
    return round(weight, 9)
