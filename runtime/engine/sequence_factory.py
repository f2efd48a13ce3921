"""Turns requests into sequences: checks them, opens their samplers, tokenizes the texts that may be forced."""

from __future__ import annotations

from runtime.base.errors import DoesNotFit, Incompatible
from runtime.engine.backend import Backend
from runtime.engine.markers import EXTENSION, ThinkingMarkers
from runtime.engine.sequence import Request, Sequence


class SequenceFactory:
    """Makes the sequences of one backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._closings: dict[ThinkingMarkers, list[int]] = {}

    def check_fits(self, request: Request) -> None:
        """Raise DoesNotFit for a prompt that leaves no room for an answer."""
        length, longest = len(request.prompt.tokens), self._backend.longest
        if length >= longest:
            raise DoesNotFit(
                f"the prompt is {length} tokens long, and {longest} is the most for a prompt with its answer",
                hint="shorten the prompt",
            )

    def make(self, request: Request) -> Sequence:
        """A sequence that draws with its own sampler.

        Raises Incompatible if thoughts shall be extended, and the model does not end them with one token. Raises
        UsageError for a logit bias of a token that the model does not have.
        """
        extension: list[int] = []
        if request.params.extensions:
            if request.markers is None or len(self._backend.tokenize(request.markers.close)) != 1:
                raise Incompatible("thoughts cannot be extended: this model does not end them with a token of its own")
            extension = self._backend.tokenize(EXTENSION)
        seed = (request.params.seed + request.sample) % 2**32
        draw = self._backend.sampler(request.params, seed, request.prompt.tokens)
        return Sequence(request, draw, self._closing, extension)

    def _closing(self, markers: ThinkingMarkers) -> list[int]:
        """The tokens that end a thought by force."""
        if markers not in self._closings:
            self._closings[markers] = self._backend.tokenize(markers.forced_close)
        return self._closings[markers]
