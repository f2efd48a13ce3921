"""A model opened in llama.cpp to turn texts into vectors.

Pitfalls of llama.cpp (src/llama-context.cpp, release 0.3.36) that are handled here:
- A batch above n_ubatch ends the process where the model has no cache (encode), and the pooled vector of a text that
  lies in two passes through the graph is that of the second.
- A position behind a table of learned positions ends the process.
- `llama_decode` of a model that is an encoder alone, but has a cache (T5), needs `llama_encode` instead.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runtime.base.errors import Aborted, DoesNotFit, EngineFailed
from runtime.base.run import Run
from runtime.engine.backend import Batch
from runtime.engine.embedding import EmbedOptions, Part, Vector, batches, check_dimensions, check_texts, unit
from runtime.gguf.embedding import Pooling
from runtime.llama.batch import NativeBatch
from runtime.llama.defaults import context_params, model_params
from runtime.llama.load_model import hint_of, load_model
from runtime.llama.native import log, native
from runtime.llama.tokenizer import Tokenizer

_POOLINGS: dict[Pooling, int] = {"mean": 1, "cls": 2, "last": 3}  # enum llama_pooling_type (llama.h)


class Embedder:
    """A model opened for embeddings; a context manager that frees native memory on exit, context before model."""

    def __init__(self, path: Path, options: EmbedOptions, run: Run | None = None, *, model: Any = None) -> None:
        """Load `path` (shard 1 of a split file). `run` reports progress and can stop loading and computing.

        With `model`, a `llama_model *` of this file, its weights are shared; it must stay open until this is closed.
        Without `run.threads` one thread computes. Raises EngineFailed, DoesNotFit, or Aborted if a stop was wanted.
        """
        run = run or Run()
        self._path, self._options, self._stop, self._threads = path, options, run.stop, run.threads or 1
        self._closed = False
        self._stack = ExitStack()
        with ExitStack() as opening:
            opening.callback(self._stack.close)
            if model is None:
                model = load_model(path, lambda callback: self._model_params(progress_callback=callback), run)
                self._stack.callback(native.llama_model_free, model)
            self._model = model
            vocab = native.llama_model_get_vocab(self._model)
            self.tokenizer = Tokenizer(vocab, self._stop)
            self._vocab_size = int(native.llama_vocab_n_tokens(vocab))
            self._abort_callback = native.ggml_abort_callback(lambda _: self._stop.wanted)
            self._context = self._new_context()
            self._stack.callback(native.llama_free, self._context)
            native.llama_set_abort_callback(self._context, self._abort_callback, None)
            self._memory = native.llama_get_memory(self._context)
            encodes = native.llama_model_has_encoder(self._model) and not native.llama_model_has_decoder(self._model)
            self._compute = native.llama_encode if encodes else native.llama_decode
            self._dimensions = int(native.llama_model_n_embd_out(self._model))
            self._batch = NativeBatch(options.room)
            opening.pop_all()

    def _model_params(self, **given: Any) -> Any:
        return model_params(load_mtp=False, **given)

    def _new_context(self) -> Any:
        options = self._options
        log.take()
        context = native.llama_init_from_model(
            self._model,
            context_params(
                n_ctx=max(options.longest, options.room),
                n_batch=options.room,
                n_ubatch=options.room,
                n_seq_max=options.sequences,
                n_outputs_max=options.room,
                n_threads=self._threads,
                n_threads_batch=self._threads,
                pooling_type=_POOLINGS[options.pooling],
                embeddings=True,
                swa_full=True,  # a text stays only as long as it is read, so windows save little
            ),
        )
        if context:
            return context
        said = log.take("out of memory")
        if "memory" in said or "alloc" in said:
            raise DoesNotFit(
                f"no room to embed texts of {options.longest} tokens: {said}",
                hint=f"try --ctx-size {max(512, options.longest // 4)}",
            )
        raise EngineFailed(f"{self._path}: the engine cannot run it: {said}", hint=hint_of(said))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the model. After that `embed` raises EngineFailed."""
        self._closed = True
        self._stack.close()

    @property
    def dimensions(self) -> int:
        return self._dimensions

    @property
    def longest(self) -> int:
        return self._options.longest

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    def tokenize(self, text: str) -> list[int]:
        return self.tokenizer.whole(text)

    def shorten(self, tokens: Sequence[int]) -> list[int]:
        if len(tokens) <= self.longest:
            return list(tokens)
        end = list(self.tokenizer.end)
        end = end if end and list(tokens[-len(end) :]) == end and len(end) < self.longest else []
        return [*tokens[: self.longest - len(end)], *end]

    def embed(self, texts: Sequence[Sequence[int]], dimensions: int | None = None) -> list[Vector]:
        """See `runtime.engine.embedding.TextEmbedder`."""
        return [vector for done in self.embed_in_steps(texts, dimensions) for vector in done]

    def embed_in_steps(self, texts: Sequence[Sequence[int]], dimensions: int | None = None) -> Iterator[list[Vector]]:
        """See `runtime.engine.embedding.TextEmbedder`."""
        if self._closed:
            raise EngineFailed("the model is already closed")
        check_dimensions(dimensions, self._dimensions)
        check_texts(texts, longest=self.longest, vocab_size=self._vocab_size)
        options = self._options
        for parts in batches(
            [len(text) for text in texts],
            size=options.together,
            sequences=options.sequences,
            in_parts=options.in_parts,
        ):
            self._decode(texts, parts)
            yield [unit(self._pooled(part), dimensions) for part in parts if part.last]

    def _decode(self, texts: Sequence[Sequence[int]], parts: Sequence[Part]) -> None:
        """Compute the parts of one batch."""
        if self._stop.take():
            raise Aborted
        if self._memory and parts[0].begin == 0:
            native.llama_memory_seq_rm(self._memory, -1, -1, -1)  # forget all earlier texts
        batch = Batch()
        for part in parts:
            batch.add(list(texts[part.text][part.begin : part.end]), part.begin, part.sequence, output=False)
        batch.outputs = [*range(len(batch.tokens))]  # the engine pools over the rows that it puts out
        code = self._compute(self._context, self._batch.fill(batch))
        if code == 2:
            self._stop.take()
            raise Aborted
        if code != 0:
            raise EngineFailed(f"{self._path}: the engine failed to embed (code {code}): {log.take()}")

    def _pooled(self, part: Part) -> list[float]:
        """The engine's vector of the sequence in the last batch, not yet of length 1."""
        vector = native.llama_get_embeddings_seq(self._context, part.sequence)
        if not vector:
            raise EngineFailed(f"{self._path}: the engine gave no vector for text {part.text}")
        return ctypes.cast(vector, ctypes.POINTER(ctypes.c_float))[: self._dimensions]
