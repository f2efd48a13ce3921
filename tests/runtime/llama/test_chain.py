"""The engine's samplers: their order, what they remember of a text, and that a narrowed row draws the same."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.base.errors import UsageError
from runtime.base.types import SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.llama import LlamaBackend, OpenOptions
from runtime.llama.chain import Chain, ChainFactory
from runtime.llama.native import native
from runtime.llama.sampler import TopTokens, candidate_count, top_tokens
from tests.runtime.engine.speculation.drafting import Scripted
from tests.runtime.native_engine import GREEDY, SUM, WORD, batch, one, request

EVERYTHING: dict[str, Any] = {
    "temperature": 0.9,
    "min_p": 0.02,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.1,
    "repeat_penalty": 1.1,
    "dry_multiplier": 0.8,
    "xtc_probability": 0.5,
    "typical_p": 0.9,
    "top_n_sigma": 2.0,
    "dynatemp_range": 0.3,
    "logit_bias": ((5, 1.0), ("a", -1.0)),
}


@pytest.fixture(scope="module")
def backend(nano_path: Path) -> Iterator[LlamaBackend]:
    with LlamaBackend(nano_path, OpenOptions(context=2048, slots=3)) as opened:
        yield opened


@pytest.fixture
def factory(backend: LlamaBackend) -> Iterator[ChainFactory]:
    """Chains for rows of 50,000 tokens, with the spellings of nano."""
    made = ChainFactory(backend._vocab, 50_000, 2048, backend.tokenize)
    yield made
    made.close()


def steps(chain: Chain) -> list[str]:
    count = native.llama_sampler_chain_n(chain._chain)
    return [native.llama_sampler_name(native.llama_sampler_chain_get(chain._chain, n)).decode() for n in range(count)]


def test_the_order_is_that_of_llama_cpp(factory: ChainFactory) -> None:
    assert steps(factory.chain(SamplingParams(**EVERYTHING), 0)) == [
        "logit-bias", "penalties", "dry", "top-n-sigma", "top-k", "typical", "top-p", "min-p", "xtc", "temp-ext",
        "dist",
    ]  # fmt: skip


def test_settings_without_an_effect_have_no_step(factory: ChainFactory) -> None:
    neutral = {"penalty_last_n": 500, "dry_base": 2.0, "xtc_threshold": 0.3, "dynatemp_exponent": 2.0}
    chain = factory.chain(SamplingParams(**neutral), 0)  # type: ignore[arg-type]
    assert steps(chain) == ["top-k", "top-p", "temp-ext", "dist"]
    assert chain.plain
    unused = SamplingParams(presence_penalty=1.0, penalty_last_n=0, dry_multiplier=1.0, dry_penalty_last_n=0)
    assert factory.chain(unused, 0).plain


def test_only_greedy_without_changes_is_the_likeliest_token(factory: ChainFactory) -> None:
    assert factory.is_argmax(SamplingParams(temperature=0, min_p=0.1, top_n_sigma=1.0, dynatemp_range=0.5))
    for change in (
        {"repeat_penalty": 1.1},
        {"dry_multiplier": 0.5},
        {"xtc_probability": 0.5},
        {"typical_p": 0.5},
        {"logit_bias": ((1, 1.0),)},
        {"temperature": 0.1},
    ):
        assert not factory.is_argmax(SamplingParams(**{"temperature": 0, **change}))  # type: ignore[arg-type]


def drawn(chain: Chain, params: SamplingParams, *, narrowed: bool, count: int = 200) -> list[int]:
    """Tokens from random rows, each followed by the chain as a reply."""
    rows = np.random.default_rng(3)
    reply: list[int] = []
    for _ in range(count):
        logits = rows.normal(0, 3, 50_000).astype(np.float32)
        logits[rows.integers(0, 300, 20)] += 12  # a few tokens come again and again, as in a text
        most = candidate_count(params, len(logits))
        assert most is not None

        def top(more: int, logits: np.ndarray = logits, most: int = most) -> TopTokens:
            return top_tokens(logits, most + more)

        chain.follow(reply)
        reply.append(chain.draw_changed(logits, top if narrowed else None))
    return reply


@pytest.mark.parametrize(
    "change",
    [
        {"presence_penalty": 1.5},
        {"frequency_penalty": -0.7, "temperature": 1.5},
        {"repeat_penalty": 0.8, "penalty_last_n": 20},
        {"repeat_penalty": 1.3, "temperature": 0.0, "top_k": 0},
        {"presence_penalty": -3.0, "temperature": 0.0},
        {"dry_multiplier": 2.0, "dry_allowed_length": 1},
        {"logit_bias": ((7, 9.0), (8, -math.inf), (299, 4.0)), "top_k": 5},
        {"presence_penalty": 1.0, "xtc_probability": 0.5, "dynatemp_range": 0.5, "typical_p": 0.9, "min_p": 0.01},
        {"presence_penalty": 1.0, "penalty_last_n": 2000},
    ],
)
def test_a_narrowed_row_draws_what_the_whole_row_draws(factory: ChainFactory, change: dict[str, Any]) -> None:
    params = SamplingParams(**{"temperature": 0.9, **change})
    prompt = [*range(290, 300)] * 3
    texts = [drawn(factory.chain(params, 11, prompt), params, narrowed=narrowed) for narrowed in (True, False)]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 20


def penalised(logits: np.ndarray, text: list[int], params: SamplingParams) -> np.ndarray:
    """llama_sampler_penalties_apply in numpy."""
    changed = logits.astype(np.float64)
    for token, count in Counter(text[-params.penalty_last_n :]).items():
        by = params.repeat_penalty if changed[token] <= 0 else 1 / params.repeat_penalty
        changed[token] = changed[token] * by - count * params.frequency_penalty - params.presence_penalty
    return changed


def test_penalties_count_prompt_and_reply_of_the_real_engine(backend: LlamaBackend) -> None:
    params = SamplingParams(
        temperature=0, presence_penalty=1.0, frequency_penalty=0.5, repeat_penalty=1.2, penalty_last_n=24
    )
    asking = request(backend, SUM)
    prompt = [*asking.prompt.tokens]
    draw = backend.sampler(params, 0, prompt)
    reply: list[int] = []
    pending, position = prompt, 0
    for _ in range(60):
        backend.decode(batch(pending, position))
        row = len(pending) - 1
        position += len(pending)
        token = draw(row, reply)
        assert token == int(penalised(backend._logits(row), prompt + reply, params).argmax())
        reply.append(token)
        pending = [token]
    backend.trim(0, 0)
    plain = one(backend, SUM).tokens
    assert reply[: len(plain)] != [*plain]


def test_dry_breaks_a_loop_that_greedy_never_leaves(factory: ChainFactory) -> None:
    """Token 1 follows 2, 2 follows 3, 3 follows 1 for ever, each but a little ahead of token 4."""

    def text(**change: Any) -> list[int]:
        chain = factory.chain(SamplingParams(temperature=0, **change), 0, [4, 3, 1, 2])
        reply: list[int] = []
        following = {2: 3, 3: 1, 1: 2, 4: 2}
        for _ in range(12):
            logits = np.zeros(50_000, np.float32)
            logits[following[reply[-1] if reply else 2]], logits[4] = 5.0, 3.0
            chain.follow(reply)
            reply.append(chain.draw_changed(logits, None))
        return reply

    assert 4 in text(dry_multiplier=1.0, dry_base=2.0)
    assert 4 not in text(dry_multiplier=1.0, dry_base=2.0, dry_penalty_last_n=2)


def test_breakers_of_any_script_are_possible(backend: LlamaBackend) -> None:
    for breakers in ((), ("\n",), ("é", "日本", "🙂🙂"), ("x" * 40,), ("\x7f",)):
        params = SamplingParams(temperature=0, dry_multiplier=1.0, dry_sequence_breakers=breakers, max_tokens=40)
        assert len(one(backend, WORD, params).tokens) > 3


def test_a_breaker_ends_what_dry_counts_as_a_repetition(factory: ChainFactory, backend: LlamaBackend) -> None:
    line = backend.tokenize("\n")[0]
    text = [11, 12, line, 13, 14, 11, 12, line]
    logits = np.zeros(50_000, np.float32)
    logits[13], logits[20] = 5.0, 4.5

    def next_token(*breakers: str) -> int:
        params = SamplingParams(temperature=0, dry_multiplier=1.0, dry_sequence_breakers=breakers)
        return factory.chain(params, 0, text).draw_changed(logits, None)

    assert (next_token(), next_token("\n")) == (20, 13)


def test_a_forbidden_token_is_never_drawn_and_a_wanted_one_is(backend: LlamaBackend) -> None:
    first = one(backend, WORD).tokens[0]
    for bias, found in ((-math.inf, False), (-100.0, False), (100.0, True)):
        params = SamplingParams(temperature=0, max_tokens=8, logit_bias=((first, bias),))
        assert (first in one(backend, WORD, params).tokens) is found


def test_a_text_biases_all_tokens_that_spell_it(backend: LlamaBackend) -> None:
    spelled = {*backend.tokenize("</think>igloo")}
    assert len(spelled) > 2
    params = SamplingParams(logit_bias=(("</think>igloo", -2.0), (min(spelled), -1.0)))
    biases = backend._chains._biases(params)
    assert biases == {**dict.fromkeys(spelled, -2.0), min(spelled): -3.0}


def test_a_bias_of_a_token_that_does_not_exist_is_refused(backend: LlamaBackend) -> None:
    with pytest.raises(UsageError, match="there is no token 640 in a vocabulary of 640"):
        backend.sampler(SamplingParams(logit_bias=((640, 1.0),)), 0)


def test_xtc_draws_less_likely_tokens(factory: ChainFactory) -> None:
    logits = np.full(50_000, -20, np.float32)
    logits[[3, 4, 5]] = 3.0, 2.9, 2.8
    chain = factory.chain(SamplingParams(xtc_probability=1.0, xtc_threshold=0.1, top_p=1.0), 0)
    assert {chain.draw(top_tokens(logits, 40)) for _ in range(50)} == {5}


def test_a_small_vocabulary_has_fewer_likeliest_than_top_k_keeps(factory: ChainFactory) -> None:
    chain = factory.chain(SamplingParams(), 0)
    assert {chain.draw(top_tokens(np.zeros(3, np.float32), 40)) for _ in range(50)} == {0, 1, 2}


PENALISED = SamplingParams(
    temperature=0.8, repeat_penalty=1.1, presence_penalty=0.5, dry_multiplier=0.5, seed=4, max_tokens=80
)


@pytest.mark.parametrize("params", [PENALISED, SamplingParams(temperature=0, repeat_penalty=1.15, max_tokens=80)])
def test_drafts_do_not_change_a_penalised_text(backend: LlamaBackend, nano_path: Path, params: SamplingParams) -> None:
    asked = Request(request(backend, SUM).prompt, params)
    begun = len(asked.prompt.tokens)
    [alone] = Engine(backend).generate([asked])

    def guess(text: list[int]) -> list[int]:
        following = [*alone.tokens[len(text) - begun :]][:6]
        return [*following[:3], *(token ^ 1 for token in following[3:])]  # three right ones, then wrong ones

    with LlamaBackend(nano_path, OpenOptions(context=2048, drafted=8)) as drafting:
        engine = Engine(drafting, drafter=Scripted(guess))
        [text] = engine.generate([asked])
        made = engine.take_drafts()
    assert text.tokens == alone.tokens
    assert made is not None and 20 < made.accepted < made.drafted - 20


def test_each_of_several_samples_has_its_own_history(backend: LlamaBackend) -> None:
    prompts = [request(backend, question, PENALISED, number) for number, question in enumerate((SUM, WORD, SUM))]
    together = Engine(backend).generate(prompts)
    alone = [Engine(backend).generate([each])[0] for each in prompts]
    assert [each.tokens for each in together] == [each.tokens for each in alone]
    assert all(one.tokens != other.tokens for one, other in pairwise(together))


def test_a_text_that_continues_in_another_request_keeps_its_history(backend: LlamaBackend) -> None:
    """As beams and trees continue a text: the tokens so far are part of the next prompt."""
    params = SamplingParams(temperature=0, repeat_penalty=1.5, presence_penalty=2.0, max_tokens=70)
    prompt = request(backend, SUM).prompt.tokens
    [whole] = Engine(backend).generate([Request(Prompt(prompt), params)])
    [rest] = Engine(backend).generate([Request(Prompt((*prompt, *whole.tokens[:15])), params)])
    assert rest.tokens[:55] == whole.tokens[15:]
    assert whole.tokens != one(backend, SUM, GREEDY).tokens[:70]
