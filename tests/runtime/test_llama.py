"""The native edge with the real engine and the embedded model."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import llama_cpp
import numpy as np
import pytest
from llama_cpp import llama_cpp as native

from runtime.backend import Batch, Stop
from runtime.engine import Engine
from runtime.errors import Aborted, DoesNotFit, EngineFailed, NoRoom, UsageError
from runtime.events import Event, Progress, SampleFinished, TextDrawn
from runtime.llama import ENGINE_VERSION, LlamaBackend, OpenOptions, engine_facts, open_without_weights
from runtime.llama.drawing import Chain, likeliest
from runtime.sequence import Request
from runtime.thinking import ThinkingMarkers
from runtime.types import Completion, SamplingParams
from tests.fakes import logprobs
from tests.gguf_writer import write

ROOT = Path(__file__).resolve().parents[2]
TAGS = ThinkingMarkers("<think>", "</think>")
SUM, WORD, DAY = "What is 347 + 586?", "Write 'igloo' backwards.", "What day is 3 days after Monday?"
GREEDY = SamplingParams(temperature=0, max_tokens=120)
THOUGHT_OF_SUM = (
    "Add by columns.\n347 is H3 T4 O7\n586 is H5 T8 O6\nO:7+6=13,carry1=>3\nT:4+8+1=13,carry1=>33\nH:3+5+1=9=>933"
)


def asked(question: str) -> str:
    """The prompt as nano's chat template writes it."""
    return f"<｜begin▁of▁sentence｜><｜User｜>{question}<｜Assistant｜><think>\n"


def request(backend: LlamaBackend, question: str, params: SamplingParams = GREEDY, sample: int = 0) -> Request:
    return Request(tuple(backend.tokenize(asked(question))), params, TAGS, starts_in_thought=True, sample=sample)


def one(backend: LlamaBackend, question: str, params: SamplingParams = GREEDY) -> Completion:
    [completion] = Engine(backend).generate([request(backend, question, params)])
    return completion


def batch(tokens: list[int], position: int = 0, slot: int = 0, *, output: bool = True) -> Batch:
    made = Batch()
    made.add(tokens, position, slot, output=output)
    return made


def row_of(backend: LlamaBackend, row: int) -> np.ndarray:
    """The logits as the binding's own functions give them, copied."""
    pointer = native.llama_get_logits_ith(backend._context, row)
    return np.ctypeslib.as_array(pointer, (backend.vocab_size,)).astype(np.float64)


