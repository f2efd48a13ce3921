"""The hidden states of texts: what a model knows where a text ends, as a value head reads it.

A hidden state is that of the last layer behind the last norm, the input of the output matrix; transformers calls it
`last_hidden_state`. A text is a request of the engine (`Request.hidden`). The engine reads it together with other
samples, and starts at its longest cached prefix: the state behind a reply that was just drawn costs one token.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from runtime.base.errors import Aborted
from runtime.base.events import Event, Interrupted, SampleFinished
from runtime.base.types import SamplingParams
from runtime.engine.likelihood import Streams
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt

_PARAMS = SamplingParams(temperature=0)  # nothing is drawn


def hidden_states(engine: Streams, texts: Sequence[Sequence[int]]) -> Generator[Event, None, list[tuple[float, ...]]]:
    """For each text, which has at least one token, the hidden state of its last token; yields the engine's events.

    The last bits depend on what is computed together. Raises TooLong for a text that is longer than a sequence may be,
    Aborted after a stop or where the budget refuses it, Lost if something went away that the model needs.
    """
    different = list(dict.fromkeys(tuple(text) for text in texts))
    requests = [
        Request(Prompt(text), _PARAMS, sample=number, plain=True, hidden=True) for number, text in enumerate(different)
    ]
    found: dict[tuple[int, ...], tuple[float, ...]] = {}
    for event in engine.stream(requests):
        if isinstance(event, Interrupted):
            raise event.error
        if not isinstance(event, SampleFinished):
            yield event
            continue
        if not event.completion.hidden:
            raise Aborted
        found[different[event.completion.sample]] = event.completion.hidden
    return [found[tuple(text)] for text in texts]
