"""Draws the missing samples.

The seed of a sample depends on its problem and number, not on the order of drawing: sample s of problem p, both counted
from 0, has seed + 1000 p + s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dsr.bench.reason.batch_statistics import BatchStatistics
from dsr.bench.reason.choices import letters_of, scored_entry
from dsr.bench.reason.judge import make_decision
from dsr.bench.reason.rows import GREEDY, StrategyRow
from dsr.bench.reason.samples import sample_entry
from dsr.loading.load import LoadedModel
from dsr.store.ledger import Ledger
from dsr.suites.judging import Judging
from dsr.suites.problem import Suite, SuiteProblem
from runtime.base.errors import Lost, UsageError
from runtime.base.events import Listener, Progress, SampleFinished, value_of
from runtime.base.types import Completion, Message, SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.likelihood import likelihoods
from runtime.engine.prompt_options import PromptOptions
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.strategies.task import Task
from runtime.strategies.verdict import Verdict

SEEDS_PER_PROBLEM = 1000
# The engine gets the samples of this many problems together, so that its slots stay full.
_WAVE = 32


def check_seed(seed: int, problems: int) -> None:
    """Raises UsageError if the seeds of the last problem would be too large."""
    if seed + SEEDS_PER_PROBLEM * problems >= 2**32:
        raise UsageError(f"--seed {seed} is too large for {problems} problems with {SEEDS_PER_PROBLEM} seeds each")


@dataclass(slots=True)
class SampleGenerator:
    """Draws samples of the first `count` problems of a suite. `params` have the seed of the first problem."""

    model: LoadedModel
    suite: Suite
    judging: Judging
    count: int
    params: SamplingParams
    asked: PromptOptions
    listen: Listener
    statistics: BatchStatistics
    stopped: bool = False

    @property
    def problems(self) -> Sequence[SuiteProblem]:
        return self.suite.problems[: self.count]

    def draw_shared(self, samples: int, ledger: Ledger, *, greedy: bool = False) -> None:
        """Adds the samples that many rows share to the ledger; with `greedy`, samples at temperature 0."""
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
        engine = Engine(self.statistics.count_batches(self.model.backend))
        for at in range(0, len(missing), _WAVE * samples):
            wave = missing[at : at + _WAVE * samples]
            for completion in self._finished(engine, self._requests(wave, base)):
                index, sample = divmod(completion.sample, SEEDS_PER_PROBLEM)
                problem, seed = self.problems[index], base.seed + completion.sample
                ledger.add(sample_entry(problem, completion, sample, self.judging, seed=seed))
                done += 1
                self.listen(Progress(job, self.suite.name, done, total, "steps"))
            if self.stopped:
                return

    def draw_own(self, row: StrategyRow, ledger: Ledger) -> None:
        """Runs a strategy that draws its own samples, and adds its decisions with the samples to the ledger."""
        base = replace(self.params, temperature=0.0) if row.name == GREEDY else self.params
        count = len(row.of(self.problems))
        job = row.file or row.label
        assert row.strategy is not None
        engine = Engine(self.statistics.count_batches(self.model.backend))
        missing = [index for index, problem in enumerate(row.of(self.problems)) if problem.id not in ledger]
        done = count - len(missing)
        for index in missing:
            self.listen(Progress(job, self.suite.name, done, count, "steps"))
            problem = self.problems[index]
            params = replace(base, seed=base.seed + index * SEEDS_PER_PROBLEM)
            task = self._task(index, engine, params)
            before = self.statistics.seconds
            with self.statistics.running():
                verdict = value_of(row.strategy.run(task))
            self._note_end(engine)
            if self.stopped:
                return
            ledger.add(_decision_entry(row, problem, verdict, self.statistics.seconds - before, self.judging))
            done += 1
        self.listen(Progress(job, self.suite.name, done, count, "steps"))

    def score_choices(self, ledger: Ledger) -> None:
        """Adds the log-probabilities of each question's choices to the ledger.

        Letters follow the question with its choices, texts follow the question alone. Nothing is thought.
        """
        engine = Engine(self.statistics.count_batches(self.model.backend))
        read = self.model.backend.tokenize
        for index, problem in enumerate(self.problems):
            self.listen(Progress("choices", self.suite.name, index, self.count, "steps"))
            if problem.id in ledger:
                continue
            listed, alone = self._prompt(self._question(index), False), self._prompt(problem.question, False)
            letters = [read(letter) for letter in letters_of(problem)]
            texts = [read(choice) for choice in problem.choices]
            before = self.statistics.seconds
            with self.statistics.running():
                of_letters = likelihoods(engine, listed.tokens, letters)
                of_texts = likelihoods(engine, alone.tokens, texts)
            ledger.add(scored_entry(problem, of_letters, of_texts, self.statistics.seconds - before))
        self.listen(Progress("choices", self.suite.name, self.count, self.count, "steps"))

    def _finished(self, engine: Engine, requests: Sequence[Request]) -> Iterator[Completion]:
        """Yields the samples that ended by themselves. The next run draws those again that Ctrl-C ended."""
        events = engine.stream(requests)
        while True:
            with self.statistics.running():
                event = next(events, None)
            if event is None:
                break
            if isinstance(event, SampleFinished) and event.completion.finish_reason != "cancelled":
                yield event.completion
        self._note_end(engine)

    def _note_end(self, engine: Engine) -> None:
        """Notes a Ctrl-C. Raises Lost if something went away that the model needs."""
        if isinstance(engine.aborted, Lost):
            raise engine.aborted
        self.stopped = self.stopped or engine.aborted is not None

    def _requests(self, wave: Sequence[tuple[int, int]], params: SamplingParams) -> list[Request]:
        """Returns a request for each (problem, sample). Its number is added to the seed."""
        of_problem = {index: self._request(self._question(index), None, params) for index, _ in wave}
        params_of = {index: replace(each.params, statistics=True) for index, each in of_problem.items()}
        return [
            replace(of_problem[index], params=params_of[index], sample=index * SEEDS_PER_PROBLEM + sample)
            for index, sample in wave
        ]

    def _question(self, index: int) -> str:
        return self.suite.message(self.problems[index])

    def _task(self, index: int, engine: Engine, params: SamplingParams) -> Task:
        question = self._question(index)
        request = self._request(question, None, params)
        return Task(
            question=question,
            prompt=request.prompt,
            make_prompt=self._prompt,
            params=request.params,
            engine=engine,
            markers=self.model.markers,
            family=self.model.chat_format.family,
            parameters=self.model.card.parameters,
            tokens_of=self.model.tokens,
        )

    def _prompt(self, question: str, thinking: bool | None) -> Prompt:
        return self._request(question, thinking, self.params).prompt

    def _request(self, question: str, thinking: bool | None, params: SamplingParams) -> Request:
        """Returns the request of `dsr chat` for the first question of a conversation."""
        asked = self.asked if thinking is None else replace(self.asked, thinking=thinking)
        return self.model.request([Message("user", question)], params, asked)


def _decision_entry(
    row: StrategyRow, problem: SuiteProblem, verdict: Verdict, seconds: float, judging: Judging
) -> dict[str, Any]:
    drawn = [each.completion for each in verdict.samples]
    decision = make_decision(row, problem, verdict, drawn, seconds, judging)
    samples = [sample_entry(problem, each, each.sample, judging) for each in drawn]
    reply = {"reply": verdict.chosen.answer} if problem.by_reply and verdict.chosen else {}
    return {**decision.json(), **reply, "drawn": samples}
