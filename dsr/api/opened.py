"""The parts of an open model, and how a program's wishes become requests of its engine."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from dsr.api.options import AnswerOptions, Question
from dsr.api.results import Text
from dsr.chat.given_files import parted, with_files
from dsr.chat.task import task_of
from dsr.loading.embedder import embedder_beside, load_embedder
from dsr.loading.load import LoadedModel, load
from dsr.loading.options import LoadOptions
from dsr.models import library
from dsr.models.model import Model
from dsr.models.sampling import SamplingRequest
from runtime.base.errors import Incompatible, Lost, UsageError
from runtime.base.events import Interrupted, SampleFinished, TextDrawn
from runtime.base.run import Run
from runtime.base.types import Completion, Message
from runtime.engine.embedding import TextEmbedder
from runtime.engine.engine import Engine
from runtime.engine.grammar import Grammar
from runtime.engine.prompt_options import PromptOptions
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.gguf.embedding import made_for_embeddings
from runtime.strategies.task import Task

_SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "repeat_penalty", "seed", "max_tokens",
    "think_budget", "stop",
)  # fmt: skip


@dataclass(slots=True)
class Opened:
    """An open model. `answering` is None for one that was made for embeddings; the `embedder` opens when needed."""

    model: Model
    run: Run
    stack: ExitStack
    answering: Answering | None = None
    embedder: TextEmbedder | None = None

    def for_answers(self) -> Answering:
        """Raises Incompatible."""
        if self.answering is None:
            raise Incompatible(f"{self.model.name} was made for embeddings: it answers nothing", hint="call embed")
        return self.answering

    def for_vectors(self) -> TextEmbedder:
        """Raises Incompatible, DoesNotFit."""
        if self.embedder is None:
            self.embedder = embedder_beside(self.for_answers().loaded, self.run)
            self.stack.callback(self.embedder.close)
        return self.embedder


def opened(name: str, ctx_size: int | None, samples: int, kv_type: str, run: Run) -> Opened:
    """Open a model to answer, or to embed if it was made for that. Raises as `dsr.api.load`."""
    if samples < 1:
        raise UsageError(f"at least 1 sample is drawn at once, not {samples}")
    model = library.find(name)
    with ExitStack() as stack:
        if made_for_embeddings(model.card):
            loaded_embedder = stack.enter_context(load_embedder(model, ctx_size, run))
            return Opened(model, run, stack.pop_all(), embedder=loaded_embedder.embedder)
        options = LoadOptions(context=ctx_size, kv_type=kv_type, slots=samples)
        loaded = stack.enter_context(load(model, options, run))
        engine = Engine(
            loaded.backend, reports=loaded.reports, pass_progress=loaded.pass_progress, meanwhile=run.listen
        )
        return Opened(model, run, stack.pop_all(), Answering(loaded, engine))


@dataclass(frozen=True, slots=True)
class Answering:
    """A model that answers, and its engine."""

    loaded: LoadedModel
    engine: Engine

    def request(self, question: Question, options: AnswerOptions) -> Request:
        """One sample of the answer. Raises UsageError, NotFound for a file that is not there, DoesNotFit."""
        return self._request(messages(question, options), options)

    def task(self, question: Question, options: AnswerOptions, *, long: bool = False) -> Task:
        """The question for a strategy; `long`: its files are documents, not part of a prompt. Raises as `request`."""
        said, asked = messages(question, options), self._prompt_options(options)
        said, documents = parted(said) if long else (said, ())
        request = self._request(said, options)

        def build(changed: Sequence[Message], thinking: bool | None) -> Prompt:
            wished = asked if thinking is None else replace(asked, thinking=thinking)
            return self.loaded.prompt(changed, self.loaded.chat_format.known(wished))

        return task_of(self.loaded, said, request, self.engine, build, request.grammar, documents)

    def draw(self, request: Request) -> Generator[Text, None, Completion]:
        """Draw one sample, yielding its text. Raises Lost."""
        completion: Completion | None = None
        for event in self.engine.stream([request]):
            if isinstance(event, TextDrawn):
                yield Text(event.part, event.text)
            elif isinstance(event, SampleFinished):
                completion = event.completion
            elif isinstance(event, Interrupted) and isinstance(event.error, Lost):
                raise event.error
        assert completion is not None  # each request ends with one
        return completion

    def for_score(self, prompt: Question, texts: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """The tokens of the prompt, and those of each text behind it."""
        if not isinstance(prompt, str):
            made = self.loaded.prompt(prompt, self.loaded.chat_format.known(PromptOptions(thinking=False)))
            return list(made.tokens), [self.loaded.tokens(each) for each in texts]
        begun = self.loaded.tokens(prompt, begins=True)
        read = []
        for text in texts:
            # A token may span the end of the prompt, if both are read as one text.
            whole = self.loaded.tokens(prompt + text, begins=True)
            read.append(whole[len(begun) :] if whole[: len(begun)] == begun else self.loaded.tokens(text))
        return begun, read

    def _prompt_options(self, options: AnswerOptions) -> PromptOptions:
        asked = PromptOptions(thinking=options.get("think"), effort=options.get("effort"))
        return self.loaded.chat_format.known(asked)

    def _request(self, said: Sequence[Message], options: AnswerOptions) -> Request:
        if unknown := options.keys() - AnswerOptions.__annotations__.keys():
            raise UsageError(f"there is no option {min(unknown)!r}", hint=", ".join(AnswerOptions.__annotations__))
        given = {name: value for name, value in options.items() if name in _SAMPLING}
        given["stop"] = tuple(options.get("stop", ()))
        params = SamplingRequest(**given).applied_to(self.loaded.model.sampling.params)  # type: ignore[arg-type]
        schema = options.get("schema")
        grammar = None if schema is None else Grammar("json_schema", schema)
        request = self.loaded.request(said, params, self._prompt_options(options))
        return replace(request, grammar=grammar, keep_reply=True)


def messages(question: Question, options: AnswerOptions) -> list[Message]:
    """The conversation that the model reads: system prompt, messages, files before the last question."""
    said = [Message("user", question)] if isinstance(question, str) else list(question)
    if not said or said[-1].role != "user":
        raise UsageError("a conversation ends with a question of the user", hint='add Message("user", "...")')
    if files := options.get("files"):
        asked = with_files(tuple(Path(each) for each in files), said[-1].content)
        said[-1] = Message("user", asked or "")
    if system := options.get("system"):
        said.insert(0, Message("system", system))
    return said
