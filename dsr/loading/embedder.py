"""From a model to an open embedder: check memory, try the file, open."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from dsr.loading.tried_files import try_embedder_once
from dsr.models.model import Model
from runtime.base.run import MOST_THREADS, Run
from runtime.engine.embedding import TextEmbedder
from runtime.gguf.embedding import EmbeddingForm
from runtime.machine.host import busy_cores, probe
from runtime.machine.machine import usable
from runtime.placement.embedding import plan_embedding


@dataclass(frozen=True, slots=True)
class LoadedEmbedder:
    """A model that is open for embeddings."""

    model: Model
    embedder: TextEmbedder
    form: EmbeddingForm
    threads: int
    load_seconds: float


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
