"""From a model to an open embedder: check memory, try the file, open."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from dsr.loading.load import LoadedModel
from dsr.loading.tried_files import try_embedder_once
from dsr.models.model import Model
from runtime.base.errors import Incompatible
from runtime.base.run import MOST_THREADS, Run
from runtime.base.types import ByteCount
from runtime.engine.embedding import TextEmbedder
from runtime.gguf.card import ModelCard
from runtime.gguf.embedding import EmbeddingForm, embedding_form
from runtime.machine.host import busy_cores, probe
from runtime.machine.machine import usable
from runtime.placement.embedding import plan_embedding

# Tokens of a text for a model that is open to answer: the memory for these vectors was not planned.
_BESIDE = 2048


@dataclass(frozen=True, slots=True)
class LoadedEmbedder:
    """A model that is open for embeddings."""

    model: Model
    embedder: TextEmbedder
    form: EmbeddingForm
    threads: int
    load_seconds: float


def embedder_beside(loaded: LoadedModel, run: Run) -> TextEmbedder:
    """An embedder with the weights of a model that is open to answer; close it before the model.

    Raises Incompatible and DoesNotFit as `load_embedder` does, and Incompatible for a model on nodes.
    """
    from runtime.llama import LlamaBackend

    if not isinstance(loaded.backend, LlamaBackend):
        raise Incompatible(f"{loaded.card.name}: a model on nodes does not embed", hint="serve it without --nodes")
    longest = min(embedding_form(loaded.card).longest, _BESIDE)
    plan = plan_embedding(loaded.card, usable(probe().memory_available), longest)
    try_embedder_once(loaded.model, run)
    return loaded.backend.embedder(plan.options, replace(run, threads=loaded.threads))


def text_length(card: ModelCard, context: int | None) -> int | None:
    """The `longest` text where a user gave a context for models of every kind: no more than this one reads."""
    return None if context is None else min(context, embedding_form(card).longest)


def embedding_need(model: Model, longest: int | None) -> ByteCount:
    """The bytes that the model takes when it is open for embeddings. Raises as `load_embedder` does."""
    return plan_embedding(model.card, usable(probe().memory_available), longest).need.total


@contextmanager
def load_embedder(model: Model, longest: int | None = None, run: Run | None = None) -> Iterator[LoadedEmbedder]:
    """Open a model for embeddings for the length of the block. `longest`: tokens of a text; None: `plan_embedding`'s.

    Without `run.threads` all cores compute that are free. Raises BadModelFile, Incompatible for a model that gives no
    vectors or crashes the engine, DoesNotFit, Aborted.
    """
    started, run = time.perf_counter(), run or Run()
    card, host = model.card, probe()
    plan = plan_embedding(card, usable(host.memory_available), longest)
    try_embedder_once(model, run)
    from runtime.llama import Embedder

    # Texts come in batches, which is prefill: the more cores the faster, as long as they are free.
    threads = run.threads or min(max(1, host.cores - busy_cores()), MOST_THREADS)
    with Embedder(model.path, plan.options, replace(run, threads=threads)) as embedder:
        yield LoadedEmbedder(model, embedder, plan.form, threads, time.perf_counter() - started)
