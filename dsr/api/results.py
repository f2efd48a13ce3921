"""What the Python interface returns: pieces of a stream, answers, votes, scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runtime.base.types import Completion, FinishReason
from runtime.strategies.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of an answer or of its thought; never a part of a character."""

    part: Literal["thinking", "answer"]
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. `thinking` is the thought before it, "" if there is none.

    `finish`: "stop" if the model ended it, "length" at a limit of tokens or of the context. "cancelled": it was
    stopped; "cut": a strategy ended it. `tokens` counts thought and answer, `seconds` is the time after the prompt was
    read.
    """

    text: str
    thinking: str
    finish: FinishReason
    tokens: int
    prompt_tokens: int
    seconds: float

    @classmethod
    def of(cls, completion: Completion, prompt_tokens: int) -> Answer:
        return cls(
            completion.answer.strip(),
            completion.thinking.strip(),
            completion.finish_reason,
            len(completion.tokens),
            prompt_tokens,
            completion.seconds,
        )


@dataclass(frozen=True, slots=True)
class Ballot:
    """An answer of a vote, as its first voter wrote it, with its votes, and its share of all weight from 0 to 1."""

    answer: str
    votes: int
    share: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """A paragraph that an answer rests on: its file, its lines counted from 1, and its text.

    `logprob` is the log-probability of the question behind it. None: a stop came before the model read it.
    """

    document: str
    first_line: int
    last_line: int
    text: str
    logprob: float | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What a strategy decided. `answer` is the short answer, such as "933"; None if no sample has one.

    `text` is the whole reply that was chosen, `thinking` the thought before it. `share` is the winner's share of all
    weight; `ballots` begin with the winner's. `rule` says in words how it was chosen. `samples` are all answers, and
    `tokens` counts the tokens of everything that was drawn. `stopped`: by `cancel`, before it was done.
    `evidence`: the paragraphs that the answer rests on, the best first, with the strategy "evidence".
    """

    answer: str | None
    text: str
    thinking: str
    share: float
    ballots: tuple[Ballot, ...]
    rule: str
    samples: tuple[Answer, ...]
    tokens: int
    stopped: bool = False
    evidence: tuple[Evidence, ...] = ()

    @classmethod
    def of(cls, verdict: Verdict, prompt_tokens: int, *, stopped: bool) -> Decision:
        whole = sum(each.weight for each in verdict.tally) or 1.0
        chosen = verdict.chosen
        return cls(
            verdict.winner,
            chosen.answer.strip() if chosen is not None else "",
            chosen.thinking.strip() if chosen is not None else "",
            verdict.confidence,
            tuple(Ballot(each.answer, each.votes, each.weight / whole) for each in verdict.tally),
            verdict.rule,
            tuple(Answer.of(each.completion, prompt_tokens) for each in verdict.samples),
            verdict.spent,
            stopped,
            tuple(
                Evidence(
                    each.paragraph.document,
                    each.paragraph.first,
                    each.paragraph.last,
                    each.paragraph.text,
                    each.logprob,
                )
                for each in verdict.evidence
            ),
        )


@dataclass(frozen=True, slots=True)
class Score:
    """How likely a model finds a given text: the natural log-probability of each of its tokens."""

    logprobs: tuple[float, ...]

    @property
    def total(self) -> float:
        """The log-probability of the whole text. Longer texts are less likely."""
        return sum(self.logprobs)

    @property
    def mean(self) -> float:
        """The log-probability per token, for texts of different lengths; 0 for an empty text."""
        return self.total / len(self.logprobs) if self.logprobs else 0.0
