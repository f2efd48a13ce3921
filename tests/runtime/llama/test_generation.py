"""What the real engine draws from the embedded model: alone, in company, with a budget for its thought."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from runtime.base.events import SampleFinished, TextDrawn
from runtime.base.types import SamplingParams
from runtime.engine.engine import Engine
from runtime.llama import LlamaBackend
from runtime.llama.bindings import native
from runtime.llama.native import log
from runtime.llama.sampler import top_tokens
from tests.fakes import logprobs
from tests.runtime.native_engine import DAY, SUM, THOUGHT_OF_SUM, WORD, asked, batch, one, request, row_of, small

# Drawing


def test_a_thought_and_an_answer(backend: LlamaBackend) -> None:
    completion = one(backend, SUM)
    assert completion.thinking == THOUGHT_OF_SUM
    assert completion.answer == "The answer is \\boxed{933}."
    assert completion.finish_reason == "stop"
    assert completion.thought_closed_by == "model"


def test_greedy_text_and_logprobs_are_those_of_the_high_level_class(backend: LlamaBackend, nano_path: Path) -> None:
    import llama_cpp  # the package logs in its own way from here on

    native.llama_log_set(log._callback, None)
    # It switches flash attention off by itself; the low-level default is "auto", which is on.
    reference = llama_cpp.Llama(
        str(nano_path), n_ctx=512, n_threads=1, n_threads_batch=1, flash_attn=True, logits_all=True, verbose=False
    )
    try:
        for question in (SUM, WORD, DAY):
            ours = one(backend, question, SamplingParams(temperature=0, max_tokens=120, statistics=True))
            prompt = backend.tokenize(asked(question))
            [theirs] = reference.create_completion(prompt, temperature=0, max_tokens=120, logprobs=1)["choices"]
            assert b"".join(map(backend.piece, ours.tokens)).decode() == theirs["text"]
            assert ours.finish_reason == theirs["finish_reason"]
            expected = theirs["logprobs"]["token_logprobs"][: len(ours.tokens)]
            # The prompt is split otherwise, which moves the last bits.
            assert logprobs(ours) == pytest.approx(expected, abs=0.02)
    finally:
        reference.close()


def test_a_logprob_is_the_log_softmax_of_the_raw_logits(backend: LlamaBackend) -> None:
    tokens = backend.tokenize(asked(SUM))
    backend.decode(batch(tokens))
    logits = row_of(backend, len(tokens) - 1)
    expected = logits - np.log(np.sum(np.exp(logits)))
    ours = [backend.statistics(len(tokens) - 1, token).logprob for token in range(640)]
    assert ours == pytest.approx(expected, abs=1e-5)
    assert sum(np.exp(ours)) == pytest.approx(1, abs=1e-5)
    statistics = backend.statistics(len(tokens) - 1, 0)
    assert statistics.confidence == pytest.approx(-np.sort(expected)[-20:].mean(), abs=1e-5)
    assert statistics.certainty == pytest.approx(-expected.mean() - np.log(640), abs=1e-5)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=1.0, top_p=1.0),
        SamplingParams(top_k=5, top_p=0.9, min_p=0.05),
        SamplingParams(temperature=2.0, top_k=128, top_p=1.0),
    ],
)
def test_a_draw_from_the_likeliest_is_what_the_engine_draws_from_the_row(
    backend: LlamaBackend, params: SamplingParams
) -> None:
    narrowed, whole = (backend._chains.chain(params, 7) for _ in range(2))
    pending, position = backend.tokenize(asked(DAY)), 0
    for _ in range(100):
        backend.decode(batch(pending, position))
        position += len(pending)
        token = whole.draw_row(backend._context, len(pending) - 1)
        assert narrowed.draw(top_tokens(row_of(backend, len(pending) - 1), max(params.top_k, 20))) == token
        pending = [token]


def test_greedy_is_what_the_engine_s_own_greedy_sampler_draws(backend: LlamaBackend) -> None:
    chain = native.llama_sampler_chain_init(native.llama_sampler_chain_default_params())
    native.llama_sampler_chain_add(chain, native.llama_sampler_init_greedy())
    draw = backend.sampler(SamplingParams(temperature=0), seed=0)
    pending, position, drawn = backend.tokenize(asked(DAY)), 0, []
    try:
        while not drawn or not backend.ends(drawn[-1]):
            backend.decode(batch(pending, position))
            position += len(pending)
            token = draw(len(pending) - 1)
            assert token == native.llama_sampler_sample(chain, backend._context, len(pending) - 1)
            drawn.append(token)
            pending = [token]
    finally:
        native.llama_sampler_free(chain)
    assert 40 < len(drawn) < 60


def test_the_same_seed_draws_the_same_text_and_another_seed_another(backend: LlamaBackend) -> None:
    def drawn(seed: int) -> tuple[int, ...]:
        return one(backend, WORD, SamplingParams(temperature=1.5, top_k=0, top_p=1, seed=seed, max_tokens=60)).tokens

    texts = [drawn(seed) for seed in range(6)]
    assert [drawn(seed) for seed in range(6)] == texts
    assert len(set(texts)) == 6


def test_filters_narrow_to_the_best_token(backend: LlamaBackend) -> None:
    greedy = one(backend, WORD).tokens
    for narrow in ({"top_k": 1}, {"top_p": 1e-6, "top_k": 0}, {"min_p": 1.0, "top_k": 0}):
        assert one(backend, WORD, SamplingParams(temperature=2, max_tokens=120, seed=7, **narrow)).tokens == greedy  # type: ignore[arg-type]


def test_a_sampled_token_follows_the_tempered_softmax(backend: LlamaBackend) -> None:
    tokens = backend.tokenize(asked(WORD))
    backend.decode(batch(tokens))
    row = len(tokens) - 1
    logits = row_of(backend, row) / 3
    expected = np.exp(logits - logits.max())
    expected /= expected.sum()
    params = SamplingParams(temperature=3, top_k=0, top_p=1)
    draw = backend.sampler(params, seed=1)
    counts = np.bincount([draw(row) for _ in range(4000)], minlength=640)
    likely = expected > 0.008
    assert likely.sum() >= 8
    # Four standard deviations of a binomial share.
    assert np.all(np.abs(counts / 4000 - expected)[likely] < 4 * np.sqrt(expected * (1 - expected) / 4000)[likely])


# Alone and in company


def test_greedy_texts_are_the_same_alone_and_among_others(backend: LlamaBackend) -> None:
    questions = [SUM, WORD, DAY, "What is 12 * 7?", "In 'road', how many letters are 'a'?"]
    alone = [one(backend, question).tokens for question in questions]
    together = Engine(backend).generate([request(backend, q, sample=n) for n, q in enumerate(questions)])
    assert [completion.tokens for completion in together] == alone
    assert {completion.slots for completion in together} == {5}


@pytest.mark.parametrize("count", [4, 8])
def test_equal_greedy_samples_are_equal_to_the_bit_for_q8_0(backend: LlamaBackend, count: int) -> None:
    params = SamplingParams(temperature=0, max_tokens=120, statistics=True)
    alone = one(backend, SUM, params)
    together = Engine(backend).generate([request(backend, SUM, params, sample) for sample in range(count)])
    assert {logprobs(completion) for completion in together} == {logprobs(alone)}


@pytest.mark.parametrize("count", [4, 8])
def test_company_may_move_the_logits_of_a_seed_a_little_even_for_q8_0(backend: LlamaBackend, count: int) -> None:
    """A seed's text is usually, not always, the same alone and in company: its cells lie elsewhere in the cache."""
    params = SamplingParams(temperature=0.8, max_tokens=60, statistics=True)
    together = Engine(backend).generate([request(backend, WORD, params, sample) for sample in range(count)])
    same = 0
    for sample, company in enumerate(together):
        [alone] = Engine(backend).generate([request(backend, WORD, params, sample)])
        pairs = zip(alone.tokens, company.tokens, strict=False)
        common = next((n for n, (a, b) in enumerate(pairs) if a != b), len(alone.tokens))
        assert logprobs(company)[:common] == pytest.approx(logprobs(alone)[:common], abs=0.2)
        same += alone.tokens == company.tokens
    assert same >= count - 2


