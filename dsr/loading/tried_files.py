"""Tries a model file in a child process, once for each file, engine and way to open it."""

from __future__ import annotations

import hashlib

from dsr.loading.draft import check_mtp, unusable_mtp
from dsr.loading.options import LoadOptions
from dsr.loading.state_identity import file_facts
from dsr.models.model import Model
from dsr.store import paths
from runtime.base.errors import EngineFailed
from runtime.base.keyed_cache import KeyedCache
from runtime.base.run import Run
from runtime.base.types import listed
from runtime.gguf.adapter import Adapter
from runtime.gguf.card import ModelCard
from runtime.gguf.engine_lists import check_answers
from runtime.placement.trial import try_embedder, try_file


def try_model(model: Model, options: LoadOptions, run: Run, adapters: tuple[Adapter, ...] = ()) -> None:
    """Try the model as `options` open it, with its MTP layers where they draft. Raises as `try_once` does.

    Then try it with its LoRA `adapters`. Raises Incompatible for MTP layers that the engine cannot use.
    """
    try_once(model, run, options.kv_type, kv_full=options.kv_full)
    if options.mtp:
        check_mtp(model.card, nodes=bool(options.nodes))
        try:
            try_once(model, run, options.kv_type, kv_full=options.kv_full, mtp=True)
        except EngineFailed as error:
            raise unusable_mtp(model.card, error) from None
    if adapters:
        try:
            try_once(model, run, options.kv_type, kv_full=options.kv_full, adapters=adapters)
        except EngineFailed as error:
            names = listed([str(each.path) for each in adapters])
            raise EngineFailed(f"with --lora {names}: {error.message}", hint="leave out --lora") from None


def try_once(
    model: Model,
    run: Run | None = None,
    kv_type: str = "f16",
    *,
    kv_full: bool = False,
    mtp: bool = False,
    adapters: tuple[Adapter, ...] = (),
) -> None:
    """Open the model in a child process, so that a file that crashes the engine does not crash dsr.

    A model that comes with dsr is not tried, nor a file that passed before and did not change since. Raises
    Incompatible for a model that the engine does not know, EngineFailed, DoesNotFit, Aborted.
    """
    if model.embedded and not adapters:
        return
    check_answers(model.card)
    passed = KeyedCache(paths.cache_folder() / "tried.json", bool)
    key = _key(model.card, kv_type, kv_full=kv_full, mtp=mtp, adapters=adapters)
    if not passed.get(key):
        try_file(model.card, run or Run(), kv_type, kv_full=kv_full, mtp=mtp, adapters=adapters)
        passed.put({key: True})


def try_embedder_once(model: Model, run: Run) -> None:
    """`try_once` for a model that is opened for embeddings."""
    if model.embedded:
        return
    passed = KeyedCache(paths.cache_folder() / "tried.json", bool)
    key = _key(model.card, "embeddings", kv_full=False, mtp=False, adapters=())
    if not passed.get(key):
        try_embedder(model.card, run)
        passed.put({key: True})


def _key(card: ModelCard, kv_type: str, *, kv_full: bool, mtp: bool, adapters: tuple[Adapter, ...]) -> str:
    """Names everything that the result depends on: the files, the engine with the features of its build and of this
    CPU, and the way of opening."""
    from runtime.llama import ENGINE_VERSION, features

    facts = (*file_facts(card), ENGINE_VERSION, features(), kv_type, kv_full, mtp, *([adapters] if adapters else []))
    return hashlib.sha256(repr(facts).encode()).hexdigest()
