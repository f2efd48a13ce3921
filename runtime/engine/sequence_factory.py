"""Turns requests into sequences: checks them, opens their samplers, tokenizes the texts that may be forced."""

from __future__ import annotations

from runtime.base.errors import Incompatible, TooLong
from runtime.engine.backend import Backend
from runtime.engine.constrained_answer import ConstrainedAnswer, surroundings
from runtime.engine.grammar import Grammar
from runtime.engine.sequence import Request, Sequence


class SequenceFactory:
    """Makes the sequences of one backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._known: dict[str, list[int]] = {}

    def check_fits(self, request: Request) -> None:
        """Raise TooLong for a prompt that leaves no room for an answer, or for the given one."""
        length, longest = len(request.prompt.tokens) + max(0, len(request.given) - 1), self._backend.longest
        if length >= longest:
            raise TooLong(length, longest, hint="shorten the prompt")

    def make(self, request: Request) -> Sequence:
        """A sequence that draws with its own sampler.

        Raises Incompatible if thoughts shall be extended, and the model does not end them with one token. Raises
        UsageError for a logit bias of a token that the model does not have, and for a grammar that cannot be used.
        """
        if request.params.extensions and (
            request.markers is None or len(self._backend.tokenize(request.markers.close)) != 1
        ):
            raise Incompatible("thoughts cannot be extended: this model does not end them with a token of its own")
        constrained = self._constrained(request, request.grammar) if request.grammar is not None else None
        seed = (request.params.seed + request.sample) % 2**32
        draw = self._backend.sampler(request.params, seed, request.prompt.tokens)
        return Sequence(request, draw, self._tokens_of, constrained)

    def _constrained(self, request: Request, grammar: Grammar) -> ConstrainedAnswer:
        constraint = self._backend.constraint(grammar, request.prompt.begun or "")
        markers = None if request.plain else request.markers
        ends = request.prompt.text.rstrip()
        answers = request.prompt.begun is not None or (
            markers is not None and ends.endswith((markers.close, markers.answer_open or markers.close))
        )
        around = surroundings(markers, not answers, self._tokens_of, self._backend.piece)
        return ConstrainedAnswer(constraint, around)

    def _tokens_of(self, text: str) -> list[int]:
        """The tokens of a text that may be written by force."""
        if text not in self._known:
            self._known[text] = self._backend.tokenize(text)
        return self._known[text]
