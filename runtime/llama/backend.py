"""A model opened in llama.cpp: decodes tokens to logits and samples from them."""

from __future__ import annotations

import ctypes
import os
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from runtime.base.errors import Aborted, DoesNotFit, EngineFailed, NoRoom
from runtime.base.run import Run
from runtime.base.types import Logprobs, SamplingParams, TokenLogprob, TokenStatistics, counted
from runtime.engine.backend import CHUNK, Batch, Checkpoint, Draw, keeps_windows_alone, sequences_for
from runtime.engine.embedding import EmbedOptions
from runtime.engine.grammar import Grammar
from runtime.gguf.adapter import Adapter
from runtime.gguf.kv_types import kv_types
from runtime.gguf.rope import Yarn
from runtime.llama.batch import NativeBatch
from runtime.llama.cache import SequenceCache, is_recurrent, keys_can_shift, window_size
from runtime.llama.chain import ChainFactory
from runtime.llama.constraint import Constraints, LlamaConstraint
from runtime.llama.defaults import context_params, model_params
from runtime.llama.devices import devices_of, kept_here
from runtime.llama.draw import Drawing
from runtime.llama.embedder import Embedder
from runtime.llama.load_model import hint_of, load_model
from runtime.llama.mtp import MtpLayers
from runtime.llama.native import log, native
from runtime.llama.open_options import OpenOptions
from runtime.llama.sampler import TopTokens, entropy, logprobs, statistics
from runtime.llama.tokenizer import Tokenizer

# The abort callback enters Python about thirty times per token, so it is only set for batches that take long.
_ABORTABLE_TOKENS = 32
_ABORTABLE_SECONDS = 0.05

# enum llama_token_attr (llama.h): tokens whose spelling is not the text that they stand for.
_NO_TEXT = native.LLAMA_TOKEN_ATTR_UNKNOWN | native.LLAMA_TOKEN_ATTR_CONTROL | native.LLAMA_TOKEN_ATTR_UNUSED

ABORTED = 2  # result of llama_decode: the abort callback ended it

# How the engine says that it got no memory (ggml, src/llama-*.cpp, the C++ library).
_LACKS_MEMORY = re.compile(r"memory|alloc", re.IGNORECASE)

# The binding's own prototype makes a pointer object per call; here the bare address is enough.
logits_address = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)(
    ("llama_get_logits_ith", native._lib)
)


