"""Drawing in stages, where each stage waits for the one before."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

from runtime.base.events import Event, Interrupted, SampleFinished, SampleNoted, TextDrawn
from runtime.base.types import Completion
from runtime.engine.sequence import Request
from runtime.strategies.task import Task
from runtime.strategies.verdict import Sample, Unit, Verdict, count

# Whether the text of a sample so far is all that is needed of it.
Whole = Callable[[str], bool]


class Stages:
    """Numbers the samples of all stages, so that no two share a seed, and adds up the tokens they cost.

    `stopped`: the user or the budget stopped a sample, so nothing more is drawn.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._numbered = 0
        self.drawn = 0
        self.spent = 0
        self.sequential = 0
        self.stopped = False

    def draw(
        self, requests: Sequence[Request], note: str, whole: Whole = lambda text: False, part: Task | None = None
    ) -> Generator[Event, None, list[Completion]]:
        """Draw one stage, all its requests together; returns the completions in the order of the requests.

        A sample whose text is `whole` ends at the token that made it so. `part`: the task with a part of its allowance,
        for this stage; when only that is used up, the samples are stopped, but not the strategy.
        """
        numbered = [replace(request, sample=self._numbered + index) for index, request in enumerate(requests)]
        self._numbered += len(requests)
        ended: dict[int, Completion] = {}
        for request in numbered:
            yield SampleNoted(request.sample, note)
        texts = dict.fromkeys((request.sample for request in numbered), "")
        cut: set[int] = set()
        task = part or self._task
        for event in task.engine.stream(numbered) if numbered else ():
            yield event
            self.stopped |= isinstance(event, Interrupted)
            if isinstance(event, TextDrawn):
                texts[event.sample] += event.text
                if event.sample not in cut and whole(texts[event.sample]):
                    cut.add(event.sample)
                    task.engine.cancel([event.sample])
            elif isinstance(event, SampleFinished):
                ended[event.completion.sample] = event.completion
        lengths = [len(each.tokens) for each in ended.values()]
        self.drawn += sum(each.begun for each in ended.values())
        self.spent += sum(lengths)
        self.sequential += max(lengths, default=0)
        stopped = any(each.finish_reason == "cancelled" for number, each in ended.items() if number not in cut)
        if part is None or part.allowance is None or not part.allowance.refused:
            self.stopped |= stopped
        elif self._task.allowance is not None:
            self.stopped |= self._task.allowance.over
        return [ended[request.sample] for request in numbered]

    def verdict(
        self, strategy: str, samples: Sequence[Sample], rule: str, unit: Unit, chosen: Completion | None = None
    ) -> Verdict:
        """The verdict of these samples, with the tokens of all stages; `chosen` is shown if there is one."""
        counted = count(strategy, samples, rule, sequential=self.sequential, unit=unit)
        return replace(counted, drawn=self.drawn, spent=self.spent, saved=0, chosen=chosen or counted.chosen)
