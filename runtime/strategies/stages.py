"""For strategies that draw in stages, where each stage waits for the one before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from runtime.base.events import SampleFinished, SampleNoted, TextDrawn
from runtime.base.types import Completion
from runtime.engine.sequence import Request
from runtime.strategies.task import Drawing, Task, was_stopped
from runtime.strategies.verdict import Ballot, Unit, Verdict, count

# Whether a sample's text so far is all that is wanted of it.
Whole = Callable[[str], bool]


class Stages:
    """Numbers the samples of all stages through, so that no two share a seed, and adds up what they cost.

    `stopped` says that the user had enough: nothing more is to be drawn.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._numbered = 0
        self.drawn = 0
        self.spent = 0
        self.sequential = 0
        self.stopped = False

    def draw(self, requests: Sequence[Request], note: str, whole: Whole = lambda text: False) -> Drawing:
        """Draw one stage, all its requests together; returns the completions in their order.

        A sample whose text is `whole` is ended, at the token that made it so.
        """
        numbered = [replace(request, sample=self._numbered + index) for index, request in enumerate(requests)]
        self._numbered += len(requests)
        ended: dict[int, Completion] = {}
        for request in numbered:
            yield SampleNoted(request.sample, note)
        texts = dict.fromkeys((request.sample for request in numbered), "")
        cut: set[int] = set()
        for event in self._task.engine.stream(numbered) if numbered else ():
            yield event
            if isinstance(event, TextDrawn):
                texts[event.sample] += event.text
                if event.sample not in cut and whole(texts[event.sample]):
                    cut.add(event.sample)
                    self._task.engine.cancel([event.sample])
            elif isinstance(event, SampleFinished):
                ended[event.completion.sample] = event.completion
        lengths = [len(each.tokens) for each in ended.values()]
        self.drawn += sum(each.begun for each in ended.values())
        self.spent += sum(lengths)
        self.sequential += max(lengths, default=0)
        self.stopped = self.stopped or was_stopped([each for number, each in ended.items() if number not in cut])
        return [ended[request.sample] for request in numbered]

    def verdict(
        self, strategy: str, ballots: Sequence[Ballot], rule: str, unit: Unit, chosen: Completion | None = None
    ) -> Verdict:
        """The verdict of these ballots at the cost of everything that was drawn; `chosen` is shown if there is one."""
        counted = count(strategy, ballots, rule, sequential=self.sequential, unit=unit)
        return replace(counted, drawn=self.drawn, spent=self.spent, saved=0, chosen=chosen or counted.chosen)