def test_the_same_wave_draws_the_same_texts_twice(backend: LlamaBackend) -> None:
    params = SamplingParams(temperature=1, max_tokens=60, statistics=True)
    waves = [Engine(backend).generate([request(backend, WORD, params, n) for n in range(8)]) for _ in range(2)]
    assert [c.tokens for c in waves[0]] == [c.tokens for c in waves[1]]
    assert [logprobs(c) for c in waves[0]] == [logprobs(c) for c in waves[1]]


def test_free_slots_are_refilled_until_all_samples_are_drawn(nano_path: Path) -> None:
    with small(nano_path, context=1024, slots=3) as backend:
        questions = [SUM, WORD, DAY] * 4
        events = list(Engine(backend).stream([request(backend, q, sample=n) for n, q in enumerate(questions)]))
        finished = [event.completion for event in events if isinstance(event, SampleFinished)]
        answers = {c.sample: c.answer for c in finished}
    assert [answers[n] for n in range(3)] == [
        "The answer is \\boxed{933}.",
        "The answer is \\boxed{oolgi}.",
        "The answer is \\boxed{Thursday}.",
    ]
    assert [answers[n] for n in range(3, 12)] == [answers[n % 3] for n in range(3, 12)]
    # Short ones overtook a long one, so slots were given on before the wave was over.
    assert [c.sample for c in finished] != sorted(answers)
    assert {c.slots for c in finished} == {3}


def test_too_small_a_cache_makes_smaller_waves_with_whole_answers(nano_path: Path) -> None:
    with small(nano_path, context=256, slots=8) as backend:
        completions = Engine(backend).generate([request(backend, SUM, sample=n) for n in range(8)])
    assert {c.answer for c in completions} == {"The answer is \\boxed{933}."}
    assert {c.finish_reason for c in completions} == {"stop"}


# Thinking


@pytest.mark.parametrize("budget", [0, 1, 7, 30])
def test_a_thinking_budget_closes_the_thought(backend: LlamaBackend, budget: int) -> None:
    completion = one(backend, SUM, SamplingParams(temperature=0, max_tokens=150, think_budget=budget))
    assert completion.thinking_tokens <= budget
    assert completion.thought_closed_by == "budget"
    assert THOUGHT_OF_SUM.startswith(completion.thinking)
    assert completion.answer
    assert not re.search(r"</?think>", completion.thinking + completion.answer)


def test_a_thought_shorter_than_its_budget_is_left_alone(backend: LlamaBackend) -> None:
    budgeted = one(backend, SUM, SamplingParams(temperature=0, max_tokens=120, think_budget=100))
    assert budgeted.tokens == one(backend, SUM).tokens
    assert budgeted.thought_closed_by == "model"


def test_text_comes_in_order_and_without_tags(backend: LlamaBackend) -> None:
    events = [e for e in Engine(backend).stream([request(backend, SUM)]) if isinstance(e, TextDrawn)]
    parts = [event.part for event in events]
    assert parts == sorted(parts, reverse=True)
    text = "".join(event.text for event in events)
    assert text == THOUGHT_OF_SUM + "The answer is \\boxed{933}."
