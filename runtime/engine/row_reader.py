"""What a row of a decode tells about a reply that is not drawn: the score of a given token, or a hidden state."""

from __future__ import annotations

from runtime.engine.backend import Backend
from runtime.engine.sequence import Sequence


def take_row(backend: Backend, sequence: Sequence, row: int, now: float) -> None:
    """Take the next token of a given reply with its statistics, or the hidden state of the prompt, from a row.

    Behind the last one `finish_reason` is set.
    """
    request = sequence.request
    if request.hidden:
        sequence.first_drawn = now
        sequence.take_hidden(backend.hidden_state(row))
        return
    if not sequence.tokens:
        sequence.first_drawn = now
        sequence.rivals = [backend.logprobs(row, each, 0).drawn for each in request.rivals]
    sequence.take_given(backend.statistics(row, request.given[len(sequence.tokens)]))
