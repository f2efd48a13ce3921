"""The rounds of one question: an answer, its calls, their results, the next answer, until one has no calls."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial

from dsr.chat.conversation import Conversation, Reply
from dsr.chat.show_answer import show_answer
from dsr.chat.tools.calls import CallDone, Toolbox
from dsr.chat.tools.results import shortened, tokens_for_result
from dsr.ui.console import Console, show_error
from runtime.base.errors import DsrError
from runtime.base.events import Event
from runtime.base.run import Stop
from runtime.base.types import Message, ToolCall


@dataclass(frozen=True, slots=True)
class Round:
    """An answer, and how the calls in it ended."""

    reply: Reply
    calls: tuple[CallDone, ...] = ()

    @property
    def messages(self) -> tuple[Message, ...]:
        """The results as the model reads them."""
        return tuple(each.message for each in self.calls)


def answer_in_rounds(
    conversation: Conversation,
    events: Generator[Event, None, None],
    console: Console,
    stop: Stop,
    toolbox: Toolbox | None,
) -> tuple[Round, ...]:
    """Draw and show an answer by its `events`, run its calls, and let the model go on with their results.

    Ctrl-C inside a call tells the model; anywhere else it ends the rounds. After the last round the model is told to
    answer without calls, once.
    """
    rounds: list[Round] = []
    while True:
        try:
            reply = show_answer(conversation, events, console, stop)
        except DsrError as error:
            if not rounds:
                raise
            show_error(error)  # the calls so far had effects: they are kept
            return tuple(rounds)
        calls = reply.completion.calls
        if toolbox is None or not calls:
            return (*rounds, Round(reply))
        if reply.completion.finish_reason != "stop":
            console.say("the answer ended inside its calls: none of them runs")
            done, more = _none_run(toolbox, calls, "The answer was cut before its end: this call did not run."), False
        elif len(rounds) >= toolbox.rounds:
            console.say(f"{toolbox.rounds} rounds of calls for one question: no more calls (--tool-rounds)")
            more = len(rounds) == toolbox.rounds
            done = _none_run(toolbox, calls, "No more calls are allowed for this question. Answer now, without calls.")
        else:
            done = toolbox.run(calls, _shortener(conversation, reply), stop)
            more = not stop.take()
        rounds.append(Round(reply, done))
        if not more:
            conversation.turns += rounds[-1].messages
            return tuple(rounds)
        events = conversation.go_on(rounds[-1].messages)


def _shortener(conversation: Conversation, reply: Reply) -> Callable[[str], str]:
    """Cuts results so that the next answer has room."""
    backend, done = conversation.loaded.backend, reply.completion
    most = tokens_for_result(backend.longest, reply.prompt_tokens + len(done.tokens), len(done.calls))
    return partial(shortened, most=most, count=lambda text: len(backend.tokenize(text, add_bos=False)))


def _none_run(toolbox: Toolbox, calls: Sequence[ToolCall], why: str) -> tuple[CallDone, ...]:
    return tuple(CallDone(call, toolbox.find(call.name), "cancelled", why) for call in calls)
