"""One drawn reply with the answer found in it, and the events that tell of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runtime import answers
from runtime.base.events import Event, SampleFinished, SampleNoted, TallyChanged
from runtime.base.types import Completion
from runtime.engine import confidence


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
