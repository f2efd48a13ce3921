"""Draws the samples that a bench needs and does not have yet.

The seed of a sample follows from the problem and its number, never from the order of drawing: sample s of problem p,
both counted from 0, has seed + 1000 p + s.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dsr.bench.reason.batch_statistics import BatchStatistics
from dsr.bench.reason.judge import decided
from dsr.bench.reason.rows import StrategyRow
from dsr.bench.reason.samples import row_of
from dsr.loading.load import LoadedModel
from dsr.store.ledger import Ledger
from dsr.suites.suites import Problem, Suite
from runtime.base.errors import UsageError
from runtime.base.events import Listener, Progress, SampleFinished
from runtime.base.types import Completion, Message, SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.strategies.task import Task
from runtime.strategies.verdict import Verdict

SEEDS_PER_PROBLEM = 1000
# Problems whose samples are handed to the engine together, so that its slots stay full.
_WAVE = 32


def check_seed(seed: int, problems: int) -> None:
    """Raises UsageError for a seed that leaves no room for those of the last problem."""
    if seed + SEEDS_PER_PROBLEM * problems >= 2**32:
        raise UsageError(f"--seed {seed} leaves no room for {problems} problems of {SEEDS_PER_PROBLEM} seeds each")


@dataclass(slots=True)
class Drawing:
    """A model at work on the first `count` problems of a suite. `params` hold the seed of the first problem."""

    model: LoadedModel
    suite: Suite
    count: int
    params: SamplingParams
    thinking: bool | None
    listen: Listener
    statistics: BatchStatistics
    stopped: bool = False

    @property
    def problems(self) -> Sequence[Problem]:
        return self.suite.problems[: self.count]

    def shared(self, samples: int, ledger: Ledger, *, greedy: bool = False) -> None:
        """The samples that many lines share, or with `greedy` the one that is always the likeliest, into the ledger."""
        job = "greedy samples" if greedy else "samples"
        missing = [
            (index, sample)
            for index, problem in enumerate(self.problems)
            for sample in range(samples)
            if (problem.id, sample) not in ledger
        ]
        total = samples * self.count
        done = total - len(missing)
        base = replace(self.params, temperature=0.0) if greedy else self.params
        if missing:
            self.listen(Progress(job, self.suite.name, done, total, "steps"))
        engine = Engine(self.statistics.watched(self.model.backend))
        for at in range(0, len(missing), _WAVE * samples):
            wave = missing[at : at + _WAVE * samples]
            for completion in self._ended(engine, self._requests(wave, base)):
                index, sample = divmod(completion.sample, SEEDS_PER_PROBLEM)
                ledger.add(row_of(self.problems[index], completion, sample, seed=base.seed + completion.sample))
                done += 1
                self.listen(Progress(job, self.suite.name, done, total, "steps"))
            if self.stopped:
                return

    def own(self, line: StrategyRow, ledger: Ledger) -> None:
        """What a strategy decides that draws for itself, problem after problem, with its samples."""
        assert line.chosen is not None
        engine = Engine(self.statistics.watched(self.model.backend))
        missing = [index for index, problem in enumerate(self.problems) if problem.id not in ledger]
        done = self.count - len(missing)
        for index in missing:
            self.listen(Progress(line.label, self.suite.name, done, self.count, "steps"))
            problem = self.problems[index]
            params = replace(self.params, seed=self.params.seed + index * SEEDS_PER_PROBLEM)
            task = self._task(index, engine, params)
            before = self.statistics.seconds
            with self.statistics.running():
                verdict = _drained(line.chosen.run(task))
            if engine.aborted:
                self.stopped = True
                return
            ledger.add(_row(line, problem, verdict, self.statistics.seconds - before))
            done += 1
        self.listen(Progress(line.label, self.suite.name, done, self.count, "steps"))

    def _ended(self, engine: Engine, requests: Sequence[Request]) -> Iterator[Completion]:
        """Samples that ended by themselves; one that Ctrl-C ended is drawn again another day."""
        events = engine.stream(requests)
        while True:
            with self.statistics.running():
                event = next(events, None)
            if event is None:
                break
            if isinstance(event, SampleFinished) and event.completion.finish_reason != "cancelled":
                yield event.completion
        self.stopped = self.stopped or engine.aborted

    def _requests(self, wave: Sequence[tuple[int, int]], params: SamplingParams) -> list[Request]:
        """For each (problem, sample) one, numbered by what is added to the seed."""
        asked = {index: self._request(self._question(index), self.thinking, params) for index, _ in wave}
        measured = {index: replace(each, params=replace(each.params, statistics=True)) for index, each in asked.items()}
        return [replace(measured[index], sample=index * SEEDS_PER_PROBLEM + sample) for index, sample in wave]

    def _question(self, index: int) -> str:
        return self.suite.message(self.problems[index])

    def _task(self, index: int, engine: Engine, params: SamplingParams) -> Task:
        question = self._question(index)
        request = self._request(question, self.thinking, params)
        return Task(
            question=question,
            prompt=request.prompt,
            make_prompt=self._prompt,
            params=request.params,
            engine=engine,
            markers=self.model.markers,
            family=self.model.chat_format.family,
        )

    def _prompt(self, question: str, thinking: bool | None) -> Prompt:
        return self._request(question, self.thinking if thinking is None else thinking, self.params).prompt

    def _request(self, question: str, thinking: bool | None, params: SamplingParams) -> Request:
        """As `dsr chat` would ask it, in a conversation that begins here."""
        return self.model.request([Message("user", question)], params, thinking)


def _drained(running: Generator[Any, None, Verdict]) -> Verdict:
    while True:
        try:
            next(running)
        except StopIteration as ended:
            verdict: Verdict = ended.value
            return verdict


def _row(line: StrategyRow, problem: Problem, verdict: Verdict, seconds: float) -> dict[str, Any]:
    drawn = [each.completion for each in verdict.samples]
    decision = decided(line, problem, verdict, [each.sample for each in drawn], seconds)
    samples = [row_of(problem, each, each.sample) for each in drawn]
    return {**decision.json(), "drawn": samples}
