"""An open model for programs: chat, stream, vote, score, embed, cancel, close."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack, overload

from dsr.api.options import AnswerOptions, Question
from dsr.api.results import Answer, Decision, Score, Text
from runtime.base.errors import Aborted, Lost, UsageError
from runtime.base.events import Event, Interrupted, Listener, ignore, value_of
from runtime.base.run import Run
from runtime.base.types import Completion

if TYPE_CHECKING:
    from dsr.api.opened import Opened


def load(
    model: str = "nano",
    *,
    ctx_size: int | None = None,
    samples: int = 8,
    threads: int | None = None,
    kv_type: str = "f16",
    listen: Listener = ignore,
) -> Model:
    """Open a model: a name that `dsr list` shows, such as "qwen3:8b", or the path of a GGUF file.

    `ctx_size` is in tokens; without it the model and the memory decide. `samples`: the most that are drawn at once.
    `threads`: without it, the measured best. `kv_type`: the type of the KV cache. `listen` hears progress and notices.
    A model that was made for embeddings is opened to embed, and only `embed` works.

    Raises NotFound with the command that downloads the model, BadModelFile, Incompatible, DoesNotFit, UsageError.
    """
    from dsr.api.opened import opened

    return Model(opened(model, ctx_size, samples, kv_type, Run(listen=listen, threads=threads)))


class Model:
    """An open model, from `load`. Use it as a context manager, or call `close`.

    Threads may share it: their calls take turns. `cancel` may be called from any thread at any time.
    """

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._lock = threading.RLock()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the memory of the model. Later calls raise UsageError."""
        with self._lock:
            self._closed = True
            self._opened.stack.close()

    def cancel(self) -> None:
        """End the call in progress, from another thread. An answer keeps its text; other calls raise Aborted."""
        self._opened.run.stop.set()

    @property
    def name(self) -> str:
        """What every command accepts for this model, such as "nano", "org/repo:Q4_K_M" or a path."""
        return self._opened.model.reference

    @property
    def context(self) -> int:
        """The most tokens of a prompt with its answer; for a model that embeds, of a text."""
        answering, embedder = self._opened.answering, self._opened.embedder
        return answering.loaded.backend.longest if answering is not None else embedder.longest if embedder else 0

    def count_tokens(self, text: str) -> int:
        """The number of tokens of a text alone; a prompt adds a few."""
        with self._lock:
            self._begin()
            if self._opened.answering is None:
                return len(self._opened.for_vectors().tokenize(text))
            return len(self._opened.answering.loaded.tokens(text))

    def chat(self, question: Question, **options: Unpack[AnswerOptions]) -> Answer:
        """Answer a question, or a conversation that ends with one.

        Raises DoesNotFit for a question that is longer than the context. Raises UsageError for options that cannot be
        used, and Lost if something went away that the model needs.
        """
        return self.stream(question, **options).answer

    def stream(self, question: Question, **options: Unpack[AnswerOptions]) -> Stream:
        """As `chat`, piece by piece. Nothing is drawn before the first piece is asked for."""
        with self._lock:
            self._begin()
            answering = self._opened.for_answers()
            request = answering.request(question, options)
            return Stream(answering.draw(request), len(request.prompt.tokens), self._lock, self._check_open)

    def vote(self, question: Question, n: int = 8, **options: Unpack[AnswerOptions]) -> Decision:
        """Draw up to `n` answers, and take the one that most of them agree on; stops when that is clear."""
        return self.solve(question, "vote", {"n": n}, **options)

    def solve(
        self,
        question: Question,
        strategy: str,
        settings: Mapping[str, str | float] | None = None,
        *,
        listen: Listener = ignore,
        **options: Unpack[AnswerOptions],
    ) -> Decision:
        """Answer with a strategy of `dsr chat --list-strategies` and its settings. `listen` hears what it does.

        After `cancel` it decides with what it has. Raises UsageError for a strategy, a setting or an option that cannot
        be used, and what `chat` raises.
        """
        from runtime.strategies.strategy import find

        chosen = find(strategy).configured([f"{key}={_setting(value)}" for key, value in (settings or {}).items()])
        with self._lock:
            self._begin()
            task = self._opened.for_answers().task(question, options, long=chosen.kind.long)
            stopped = False

            def hear(event: Event) -> None:
                nonlocal stopped
                if isinstance(event, Interrupted):
                    if isinstance(event.error, Lost):
                        raise event.error
                    stopped = True
                listen(event)

            verdict = value_of(chosen.run(task), hear)
            return Decision.of(verdict, len(task.prompt.tokens), stopped=stopped)

    @overload
    def score(self, prompt: Question, continuation: str) -> Score: ...
    @overload
    def score(self, prompt: Question, continuation: list[str] | tuple[str, ...]) -> list[Score]: ...
    def score(self, prompt: Question, continuation: str | Sequence[str]) -> Score | list[Score]:
        """How likely the model finds a text after a prompt; for several texts a list, and the prompt is read once.

        A prompt that is a text is continued as it stands; special tokens in it are text. A list of messages is written
        as the chat template has it. The continuation is then the answer, without a thought before it. Raises
        DoesNotFit for texts that are longer than the context, UsageError for an empty prompt, Aborted after `cancel`.
        """
        from runtime.engine.likelihood import likelihoods

        with self._lock:
            self._begin()
            answering = self._opened.for_answers()
            texts = [continuation] if isinstance(continuation, str) else continuation
            scores = [Score(each) for each in likelihoods(answering.engine, *answering.for_score(prompt, texts))]
        return scores[0] if isinstance(continuation, str) else scores

    @overload
    def embed(self, text: str, dimensions: int | None = None) -> list[float]: ...
    @overload
    def embed(self, text: list[str] | tuple[str, ...], dimensions: int | None = None) -> list[list[float]]: ...
    def embed(self, text: str | Sequence[str], dimensions: int | None = None) -> list[float] | list[list[float]]:
        """The vector of a text, of length 1; for several texts a list. `dimensions` keeps its first numbers.

        Raises Incompatible for a model that gives no vectors, DoesNotFit for a text that is too long, Aborted after
        `cancel`.
        """
        with self._lock:
            self._begin()
            embedder = self._opened.for_vectors()
            texts = [text] if isinstance(text, str) else text
            found = embedder.embed([embedder.tokenize(each) for each in texts], dimensions)
        vectors = [list(each) for each in found]
        return vectors[0] if isinstance(text, str) else vectors

    def _begin(self) -> None:
        """A call begins. A `cancel` that came after the last one ended is forgotten."""
        self._check_open()
        self._opened.run.stop.take()

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the model is closed", hint="open it again with dsr.api.load")


class Stream(Iterator[Text]):
    """An answer while it is drawn. `close` ends it early."""

    def __init__(
        self,
        drawing: Generator[Text, None, Completion],
        prompt_tokens: int,
        lock: threading.RLock,
        check_open: Callable[[], None],
    ) -> None:
        self._drawing = drawing
        self._prompt_tokens = prompt_tokens
        self._lock = lock
        self._check_open = check_open
        self._answer: Answer | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Text:
        with self._lock:
            self._check_open()
            try:
                return next(self._drawing)
            except StopIteration as end:
                if isinstance(end.value, Completion):
                    self._answer = Answer.of(end.value, self._prompt_tokens)
                raise StopIteration from None

    @property
    def answer(self) -> Answer:
        """The whole answer. What is missing of it is drawn now. Raises Aborted after `close`."""
        if self._answer is None:
            for _ in self:
                pass
        if self._answer is None:
            raise Aborted("the stream was closed before its answer ended")
        return self._answer

    def close(self) -> None:
        """Draw no more of this answer."""
        with self._lock:
            self._drawing.close()


def _setting(value: str | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
