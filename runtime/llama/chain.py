"""A chain of the engine's samplers for one reply, in the order of llama.cpp, with its memory of the text."""

from __future__ import annotations

import ctypes
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from runtime.base.errors import UsageError
from runtime.base.types import SamplingParams
from runtime.llama.defaults import sampler_chain_params
from runtime.llama.native import native
from runtime.llama.sampler import TopTokens

_Candidate = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # struct llama_token_data
# With more distinct tokens in the part of the text that penalties count, the whole row is passed to the engine.
_MOST_TOUCHED = 256


class _Dry(NamedTuple):
    """The settings of a DRY sampler, the window in tokens."""

    multiplier: float
    base: float
    allowed_length: int
    window: int
    breakers: tuple[str, ...]


class ChainFactory:
    """Makes the chains of one open model. `vocab` is its `struct llama_vocab *`, `context` its length in tokens."""

    def __init__(self, vocab: Any, size: int, context: int, tokenize: Callable[[str], list[int]]) -> None:
        self._vocab, self._size, self._context = vocab, size, context
        self._tokenize = tokenize
        self._dry: dict[_Dry, Any] = {}  # finding the breakers in a vocabulary takes a good part of a second
        self._suppressed = _suppressed_tokens(vocab)

    def is_argmax(self, params: SamplingParams) -> bool:
        """Whether the chain always draws the likeliest token of a row."""
        if params.temperature or params.typical_p < 1 or params.xtc_probability:
            return False
        return not (self._windows(params) or self._biases(params))

    def chain(self, params: SamplingParams, seed: int, prompt: Sequence[int] = ()) -> Chain:
        """A chain that has seen `prompt`. Raises UsageError for a logit bias of a token that the model does not have.

        The order is that of `common_params_sampling.samplers` in common/common.h, behind the biases as in
        `common_sampler_init` (common/sampling.cpp): penalties, DRY, top-n-sigma, top-k, typical, top-p, min-p, XTC,
        temperature, random choice. Settings that change nothing have no step.
        """
        steps: list[Any] = []
        biases = self._biases(params)
        if biases:
            rows = (native.llama_logit_bias * len(biases))(*biases.items())
            steps.append(native.llama_sampler_init_logit_bias(self._size, len(biases), rows))
        windows = self._windows(params)
        remembering = []
        if window := windows.get("penalties"):
            penalties = params.repeat_penalty, params.frequency_penalty, params.presence_penalty
            remembering.append(native.llama_sampler_init_penalties(self._size, window, *penalties))
        if window := windows.get("dry"):
            remembering.append(self._dry_sampler(params, window))
        steps += remembering
        if params.top_n_sigma:
            steps.append(native.llama_sampler_init_top_n_sigma(params.top_n_sigma))
        if params.top_k:
            steps.append(native.llama_sampler_init_top_k(params.top_k))
        if params.typical_p < 1:
            steps.append(native.llama_sampler_init_typical(params.typical_p, 1))
        if params.top_p < 1:
            steps.append(native.llama_sampler_init_top_p(params.top_p, 1))
        if params.min_p:
            steps.append(native.llama_sampler_init_min_p(params.min_p, 1))
        if params.xtc_probability:
            steps.append(native.llama_sampler_init_xtc(params.xtc_probability, params.xtc_threshold, 1, seed))
        # Temperature 0 stays greedy: a range around it would not.
        spread = params.dynatemp_range if params.temperature else 0.0
        steps.append(native.llama_sampler_init_temp_ext(params.temperature, spread, params.dynatemp_exponent))
        steps.append(native.llama_sampler_init_dist(seed))
        return Chain(steps, remembering, biases, max(windows.values(), default=0), prompt)

    def _windows(self, params: SamplingParams) -> dict[str, int]:
        """How many of the last tokens the penalties and DRY count, without those that have no effect."""
        windows = {}
        if params.penalises:
            windows["penalties"] = self._window(params.penalty_last_n)
        if params.dry_multiplier:
            windows["dry"] = self._window(params.dry_penalty_last_n)
        return {name: window for name, window in windows.items() if window}

    def _window(self, last: int) -> int:
        """-1 is the whole context. The engine allocates as many tokens, so no more than the context."""
        return self._context if last < 0 else min(last, self._context)

    def _biases(self, params: SamplingParams) -> dict[int, float]:
        """By token; the engine would not add two biases of one token in every case (llama_sampler_logit_bias_apply)."""
        biases = dict.fromkeys(self._suppressed, -math.inf)
        for given, bias in params.logit_bias:
            tokens = [given] if isinstance(given, int) else [*dict.fromkeys(self._tokenize(given))]
            if not tokens:
                raise UsageError(f"logit bias: the model's vocabulary cannot spell {given!r}")
            for token in tokens:
                if not 0 <= token < self._size:
                    raise UsageError(f"logit bias: there is no token {token} in a vocabulary of {self._size}")
                biases[token] = biases.get(token, 0.0) + bias
        return biases

    def _dry_sampler(self, params: SamplingParams, window: int) -> Any:
        key = _Dry(
            params.dry_multiplier, params.dry_base, params.dry_allowed_length, window, params.dry_sequence_breakers
        )
        if key not in self._dry:
            texts = [text.encode("utf-8", "replace") for text in key.breakers]
            breakers = (ctypes.c_char_p * len(texts))(*texts)
            self._dry[key] = native.llama_sampler_init_dry(self._vocab, *key[:4], breakers, len(texts))
        return native.llama_sampler_clone(self._dry[key])

    def close(self) -> None:
        """Free the samplers that chains are copied from. Chains that were made are not affected."""
        while self._dry:
            _, sampler = self._dry.popitem()
            native.llama_sampler_free(sampler)


