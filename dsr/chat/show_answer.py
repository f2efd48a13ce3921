"""Shows one answer: while it is drawn, how it ended, how it was chosen, what it cost."""

from __future__ import annotations

from collections.abc import Generator

from dsr.chat.conversation import Conversation, Reply
from dsr.chat.logprobs import logprob_lines
from dsr.chat.summary import stats_line, verdict_lines
from dsr.store import paths, predictions
from dsr.ui.answer import AnswerDisplay
from dsr.ui.console import Console, show_error
from dsr.ui.interrupts import stopping
from dsr.ui.live_view import LiveView
from dsr.ui.progress import showing
from runtime.base.errors import DsrError
from runtime.base.events import Event, ignore
from runtime.base.run import Stop
from runtime.strategies.verdict import Verdict


def show_answer(
    conversation: Conversation, events: Generator[Event, None, None], console: Console, stop: Stop
) -> Reply:
    """Draw the answer by its `events`, from `conversation.ask` or `again`, and show it, then how it ended.

    Keeps the measured speed where one was predicted.
    """
    options = conversation.options
    display = AnswerDisplay(console, options.shown, form=options.form)
    strategy = options.strategy
    several = None if strategy is None or strategy.plain else strategy
    with stopping(stop):
        if several is None:
            with showing(console) as display.listen:
                conversation.meanwhile = display.listen
                display.show(events)
        else:
            view = LiveView(console, str(several), voting=several.kind.draws == "together", budget=several.budget)
            conversation.meanwhile = view
            view.show(events)
    conversation.meanwhile = ignore
    reply = conversation.last
    if reply is None:
        raise DsrError("no answer was drawn")
    if several is not None:
        display.show_text(reply.completion)
    _show_end(reply, conversation, display)
    if several is not None and reply.verdict is not None:
        _show_verdict(reply.verdict, reply, console)
    for line in logprob_lines(reply.tokens):
        console.say(line)
    if reply.run is not None:
        predictions.add(paths.predictions_file(), reply.run)
    if options.stats:
        console.say(stats_line(reply))
    return reply


def _show_end(reply: Reply, conversation: Conversation, display: AnswerDisplay) -> None:
    if reply.failure is not None:
        show_error(reply.failure)
    else:
        strategy = conversation.options.strategy
        why = "stopped"
        if strategy is not None and strategy.budget is not None and not reply.stopped:
            why = f"the budget of {strategy.budget} is used up"
        display.finish(reply.completion, conversation.params, why)


def _show_verdict(verdict: Verdict, reply: Reply, console: Console) -> None:
    if reply.stopped and reply.completion.finish_reason != "cancelled":
        console.say("stopped")
    for line in verdict_lines(verdict):
        console.say(line)
