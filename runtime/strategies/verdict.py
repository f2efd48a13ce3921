"""Samples of one question, and the decision between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Literal

from runtime import answers
from runtime.base.events import Event, SampleFinished, SampleNoted, TallyChanged
from runtime.base.types import Completion
from runtime.engine import confidence
from runtime.strategies.paragraphs import Paragraph


@dataclass(frozen=True, slots=True)
class Sample:
    """A reply and how much it counts.

    `answer` is None where the reply has no answer, or was not allowed to end. `note` says what happened to the sample,
    as in "stopped: the leader cannot be caught"; empty where nothing did.
    """

    completion: Completion
    answer: str | None
    weight: float = 1.0
    note: str = ""

    @classmethod
    def of(cls, completion: Completion, weight: float = 1.0, note: str = "") -> Sample:
        """The sample with the answer that its reply ends with. The one place where a strategy extracts answers."""
        ended = completion.finish_reason in ("stop", "length")
        return cls(completion, answers.extract(completion.answer) if ended else None, weight, note)

    @property
    def number(self) -> int:
        return self.completion.sample

    @property
    def finished(self) -> bool:
        """Whether the reply came to its end or to a limit of tokens."""
        return self.completion.finish_reason in ("stop", "length")

    @property
    def confidence(self) -> float:
        """The geometric mean of its tokens' probabilities; 0 where statistics were not gathered."""
        return confidence.probability(self.completion.statistics)


def whole(completion: Completion) -> str:
    """Thought and answer as one text."""
    return "\n\n".join(filter(None, (completion.thinking.strip(), completion.answer.strip())))


def ended(completion: Completion, samples: list[Sample], note: str = "") -> Iterator[Event]:
    """Add the sample that ended to `samples`, and tell of it: the note, the votes with this sample, then its end."""
    sample = Sample.of(completion)
    samples.append(sample)
    if note:
        yield SampleNoted(sample.number, note)
    if sample.finished:
        yield tally_changed(sample, samples)
    yield SampleFinished(completion)


def tally_changed(latest: Sample, samples: Sequence[Sample]) -> TallyChanged:
    """The votes among the samples that finished, each of the same weight."""
    said = [each.answer for each in samples if each.finished]
    votes = [(said[members[0]], len(members)) for members in answers.groups(said)]
    return TallyChanged(latest.number, latest.answer, tuple((answer or "", count) for answer, count in votes),
                        without=said.count(None))  # fmt: skip


ValuedBy = Literal["head", "proxy"]
# What decides between answers of equal weight first; the other one decides second.
TieRule = Literal["confidence", "thought"]
_TIE_RULES: dict[TieRule, str] = {
    "confidence": "tie broken by mean confidence, then by the shorter thought",
    "thought": "tie broken by the shorter thought, then by mean confidence",
}
# What one sample is to the decision. "vote": its answer counts; "turn": one of several answers given in turn; else one
# of several answers of which one was chosen.
Unit = Literal["vote", "turn", "sample", "path", "beam"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One line of the tally: an answer as its best explained voter wrote it. `samples`: the numbers of its voters."""

    answer: str
    votes: int
    weight: float
    samples: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A paragraph that an answer rests on, and the log-probability of the question behind it, in nats.

    None if a stop came before the model read it: then it shares words with the question.
    """

    paragraph: Paragraph
    logprob: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision. `winner` is None when nobody gave an answer.

    `chosen` is the completion to show, whatever came of it; None when nothing was drawn at all. `tally` has the winner
    first. `confidence` is the winner's share of all weight. `drawn` counts the samples that were begun, with those that
    are no voters, such as judges. Tokens: `spent` are all tokens drawn, those of stopped samples too; `saved` estimates
    how many stopping saved, by the mean length of the samples that ended; `sequential` is the longest chain in which
    each token waits for the one before. `evidence`: the paragraphs that the answer rests on, the best
    first. `valued_by`: where the weights are values, those of a value head, or of a proxy, the model's own judgement.
    """

    strategy: str
    winner: str | None
    chosen: Completion | None
    confidence: float
    tally: tuple[Candidate, ...]
    abstained: int
    tied: bool
    rule: str
    samples: tuple[Sample, ...]
    drawn: int
    spent: int
    saved: int
    sequential: int
    unit: Unit = "vote"
    evidence: tuple[Evidence, ...] = ()
    valued_by: ValuedBy | None = None


def tally(samples: Sequence[Sample], tie: TieRule = "confidence") -> tuple[Candidate, ...]:
    """Votes by equal answer, the heaviest first, then as the tie rule has it."""
    found = []
    for members in answers.groups([each.answer for each in samples]):
        voters = [samples[index] for index in members]
        answer = best_explained(voters).answer
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
    samples: Sequence[Sample],
    rule: str,
    *,
    planned: int = 0,
    sequential: int | None = None,
    tie: TieRule = "confidence",
    unit: Unit = "vote",
) -> Verdict:
    """The verdict of these samples. `planned` samples were to be drawn; `sequential` is the longest one unless told."""
    candidates = tally(samples, tie)
    tied = len(candidates) > 1 and _rounded(candidates[0].weight) == _rounded(candidates[1].weight)
    whole = fsum(candidate.weight for candidate in candidates)
    lengths = [len(each.completion.tokens) for each in samples]
    return Verdict(
        strategy=strategy,
        winner=candidates[0].answer if candidates else None,
        chosen=_shown(samples, candidates),
        confidence=candidates[0].weight / whole if whole else 0.0,
        tally=candidates,
        abstained=sum(each.finished and each.answer is None for each in samples),
        tied=tied,
        rule=f"{rule}; {_TIE_RULES[tie]}" if tied else rule,
        samples=tuple(samples),
        drawn=sum(each.completion.begun for each in samples),
        spent=sum(lengths),
        saved=_saved(samples, planned),
        sequential=max(lengths, default=0) if sequential is None else sequential,
        unit=unit,
    )


def _shown(samples: Sequence[Sample], candidates: Sequence[Candidate]) -> Completion | None:
    """The best explained of the winner's voters; else of those that ended; else the longest."""
    if candidates:
        voters = [each for each in samples if each.completion.sample in candidates[0].samples]
    else:
        voters = [each for each in samples if each.finished]
    if voters:
        return best_explained(voters).completion
    return max((each.completion for each in samples), key=lambda each: len(each.tokens), default=None)


def best_explained(voters: Sequence[Sample]) -> Sample:
    """Of samples with the same answer the one to show: it counts, it came to its end, and its tokens had the highest
    mean confidence (DeepConf's, arXiv 2508.15260)."""
    return max(
        voters,
        key=lambda each: (
            each.weight > 0,
            each.completion.finish_reason == "stop",
            _rounded(confidence.mean_confidence(each.completion.statistics)),
            each.confidence,
        ),
    )


def _saved(samples: Sequence[Sample], planned: int) -> int:
    ended = [len(each.completion.tokens) for each in samples if each.finished]
    stopped = [len(each.completion.tokens) for each in samples if not each.finished]
    if not ended:
        return 0
    mean = sum(ended) / len(ended)
    unstarted = max(planned - len(samples), 0)
    return round(mean * unstarted + sum(max(mean - length, 0.0) for length in stopped))


def _rounded(weight: float) -> float:
    """Rounded, so that sums of the same weights in another order are equal."""
    return round(weight, 9)