class LlamaBackend:
    """A model opened in llama.cpp; a context manager that frees native memory on exit, context before model."""

    def __init__(self, path: Path, options: OpenOptions, run: Run | None = None) -> None:
        """Load `path` (shard 1 of a split file). `run` reports progress and can stop loading and decoding.

        The number of threads comes from `options`. Raises EngineFailed, DoesNotFit, or Aborted if a stop was wanted.
        """
        run = run or Run()
        self._options = options
        self._stop = run.stop
        self._stack = ExitStack()
        self._pieces: dict[int, bytes] = {}
        self._views: dict[int, NDArray[np.float32]] = {}
        self._top_tokens: dict[int, TopTokens] = {}  # by row of the last batch
        self._last_seconds = 0.0
        self._callback_set = False
        self._closed = False
        with ExitStack() as opening:
            opening.callback(self._stack.close)
            self._path = path
            self._model = self._load(run)
            self._stack.callback(native.llama_model_free, self._model)
            adapters = [self._open_adapter(each) for each in options.adapters]
            self._vocab = native.llama_model_get_vocab(self._model)
            self._tokenizer = Tokenizer(self._vocab, self._stop)
            self._vocab_size = int(native.llama_vocab_n_tokens(self._vocab))
            self._scratch = np.empty(self._vocab_size, np.float32)
            self._context = self._new_context()
            self._stack.callback(native.llama_free, self._context)
            self._use_adapters(adapters)
            # With YaRN the engine's own number is the scaled one (llama_init_from_model).
            self._longest = min(options.context, options.reach or int(native.llama_model_n_ctx_train(self._model)))
            self._check_writes_text()
            shiftable = keys_can_shift(self._model, self._context_params())
            self._cache = SequenceCache(self._model, self._context, full=self._full_windows, shiftable=shiftable)
            self._batch = NativeBatch(options.rows)
            self._chains = ChainFactory(self._vocab, self._vocab_size, options.context, self.tokenize)
            self._stack.callback(self._chains.close)
            self._constraints = Constraints(self._vocab_size, self._marked, self.ends)
            self.mtp = self._open_mtp() if options.mtp else None
            self._visible = frozenset(t for text in options.visible for t in self.tokenize(text))
            opening.pop_all()

    def _load(self, run: Run) -> Any:
        kept: list[object] = []

        def params(callback: Any) -> Any:
            made = self._model_params(progress_callback=callback)
            kept.append(self._use_devices(made))
            return made

        return load_model(self._path, params, run)

    def _model_params(self, **given: Any) -> Any:
        return model_params(load_mtp=self._options.mtp, **given)

    def _use_devices(self, params: Any) -> object:
        """Assign the last layers to devices as the options say. Keep the result alive while the model loads."""
        options = self._options
        if not options.nodes and options.gpus is None:
            return None
        devices = devices_of(options.nodes, options.gpus or ())
        if len(devices) != len(options.layers) + 1:
            raise EngineFailed(
                f"the plan has layers for {counted(len(options.layers), 'device')}, and {len(devices) - 1} can be used"
            )
        if len(options.layers) > (most := native.llama_max_devices()):
            raise EngineFailed(f"the engine uses at most {most} devices, not {len(options.layers)}")
        split = (ctypes.c_float * most)(*options.layers)
        overrides = kept_here(options.kept)
        params.devices = ctypes.cast(devices, ctypes.c_void_p)
        params.n_gpu_layers = sum(options.layers)
        params.tensor_split = split
        params.tensor_buft_overrides = ctypes.cast(overrides, ctypes.c_void_p)
        return devices, split, overrides

    def _context_params(self) -> Any:
        options, types = self._options, kv_types(self._options.kv_type)
        return context_params(
            n_ctx=options.context,
            n_batch=options.rows,
            n_ubatch=options.rows,
            n_seq_max=self.sequences,
            # The engine makes room for a row of each sequence in any case.
            n_outputs_max=max(options.slots + 1, options.drafted + 1, self.sequences),
            n_threads=options.threads,
            n_threads_batch=options.batch_threads or options.threads,
            type_k=types.keys.number,
            type_v=types.values.number,
            swa_full=self._full_windows,
            # Recurrent layers keep as many earlier states as draft tokens, to undo a wrong draft.
            n_rs_seq=options.drafted if options.mtp else 0,
            **_rope(options.yarn),
        )

    def _new_context(self) -> Any:
        options = self._options
        self._abort_callback = native.ggml_abort_callback(lambda _: self._stop.wanted)
        params = self._context_params()
        self.most_outputs = int(params.n_outputs_max)
        log.take()
        context = native.llama_init_from_model(self._model, params)
        if context:
            return context
        said = log.take("out of memory")
        if _LACKS_MEMORY.search(said):
            raise DoesNotFit(
                f"no room for a context of {options.context} tokens ({options.kv_type}): {said}",
                hint=f"try --ctx-size {max(512, options.context // 4)}, or --kv-type q8_0",
            )
        raise EngineFailed(f"{self._path}: the engine cannot run it: {said}", hint=hint_of(said))

    def _open_adapter(self, adapter: Adapter) -> Any:
        """Load a LoRA adapter, before there is a context: the graph of a context has room for those there are.

        It is freed behind the context and before the model.
        """
        log.take()
        opened = native.llama_adapter_lora_init(self._model, os.fsencode(adapter.path))
        if not opened:
            raise EngineFailed(f"{adapter.path}: the engine cannot load this adapter: {log.take()}")
        self._stack.callback(native.llama_adapter_lora_free, opened)
        return opened

    def _use_adapters(self, opened: Sequence[Any]) -> None:
        if not opened:
            return
        pointers = (native.llama_adapter_lora_p_ctypes * len(opened))(*opened)
        scales = (ctypes.c_float * len(opened))(*(each.scale for each in self._options.adapters))
        if native.llama_set_adapters_lora(self._context, pointers, len(opened), scales) != 0:
            raise EngineFailed(f"{self._path}: the engine cannot use these adapters: {log.take()}")

    def _check_writes_text(self) -> None:
        """The engine ends the process at the first long batch of a model that reads its text in both directions."""
        if not native.llama_get_causal_attn(self._context) or native.llama_model_has_encoder(self._model):
            raise EngineFailed(
                f"{self._path}: this model does not write a text token by token: it embeds, translates or diffuses",
                hint="to see models that chat: dsr list --catalog",
            )

    def _open_mtp(self) -> MtpLayers:
        layers = MtpLayers(self._model, self._context, self._context_params(), self.batch_size)
        self._stack.callback(layers.close)
        return layers

    def embedder(self, options: EmbedOptions, run: Run) -> Embedder:
        """An embedder with the weights of this model, in a context of its own. Close it before this backend."""
        self._check_open()
        return Embedder(self._path, options, run, model=self._model)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the model. After that `decode` and `trim` raise EngineFailed."""
        self._closed = True
        self._stack.close()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineFailed("the model is already closed")

    @property
    def slots(self) -> int:
        return self._options.slots

    @property
    def sequences(self) -> int:
        return sequences_for(self.slots, shares_cells=self._full_windows and not is_recurrent(self._model))

    @property
    def _full_windows(self) -> bool:
        options, seen = self._options, window_size(self._model)
        return options.kv_full or not keeps_windows_alone(seen, options.context, options.slots, options.rows)

    @property
    def cuts_anywhere(self) -> bool:
        return self._cache.cuts_anywhere

    @property
    def can_graft(self) -> bool:
        return self.mtp is None and self._cache.can_graft

    @property
    def context(self) -> int:
        return self._options.context

    @property
    def longest(self) -> int:
        return self._longest

    @property
    def batch_size(self) -> int:
        # The engine cuts n_batch down to the context, and aborts at a larger batch.
        return min(self._options.rows, self.context)

    @property
    def chunk_size(self) -> int:
        return CHUNK

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def first_token(self) -> int | None:
        """The token that begins every text of this model; None if it has none."""
        return self._tokenizer.first_token

    def tokenize(self, text: str, *, add_bos: bool = False, literal: Sequence[int] = ()) -> list[int]:
        return self._tokenizer.tokenize(text, add_bos=add_bos, literal=literal)

    def piece(self, token: int) -> bytes:
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._spell(token)
        return known

    def _spell(self, token: int) -> bytes:
        if not 0 <= token < self._vocab_size:
            raise EngineFailed(f"there is no token {token} in a vocabulary of {self._vocab_size}")
        return self._text(token, special=token in self._visible)

    def _text(self, token: int, *, special: bool) -> bytes:
        room = 256
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = native.llama_token_to_piece(self._vocab, token, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    def ends(self, token: int) -> bool:
        return bool(native.llama_vocab_is_eog(self._vocab, token))

    def _marked(self, token: int) -> bytes:
        """The bytes of a token as a grammar reads them. Special tokens begin with 0xff, which no text has."""
        # Not `piece`, which keeps what it has spelled: grammars ask for the whole vocabulary once.
        if native.llama_vocab_get_attr(self._vocab, token) & _NO_TEXT:
            return b"\xff" + self._text(token, special=True)
        return self._text(token, special=token in self._visible)

    def decode(self, batch: Batch) -> None:
        self._check_open()
        count = len(batch.tokens)
        if not 0 < count <= self.batch_size:
            raise EngineFailed(f"a batch of {count} tokens was asked for; between 1 and {self.batch_size} are possible")
        if len(batch.outputs) > self.most_outputs:
            raise EngineFailed(f"logits of {len(batch.outputs)} rows were asked for; {self.most_outputs} are possible")
        if self._stop.take():
            raise Aborted
        self._watch(count > _ABORTABLE_TOKENS or self._last_seconds > _ABORTABLE_SECONDS)
        started = time.perf_counter()
        self._top_tokens.clear()
        code = self._compute_with_hidden(batch) if batch.hidden else self._compute(batch)
        self._last_seconds = time.perf_counter() - started
        if code == 0:
            self._cache.decoded(batch)
            if self.mtp is not None:
                self.mtp.decoded(batch)
            return
        if code == 1:
            raise NoRoom(f"the KV cache of {self.context} tokens is full")
        if code == ABORTED:
            self._stop.take()
            raise Aborted
        raise EngineFailed(f"{self._path}: the engine failed to decode (code {code}): {log.take()}")

    def _compute(self, batch: Batch) -> int:
        """One pass; the result of llama_decode."""
        return int(native.llama_decode(self._context, self._batch.fill(batch)))

    def _compute_with_hidden(self, batch: Batch) -> int:
        """One pass that keeps the hidden states. The engine puts out every row of it, wanted or not."""
        if len(batch.outputs) < len(batch.tokens):
            raise EngineFailed(f"hidden states of {len(batch.outputs)} of {len(batch.tokens)} rows were asked for")
        native.llama_set_embeddings(self._context, True)
        try:
            return self._compute(batch)
        finally:
            native.llama_set_embeddings(self._context, False)

    def synchronize(self) -> None:
        """Wait until the last batch is computed. Reading logits waits anyway; measuring time needs this call."""
        native.llama_synchronize(self._context)

    def _watch(self, wanted: bool) -> None:
        if wanted != self._callback_set:
            callback = self._abort_callback if wanted else native.ggml_abort_callback(0)
            native.llama_set_abort_callback(self._context, callback, None)
            self._callback_set = wanted

    def _logits(self, row: int) -> NDArray[np.float32]:
        """A view of one row of logits, valid until the next decode."""
        address = logits_address(self._context, row)
        if not address:
            raise EngineFailed(f"row {row} of the last batch has no logits")
        # The engine keeps its output buffer, so there are few addresses; making a new view takes longer than sampling.
        view = self._views.get(address)
        if view is None:
            row_type = ctypes.c_float * self._vocab_size
            view = self._views[address] = np.ctypeslib.as_array(row_type.from_address(address))
        return view

    def sampler(self, params: SamplingParams, seed: int, prompt: Sequence[int] = ()) -> Draw:
        return Drawing(
            self._chains, params, seed, prompt, self._context, self._logits, self._vocab_size, self._top_tokens
        )

    def constraint(self, grammar: Grammar, begun: str = "") -> LlamaConstraint:
        self._check_open()
        return self._constraints.constraint(grammar, begun)

    def statistics(self, row: int, token: int) -> TokenStatistics:
        return statistics(self._logits(row), self._top_tokens.get(row), token, self._scratch)

    def entropy(self, row: int) -> float:
        """The entropy of the next token in a row of the last decode, in nats."""
        return entropy(self._logits(row), self._scratch)

    def logprobs(self, row: int, token: int, count: int) -> Logprobs:
        drawn, top = logprobs(self._logits(row), token, count)
        return Logprobs(drawn, tuple(TokenLogprob(each, self.piece(each), value) for each, value in top))

    def hidden_state(self, row: int) -> tuple[float, ...]:
        found = native.llama_get_embeddings_ith(self._context, row)
        if not found:
            raise EngineFailed(f"row {row} of the last batch has no hidden state")
        return tuple(found[: int(native.llama_model_n_embd_out(self._model))])

    def fork(self, source: int, target: int) -> None:
        self._cache.fork(source, target)
        if self.mtp is not None:
            self.mtp.fork(source, target)

    def trim(self, slot: int, length: int) -> bool:
        self._check_open()
        trimmed = self._cache.trim(slot, length)
        if trimmed and self.mtp is not None:
            self.mtp.trim(slot, length)
        return trimmed

    def earliest(self, slot: int) -> int:
        return self._cache.earliest(slot)

    def checkpoint(self, slot: int) -> Checkpoint | None:
        return self._cache.checkpoint(slot)

    def restore(self, checkpoint: Checkpoint, slot: int) -> bool:
        self._check_open()
        restored = self._cache.restore(checkpoint, slot)
        if self.mtp is not None:
            self.mtp.trim(slot, checkpoint.length if restored else 0)
        return restored

    def graft(self, source: int, begin: int, end: int, target: int) -> None:
        self._check_open()
        self._cache.graft(source, begin, end, target)

    def save(self, slot: int) -> bytes | None:
        return self._cache.save(slot)

    def load(self, slot: int, data: bytes) -> bool:
        self._check_open()
        if self.mtp is not None:
            self.mtp.trim(slot, 0)  # its layer has not read these tokens, which only weakens its guesses
        return self._cache.load(slot, data)

    def set_threads(self, threads: int, batch_threads: int) -> None:
        native.llama_set_n_threads(self._context, threads, batch_threads)
        if self.mtp is not None:
            self.mtp.set_threads(threads, batch_threads)


def _rope(yarn: Yarn | None) -> dict[str, Any]:
    """The parameters of llama_context_params for YaRN; the engine computes the sharpening from the factor."""
    if yarn is None:
        return {}
    return {
        "rope_scaling_type": native.LLAMA_ROPE_SCALING_TYPE_YARN,
        "rope_freq_scale": 1 / yarn.factor,
        "yarn_ext_factor": 1.0,
        "yarn_orig_ctx": yarn.original,
    }
