"""Draws the answers of a batch: several questions together, or one after another where a strategy draws samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from dsr.chat.batch.questions import Question
from dsr.chat.batch.results import Result
from dsr.chat.logprobs import TokensDrawn, chat_logprobs
from dsr.chat.summary import verdict_json
from dsr.chat.task import task_of
from dsr.loading.load import LoadedModel
from runtime.base.errors import DsrError, Lost
from runtime.base.events import Event, Interrupted, SampleFinished, value_of
from runtime.base.types import Completion, Message, SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.grammar import Grammar
from runtime.engine.prompt_options import PromptOptions
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.strategies.strategy import Strategy
from runtime.strategies.verdict import Verdict

# So many requests for each slot are in the engine: one draws, the others wait, so that no slot is empty.
_AHEAD = 2


@dataclass(frozen=True, slots=True)
class Batch:
    """How the questions of a batch are asked. `strategy` None: one sample each."""

    params: SamplingParams
    asked: PromptOptions
    strategy: Strategy | None = None
    grammar: Grammar | None = None

    def results(self, loaded: LoadedModel, questions: Mapping[str, Question]) -> Iterator[tuple[str, Result]]:
        """The results by the keys of their questions, in the order in which they end.

        A question that does not fit has a result with an error. A question that a stop ended has none, and nothing
        comes after it. Raises Lost if something went away that the model needs.
        """
        engine = Engine(
            loaded.backend, drafter=loaded.drafter, reports=loaded.reports, pass_progress=loaded.pass_progress
        )
        if self.strategy is None:
            yield from self._together(loaded, engine, questions)
        else:
            yield from self._in_turn(loaded, engine, self.strategy, questions)

    def _together(
        self, loaded: LoadedModel, engine: Engine, questions: Mapping[str, Question]
    ) -> Iterator[tuple[str, Result]]:
        coming, heard = iter(questions.items()), list[tuple[str, int, Event]]()
        tokens: dict[str, TokensDrawn] = {}
        more = True
        while more or engine.busy:
            while more and sum(engine.counts) < engine.slots * _AHEAD:
                key, question = next(coming, ("", None))
                more = question is not None
                if question is None:
                    break
                try:
                    request = self._request(loaded, question)
                except DsrError as error:
                    yield key, _failure(error)
                else:
                    tokens[key] = TokensDrawn()
                    engine.submit(request, partial(_note, heard, key, len(request.prompt.tokens)))
            engine.step()
            for key, prompt, event in heard:
                _raise_if_lost(event)
                tokens[key].hear(event)
                if isinstance(event, SampleFinished) and event.completion.finish_reason != "cancelled":
                    yield key, self._result(event.completion, prompt, None, tokens.pop(key))
            heard.clear()
            if engine.aborted is not None:
                return

    def _in_turn(
        self, loaded: LoadedModel, engine: Engine, strategy: Strategy, questions: Mapping[str, Question]
    ) -> Iterator[tuple[str, Result]]:
        for key, question in questions.items():
            try:
                request = self._request(loaded, question)
            except DsrError as error:
                yield key, _failure(error)
                continue
            build = partial(self._prompt, loaded)
            task = task_of(loaded, question.messages, request, engine, build, self.grammar)
            tokens = TokensDrawn()
            verdict = value_of(strategy.run(task), partial(_heard, tokens))
            if engine.aborted is not None:
                return
            if verdict.chosen is None:
                yield key, _failure(DsrError("no sample was drawn"))
            else:
                yield key, self._result(verdict.chosen, len(request.prompt.tokens), verdict, tokens)

    def _prompt(self, loaded: LoadedModel, said: Sequence[Message], thinking: bool | None) -> Prompt:
        asked = self.asked if thinking is None else replace(self.asked, thinking=thinking)
        return loaded.prompt(said, asked)

    def _request(self, loaded: LoadedModel, question: Question) -> Request:
        return replace(loaded.request(question.messages, self.params, self.asked), grammar=self.grammar)

    def _result(self, done: Completion, prompt: int, verdict: Verdict | None, tokens: TokensDrawn) -> Result:
        return {
            "answer": done.answer,
            "thinking": done.thinking,
            "finish_reason": done.finish_reason,
            "tokens": {"prompt": prompt, "thinking": done.thinking_tokens, "answer": done.answer_tokens},
            "seconds": round(done.seconds, 4),
            "verdict": verdict_json(verdict, self.params.seed) if verdict is not None else None,
            "logprobs": chat_logprobs(tokens.of(done.sample)) if self.params.top_logprobs is not None else None,
            "failure": None,
        }


def _note(heard: list[tuple[str, int, Event]], key: str, prompt: int, event: Event) -> None:
    heard.append((key, prompt, event))


def _heard(tokens: TokensDrawn, event: Event) -> None:
    tokens.hear(event)
    _raise_if_lost(event)


def _raise_if_lost(event: Event) -> None:
    if isinstance(event, Interrupted) and isinstance(event.error, Lost):
        raise event.error


def _failure(error: DsrError) -> Result:
    return {
        "answer": None,
        "thinking": None,
        "finish_reason": None,
        "tokens": None,
        "seconds": None,
        "verdict": None,
        "logprobs": None,
        "failure": error.message,
    }
