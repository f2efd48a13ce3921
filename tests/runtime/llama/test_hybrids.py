"""The tiny random models of every kind of memory: that they load, and that they show a state that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.base.types import SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.sequence import Request
from runtime.engine.speculation import Drafter
from runtime.engine.template import Prompt
from runtime.gguf.engine_lists import check_answers
from runtime.gguf.reader import read_card
from runtime.llama import LlamaBackend
from tests.hybrids import KINDS
from tests.runtime.engine.speculation.drafting import Scripted
from tests.runtime.native_engine import asked, small, try_in_child

QUESTION = "The sum of one and two is three, and then some more. " * 12


@pytest.mark.parametrize("kind", KINDS)
def test_a_tiny_model_passes_the_header_check_and_the_trial(kind: str, hybrid_path: Callable[[str], Path]) -> None:
    card = read_card(hybrid_path(kind))
    check_answers(card)
    assert (card.architecture, card.context_length, card.layers) == (kind, 8192, 4)
    try_in_child(card.path)


@pytest.mark.parametrize("kind", KINDS)
def test_an_early_token_changes_the_greedy_text_much_later(kind: str, hybrid_path: Callable[[str], Path]) -> None:
    with small(hybrid_path(kind), context=512) as backend:
        tokens = backend.tokenize(asked(QUESTION))
        changed = [*tokens[:5], tokens[5] + 1, *tokens[6:]]
        said = [_greedy(kept, backend) for kept in (tokens, changed, tokens)]
        assert len(tokens) > 200
        assert said[0] != said[1]
        assert said[0] == said[2]
        # Its words are the same tokens again when they are read, so that a conversation goes on behind an answer.
        assert backend.tokenize(b"".join(map(backend.piece, said[0])).decode()) == list(said[0])


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_drafts_leave_no_trace_in_any_kind_of_memory(kind: str, hybrid_path: Callable[[str], Path]) -> None:
    with small(hybrid_path(kind), context=512, drafted=4) as backend:
        tokens = backend.tokenize(asked(QUESTION))
        plain = _greedy(tokens, backend)

        def guess(text: list[int]) -> list[int]:
            done = len(text) - len(tokens)
            return [token + (done % 3 == 1 and place == 2) for place, token in enumerate(plain[done : done + 4])]

        drafter = Scripted(guess)
        assert _greedy(tokens, backend, drafter) == plain


def _greedy(tokens: list[int], backend: LlamaBackend, drafter: Drafter | None = None) -> tuple[int, ...]:
    params = SamplingParams(temperature=0, max_tokens=32)
    engine = Engine(backend, drafter=drafter)
    [completion] = engine.generate([Request(Prompt(tuple(tokens)), params)])
    drafts = engine.take_drafts()
    assert drafts is None or (drafts.off is None and 0 < drafts.accepted < drafts.drafted)
    assert len(completion.tokens) == 32
    return completion.tokens