class Chain:
    """A chain that draws from rows of logits. It has its own random state, and its own memory of the text."""

    def __init__(
        self,
        steps: Sequence[Any],
        remembering: Sequence[Any] = (),
        biased: Iterable[int] = (),
        window: int = 0,
        prompt: Sequence[int] = (),
    ) -> None:
        """The chain owns its `steps`; those in `remembering` see the last `window` tokens of the text.

        `biased` are the tokens that have a bias.
        """
        self._chain = native.llama_sampler_chain_init(sampler_chain_params())
        for step in steps:
            native.llama_sampler_chain_add(self._chain, step)
        self._remembering = remembering
        self._biased = frozenset(biased)
        self._window = window
        self._last: deque[int] = deque(maxlen=window)
        self._seen = 0  # tokens of the reply
        self._candidates = np.empty(0, _Candidate)
        self._array = native.llama_token_data_array()
        self._reference = ctypes.byref(self._array)
        self._see(prompt)

    @property
    def plain(self) -> bool:
        """Whether the chain changes no logit for the sake of the text or of a bias."""
        return not (self._biased or self._window)

    def follow(self, reply: Sequence[int]) -> None:
        """See the new tokens of a reply that only grows, drawn and forced ones alike.

        llama-server does the same: its sampler gets the prompt (server_slot::init_sampler), then each token.
        """
        if len(reply) > self._seen:
            self._see(reply[self._seen :])
            self._seen = len(reply)

    def _see(self, tokens: Sequence[int]) -> None:
        if not self._window:
            return
        tokens = tokens[-self._window :]
        for step in self._remembering:
            for token in tokens:
                native.llama_sampler_accept(step, token)
        self._last.extend(tokens)

    def draw(self, first: TopTokens) -> int:
        """Sample from the top tokens of a row, which are at least as many as top-k keeps. Only for a `plain` chain.

        Returns the same token as `draw_row`, without building candidates for the whole vocabulary.
        """
        return self._draw(first.tokens, first.logits, ordered=True)

    def draw_row(self, context: Any, row: int) -> int:
        """Sample from all tokens of a row of the last batch, which must have logits. Only for a `plain` chain."""
        return int(native.llama_sampler_sample(self._chain, context, row))

    def draw_changed(
        self,
        logits: NDArray[np.float32],
        top: Callable[[int], TopTokens] | None,
        allowed: NDArray[np.bool_] | None = None,
    ) -> int:
        """Sample from a row whose logits a penalty or a bias changes, or of which only some tokens are `allowed`.

        `top` returns the tokens that top-k keeps, and as many more as it is given; None: the chain needs the whole row.
        Only tokens of the text and those with a bias change, so the best tokens after the change are among the best
        before, the same number more, and the changed ones themselves.
        """
        touched = self._biased.union(self._last) if top is not None else frozenset[int]()
        if top is None or len(touched) > _MOST_TOUCHED:
            tokens = np.arange(len(logits))
        else:
            tokens = np.union1d(top(len(touched)).tokens, np.fromiter(touched, np.int64, len(touched)))
        if allowed is not None:
            tokens = tokens[allowed[tokens]]
        return self._draw(tokens, logits[tokens], ordered=False)

    def _draw(self, tokens: NDArray[np.int64], logits: NDArray[np.float32], *, ordered: bool) -> int:
        count = len(tokens)
        if count > len(self._candidates):
            self._candidates = np.empty(count, _Candidate)
            self._data = ctypes.cast(self._candidates.ctypes.data, native.llama_token_data_p)
        candidates = self._candidates[:count]
        candidates["id"] = tokens
        candidates["logit"] = logits
        array = self._array
        array.data, array.size, array.selected, array.sorted = self._data, count, -1, ordered
        native.llama_sampler_apply(self._chain, self._reference)
        return int(array.data[array.selected].id)  # XTC moves the beginning of the data

    def __del__(self) -> None:
        # The chain owns its steps. At interpreter exit the module may be gone already; the memory is then, too.
        free = cast("Callable[[Any], None] | None", getattr(native, "llama_sampler_free", None))
        if free is not None:
            free(self._chain)


def _suppressed_tokens(vocab: Any) -> tuple[int, ...]:
    """The tokens that the file forbids (tokenizer.ggml.suppress_tokens), as common_sampler_init does."""
    count = ctypes.c_int32()
    tokens = native.llama_vocab_get_suppress_tokens(vocab, ctypes.byref(count))
    return tuple(tokens[: count.value]) if count.value else ()