class StopWhenAsked(Stop):
    """Wants to stop as soon as somebody has looked `after` times: a stop in the middle, without a clock."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.looked = 0
        super().__init__()

    @property
    def wanted(self) -> bool:  # type: ignore[override]
        self.looked += 1
        return self.looked > self.after

    @wanted.setter
    def wanted(self, value: bool) -> None:
        if not value:
            self.looked = 0


@pytest.fixture(scope="module")
def opened_nano(nano_path: Path) -> Iterator[LlamaBackend]:
    with LlamaBackend(nano_path, OpenOptions(context=4096, slots=8, visible=("<think>", "</think>"))) as backend:
        yield backend


@pytest.fixture
def backend(opened_nano: LlamaBackend) -> LlamaBackend:
    for slot in range(opened_nano.slots + 1):
        opened_nano.trim(slot, 0)
    return opened_nano


def small(path: Path, context: int = 256, **options: object) -> LlamaBackend:
    return LlamaBackend(path, OpenOptions(context=context, **options))  # type: ignore[arg-type]


# The pin


def test_the_engine_is_the_one_that_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"llama-cpp-python=={ENGINE_VERSION}" in project["dependencies"]
    assert llama_cpp.__version__ == ENGINE_VERSION == engine_facts().version


@pytest.mark.skipif(sys.maxsize < 2**32, reason="sizes of 64-bit machines")
def test_the_structures_have_the_sizes_of_the_pinned_release() -> None:
    assert ctypes.sizeof(native.llama_model_params) == 80
    assert ctypes.sizeof(native.llama_context_params) == 160
    assert ctypes.sizeof(native.llama_batch) == 56
    assert ctypes.sizeof(native.llama_sampler_chain_params) == 1
    assert ctypes.sizeof(native.llama_model_quantize_params) == 64


def test_the_defaults_of_a_model_are_those_of_the_pinned_release() -> None:
    params = native.llama_model_default_params()
    numbers = {name: getattr(params, name) for name in ("n_gpu_layers", "split_mode", "load_mode", "lazy_mode")}
    # -1: all layers on the GPU where there is one; -1: mapped where the platform can.
    assert numbers == {"n_gpu_layers": -1, "split_mode": 1, "load_mode": -1, "lazy_mode": 1}
    flags = ("vocab_only", "check_tensors", "use_extra_bufts", "no_host", "no_alloc", "load_mtp")
    assert [name for name in flags if getattr(params, name)] == ["use_extra_bufts"]
    assert not params.devices
    assert not params.kv_overrides


def test_the_defaults_of_a_context_are_those_of_the_pinned_release() -> None:
    params = native.llama_context_default_params()
    expected = {
        "n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "n_outputs_max": 0, "n_outputs_max_per_seq": 1,
        "n_threads": 4, "n_threads_batch": 4, "ctx_type": 0, "rope_scaling_type": -1, "pooling_type": -1,
        "attention_type": -1, "flash_attn_type": -1, "type_k": 1, "type_v": 1, "embeddings": False,
        "offload_kqv": True, "no_perf": True, "op_offload": True, "swa_full": True, "kv_unified": False,
    }  # fmt: skip
    assert {name: getattr(params, name) for name in expected} == expected
    assert native.llama_sampler_chain_default_params().no_perf is True


def test_the_engine_sees_a_processor_with_memory() -> None:
    facts = engine_facts()
    [cpu] = [device for device in facts.devices if device.kind == "cpu"]
    assert cpu.name == "CPU"
    assert cpu.description
    assert cpu.memory_total >= cpu.memory_free > 0
    assert "CPU" in facts.system_info


# Tokens and text


@pytest.mark.parametrize(
    "text",
    [
        "Is 1 + 1 = 2?",
        "  a\n\n\tb ",
        "größer, Füße",
        "日本語 한국어 हिन्दी עברית ﷽",
        "🙂 👩‍👩‍👧 🇪🇺",
        "\x00\x01a",
        "ｆｕｌｌ",
    ],
)
def test_text_survives_tokenization(backend: LlamaBackend, text: str) -> None:
    tokens = backend.tokenize(text)
    assert b"".join(map(backend.piece, tokens)).decode() == text
    assert all(0 <= token < 640 for token in tokens)


def test_no_text_is_no_tokens(backend: LlamaBackend) -> None:
    assert backend.tokenize("") == []


def test_a_long_text_is_tokenized_whole(backend: LlamaBackend) -> None:
    tokens = backend.tokenize("größer 日本 " * 5000)
    assert b"".join(map(backend.piece, tokens)).decode() == "größer 日本 " * 5000


def test_special_tokens_are_recognised_in_text(backend: LlamaBackend) -> None:
    assert backend.tokenize("<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜><think>") == [0, 3, 71, 4, 5]
    assert backend.tokenize("a") == [71]
    assert backend.tokenize("a", add_special=True) == [0, 71]


def test_control_tokens_have_no_text(backend: LlamaBackend) -> None:
    assert [token for token in range(backend.vocab_size) if not backend.piece(token)] == [0, 1, 2, 3, 4]


def test_a_control_token_is_spelled_when_it_is_named_visible(nano_path: Path) -> None:
    with small(nano_path, visible=("<｜User｜>",)) as backend:
        assert backend.piece(3).decode() == "<｜User｜>"
        assert backend.piece(4) == b""


def test_thinking_tags_are_spelled(backend: LlamaBackend) -> None:
    assert [backend.piece(token) for token in backend.tokenize("<think></think>")] == [b"<think>", b"</think>"]


def test_only_the_end_token_ends(backend: LlamaBackend) -> None:
    assert [token for token in range(backend.vocab_size) if backend.ends(token)] == [1]


@pytest.mark.parametrize("token", [-1, 640, 2**31 - 1])
def test_a_token_outside_of_the_vocabulary_is_refused(backend: LlamaBackend, token: int) -> None:
    with pytest.raises(EngineFailed, match=f"there is no token {token} in a vocabulary of 640"):
        backend.piece(token)


# Drawing


def test_a_thought_and_an_answer(backend: LlamaBackend) -> None:
    completion = one(backend, SUM)
    assert completion.thinking == THOUGHT_OF_SUM
    assert completion.answer == "The answer is \\boxed{933}."
    assert completion.finish_reason == "stop"
    assert completion.thought_closed_by == "model"


def test_greedy_text_and_logprobs_are_those_of_the_high_level_class(backend: LlamaBackend, nano_path: Path) -> None:
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
    narrowed, whole = Chain(params, 7), Chain(params, 7)
    pending, position = backend.tokenize(asked(DAY)), 0
    for _ in range(100):
        backend.decode(batch(pending, position))
        position += len(pending)
        token = whole.draw_row(backend._context, len(pending) - 1)
        assert narrowed.draw(likeliest(row_of(backend, len(pending) - 1), max(params.top_k, 20))) == token
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
    assert len(drawn) == 46


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
        "The answer is \\boxed{oollgi}.",
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


# The cache


def test_a_fork_continues_from_what_its_source_holds(backend: LlamaBackend) -> None:
    tokens = backend.tokenize(asked(WORD))
    backend.decode(batch(tokens[:-1], slot=8, output=False))
    backend.fork(8, 0)
    backend.fork(8, 5)
    backend.decode(batch(tokens[-1:], len(tokens) - 1, slot=0))
    first = row_of(backend, 0)
    backend.decode(batch(tokens[-1:], len(tokens) - 1, slot=5))
    assert np.array_equal(row_of(backend, 0), first)


def test_a_fork_replaces_what_its_target_held(backend: LlamaBackend) -> None:
    tokens = backend.tokenize(asked(WORD))
    backend.decode(batch([9] * 40, slot=1))
    backend.decode(batch(tokens[:-1], slot=8, output=False))
    backend.fork(8, 1)
    backend.decode(batch(tokens[-1:], len(tokens) - 1, slot=1))
    assert backend.sampler(GREEDY, 0)(0) == one(backend, WORD).tokens[0]


def test_trimming_a_fork_leaves_its_source_whole(backend: LlamaBackend) -> None:
    tokens = backend.tokenize(asked(WORD))
    backend.decode(batch(tokens[:-1], slot=8, output=False))
    backend.fork(8, 0)
    assert backend.trim(0, 3)
    backend.decode(batch([9], 3, slot=0))
    backend.decode(batch(tokens[-1:], len(tokens) - 1, slot=8))
    assert backend.sampler(GREEDY, 0)(0) == one(backend, WORD).tokens[0]


def test_trim_forgets_from_the_length_on(backend: LlamaBackend) -> None:
    tokens = backend.tokenize(asked(WORD))
    backend.decode(batch(tokens))
    expected = row_of(backend, len(tokens) - 1)
    backend.decode(batch([9, 9, 9], len(tokens)))
    assert backend.trim(0, len(tokens) - 1)
    with pytest.raises(EngineFailed, match="code -1"):
        backend.decode(batch([9], len(tokens)))
    backend.decode(batch(tokens[-1:], len(tokens) - 1))
    assert row_of(backend, 0) == pytest.approx(expected, abs=0.05)
    assert backend.trim(0, 0)
    backend.decode(batch(tokens))
    assert np.array_equal(row_of(backend, len(tokens) - 1), expected)


def test_no_room_leaves_the_cache_as_it_was(nano_path: Path) -> None:
    with small(nano_path) as backend:
        draw = backend.sampler(GREEDY, 0)
        tokens = (backend.tokenize(asked(SUM)) * 20)[:250]

        def after(failures: int) -> np.ndarray:
            backend.trim(0, 0)
            backend.decode(batch(tokens, output=False))
            for _ in range(failures):
                with pytest.raises(NoRoom, match="the KV cache of 256 tokens is full"):
                    backend.decode(batch([9] * 7, 250))
            backend.decode(batch([9] * 6, 250))
            assert draw(5) == int(row_of(backend, 5).argmax())
            return row_of(backend, 5)

        assert np.array_equal(after(failures=2), after(failures=0))


def test_the_end_of_the_context_ends_the_sample_by_length(nano_path: Path) -> None:
    class Unending(LlamaBackend):
        def ends(self, token: int) -> bool:
            return False

    for context in (256, 300):  # the engine itself rounds up to a multiple of 256
        with Unending(nano_path, OpenOptions(context=context)) as backend:
            asking = request(backend, SUM, SamplingParams(temperature=0))
            [completion] = Engine(backend).generate([asking])
        assert completion.finish_reason == "length"
        # The last token drawn needs no cell of its own.
        assert len(asking.prompt) + len(completion.tokens) == context + 1


def test_a_prompt_as_long_as_the_context_is_refused_and_one_shorter_answers_one_token(nano_path: Path) -> None:
    with small(nano_path) as backend:
        tokens = tuple((backend.tokenize(asked(SUM)) * 20)[:256])
        with pytest.raises(DoesNotFit, match="the prompt is 256 tokens long, the context holds 256"):
            Engine(backend).generate([Request(tokens, GREEDY)])
        [completion] = Engine(backend).generate([Request(tokens[:255], GREEDY)])
        assert 0 < len(completion.tokens) <= 2


def test_a_prompt_of_more_than_one_batch(nano_path: Path) -> None:
    with small(nano_path, context=4096) as backend:
        tokens = (backend.tokenize("a b c\n") * 1000)[:2500] + backend.tokenize(asked(SUM))
        events = list(Engine(backend).stream([Request(tuple(tokens), SamplingParams(temperature=0, max_tokens=3))]))
    done = [event.done for event in events if isinstance(event, Progress)]
    assert done == [0, 512, 1024, 1536, 2048, len(tokens) - 1]


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "f32", "bf16"])
def test_other_cache_types_answer_too(nano_path: Path, kind: str) -> None:
    with small(nano_path, context=512, kv_type=kind) as backend:
        assert one(backend, SUM).answer == "The answer is \\boxed{933}."


def test_an_unknown_cache_type_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(UsageError, match="'q3_0' is no type of a KV cache"):
        OpenOptions(context=512, kv_type="q3_0")


@pytest.mark.parametrize("options", [{"slots": 0}, {"slots": 256}, {"context": 0}, {"threads": 0}])
def test_impossible_options_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        OpenOptions(**{"context": 512, **options})  # type: ignore[arg-type]


def test_two_engines_use_one_backend_one_after_the_other(backend: LlamaBackend) -> None:
    assert Engine(backend).generate([request(backend, SUM)])[0].answer == "The answer is \\boxed{933}."
    second = Engine(backend)
    assert second.generate([request(backend, DAY)])[0].answer == "The answer is \\boxed{Thursday}."
    assert second.generate([request(backend, SUM)])[0].answer == "The answer is \\boxed{933}."


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


# Stopping


def test_a_stop_before_a_decode_is_obeyed_once(nano_path: Path) -> None:
    stop = Stop()
    with LlamaBackend(nano_path, OpenOptions(context=256), stop=stop) as backend:
        stop.set()
        with pytest.raises(Aborted):
            backend.decode(batch([9]))
        assert stop.wanted is False
        backend.decode(batch([9]))


@pytest.mark.parametrize("looks", [1, 20, 60, 90])
def test_a_stop_in_the_middle_of_a_long_prompt(nano_path: Path, looks: int) -> None:
    stop = Stop()
    with LlamaBackend(nano_path, OpenOptions(context=2048), stop=stop) as backend:
        engine = Engine(backend)
        tokens = tuple((backend.tokenize("a b c\n") * 1000)[:1800])
        backend._stop = asking = StopWhenAsked(after=looks)
        [completion] = engine.generate([Request(tokens, GREEDY)])
        assert completion.finish_reason == "cancelled"
        assert completion.tokens == ()
        assert asking.looked <= 2  # the wish is spent
        backend._stop = stop
        assert engine.generate([request(backend, SUM)])[0].answer == "The answer is \\boxed{933}."


def test_a_stop_while_drawing_keeps_what_was_said(backend: LlamaBackend) -> None:
    stop, said = backend._stop, ""
    engine = Engine(backend)
    for event in engine.stream([request(backend, SUM)]):
        if isinstance(event, TextDrawn):
            said += event.text
            if "columns" in said:
                stop.set()
        if isinstance(event, SampleFinished):
            completion = event.completion
    assert completion.finish_reason == "cancelled"
    assert completion.thinking.startswith("Add by columns")
    assert len(completion.thinking) < 30
    assert engine.generate([request(backend, SUM)])[0].answer == "The answer is \\boxed{933}."


def test_a_stop_while_loading(nano_path: Path) -> None:
    stop = Stop()
    heard: list[Event] = []

    def listen(event: Event) -> None:
        heard.append(event)
        stop.set()

    with pytest.raises(Aborted, match="stopped while loading"):
        LlamaBackend(nano_path, OpenOptions(context=256), stop=stop, listen=listen)
    assert len(heard) == 1
    assert stop.wanted is False
    with LlamaBackend(nano_path, OpenOptions(context=256), stop=stop) as backend:
        assert backend.vocab_size == 640


def test_a_listener_that_fails_stops_the_load(nano_path: Path) -> None:
    def listen(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Aborted, match="stopped while loading"):
        LlamaBackend(nano_path, OpenOptions(context=256), listen=listen)


def test_progress_of_a_load_ends_at_all(nano_path: Path) -> None:
    heard: list[Event] = []
    with LlamaBackend(nano_path, OpenOptions(context=256), listen=heard.append):
        pass
    assert heard[-1] == Progress("loading", "nano.gguf", 100, 100, "percent")
    assert [e.done for e in heard] == sorted(e.done for e in heard)  # type: ignore[union-attr]


# What cannot be


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for opening in (open_without_weights, lambda path: small(path)):
        with pytest.raises(EngineFailed, match=r"nowhere\.gguf: the engine cannot load it"):
            opening(tmp_path / "nowhere.gguf")


def test_a_file_that_is_no_model_is_refused_with_the_engine_s_reason(tmp_path: Path) -> None:
    path = tmp_path / "story.gguf"
    path.write_text("Once upon a time there was no model at all. " * 100)
    with pytest.raises(EngineFailed, match=r"story\.gguf: the engine cannot load it: .*magic"):
        small(path)


def test_a_truncated_file_is_refused(tmp_path: Path, nano_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(nano_path.read_bytes()[:1_000_000])
    with pytest.raises(EngineFailed, match=r"cut\.gguf: the engine cannot load it: ."):
        small(path)


def test_an_error_names_its_own_cause_and_not_an_earlier_one(tmp_path: Path) -> None:
    bad, missing = write(tmp_path / "bad.gguf", tensors=[]), tmp_path / "nowhere.gguf"
    reasons = []
    for path in (bad, missing, bad):
        with pytest.raises(EngineFailed) as caught:
            small(path)
        reasons.append(caught.value.message)
    assert reasons[0] == reasons[2] != reasons[1]


def test_a_context_beyond_memory_does_not_fit(nano_path: Path) -> None:
    limited = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from runtime.errors import DoesNotFit\n"
        "from runtime.llama import LlamaBackend, OpenOptions\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        "try:\n"
        "    LlamaBackend(Path(sys.argv[1]), OpenOptions(context=2_000_000))\n"
        "except DoesNotFit as error:\n"
        "    sys.stdout.write(f'{error.message}\\n{error.hint}')\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", limited, str(nano_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    message, hint = child.stdout.split("\n")
    assert message.startswith("no room for a context of 2000000 tokens (f16): ")
    assert hint == "try --ctx-size 500000, or --kv-type q8_0"


def test_a_batch_that_is_too_large_or_empty_is_refused(backend: LlamaBackend, nano_path: Path) -> None:
    for tokens in ([], [9] * 2049):
        with pytest.raises(EngineFailed, match=f"a batch of {len(tokens)} tokens was asked for"):
            backend.decode(batch(tokens, output=False))
    with small(nano_path) as smaller:
        assert smaller.batch_size == 256
        with pytest.raises(EngineFailed, match="a batch of 257 tokens was asked for; between 1 and 256 are possible"):
            smaller.decode(batch([9] * 257))


def test_more_rows_than_slots_are_refused(nano_path: Path) -> None:
    with small(nano_path) as backend:
        asking = batch([9] * 20)
        asking.outputs = list(range(20))
        with pytest.raises(EngineFailed, match="logits of 20 rows were asked for; 2 are possible"):
            backend.decode(asking)


@pytest.mark.parametrize("row", [0, 1, 3, 99, -2])
def test_a_row_without_logits_is_refused(backend: LlamaBackend, row: int) -> None:
    backend.decode(batch([9, 9, 9]))
    for draw in (backend.sampler(GREEDY, 0), backend.sampler(SamplingParams(), 0)):
        with pytest.raises(EngineFailed, match=f"row {row} of the last batch has no logits"):
            draw(row)
    with pytest.raises(EngineFailed, match=f"row {row} of the last batch has no logits"):
        backend.statistics(row, 0)


@pytest.mark.parametrize(
    ("token", "position", "slot"), [(640, 0, 0), (-7, 0, 0), (9, 5, 0), (9, 0, 9), (9, 0, -1)], ids=str
)
def test_impossible_batches_are_refused_and_harmless(
    backend: LlamaBackend, token: int, position: int, slot: int
) -> None:
    backend.decode(batch([9, 9, 9]))
    with pytest.raises(EngineFailed, match=r"the engine failed to decode \(code -1\): ."):
        backend.decode(batch([token], position, slot))
    backend.decode(batch([9], 3))


def test_closing_twice_is_harmless(nano_path: Path) -> None:
    backend = small(nano_path)
    backend.close()
    backend.close()


# Reproducible


@pytest.fixture(scope="module", params=[(1, "F16"), (15, "Q4_K_M")], ids=lambda value: value[1])
def requantized(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, nano_path: Path) -> Path:
    """nano with another file type (enum llama_ftype): less exact than from the original, good enough to talk."""
    path = tmp_path_factory.mktemp("requantized") / "nano.gguf"
    params = native.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize, params.nthread = request.param[0], True, 1
    assert native.llama_model_quantize(os.fsencode(nano_path), os.fsencode(path), ctypes.byref(params)) == 0
    return path


def test_reproducible_draws_the_same_whatever_was_asked_before(requantized: Path) -> None:
    params = SamplingParams(temperature=0.8, max_tokens=60, statistics=True, seed=3)
    with small(requantized, context=1024) as backend:
        wanted = request(backend, WORD, params)
        # What these leave in the cache shares all but the last tokens with the wanted prompt.
        others = [Request((*wanted.prompt[:-cut], 9, 9), params) for cut in (2, 3, 6)]
        [fresh] = Engine(backend, reproducible=True).generate([wanted])
        engine = Engine(backend, reproducible=True)
        for other in others:
            engine.generate([other])
            [again] = engine.generate([wanted])
            assert again.tokens == fresh.tokens
            assert logprobs(again) == logprobs(fresh)
