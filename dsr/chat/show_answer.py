"""Showing one answer from its first token to what it cost."""

from __future__ import annotations

from collections.abc import Generator

from dsr.chat.conversation import Conversation, Reply
from dsr.chat.options import ChatOptions
from dsr.chat.summary import stats_line, verdict_lines
from dsr.store import paths, predictions
from dsr.ui.answer import AnswerDisplay
from dsr.ui.console import Console, show_error
from dsr.ui.interrupts import stopping
from dsr.ui.live_view import LaneDisplay
from dsr.ui.progress import showing
from runtime.base.errors import DsrError
from runtime.base.events import Event
from runtime.base.run import Stop


def show_answer(
    conversation: Conversation, events: Generator[Event, None, None], console: Console, stop: Stop, options: ChatOptions
) -> Reply:
    """Draw what `conversation.ask` or `again` gives and show it in the user's options."""
    display = AnswerDisplay(console, options.shown)
    strategy = conversation.strategy
    several = None if strategy is None or strategy.plain else strategy
    with stopping(stop):
        if several is None:
            with showing(console) as display.listen:
                display.show(events)
        else:
            LaneDisplay(console, str(several), voting=several.kind.draws == "together").show(events)
    reply = conversation.last
    if reply is None:
        raise DsrError("no answer was drawn")
    if several is not None:
        display.show_text(reply.completion)
    if reply.failure is not None:
        show_error(reply.failure)
    else:
        display.finish(reply.completion, conversation.params)
    if several is not None and reply.verdict is not None:
        if reply.stopped and reply.completion.finish_reason != "cancelled":
            console.say("stopped")
        for line in verdict_lines(reply.verdict):
            console.say(line)
    if reply.run is not None:
        predictions.keep(paths.predictions_file(), reply.run)
    if options.stats:
        console.say(stats_line(reply))
    return reply
