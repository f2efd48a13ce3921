"""The first opening of a model file happens in a child: a file that crashes the engine does not crash dsr."""

from __future__ import annotations

from importlib.metadata import version

from dsr.loading.draft import check_mtp, unusable_mtp
from dsr.loading.options import LoadOptions
from dsr.models.model import Model
from dsr.store import paths
from runtime.base.errors import BadModelFile, EngineFailed
from runtime.base.keyed_cache import KeyedCache


def try_model(model: Model, options: LoadOptions) -> None:
    """Try the model, and its MTP layers where they draft.

    Raises BadModelFile for a file that cannot be trusted, Incompatible for one that the engine cannot use.
    """
    try_once(model)
    if options.mtp:
        check_mtp(model.card, nodes=bool(options.nodes))
        try:
            try_once(model, mtp=True)
        except (BadModelFile, EngineFailed) as error:
            raise unusable_mtp(model.card, error) from None


def try_once(model: Model, *, mtp: bool = False) -> None:
    """Open the model in a child process, unless it comes with dsr or a file with the same header passed before."""
    from runtime.llama.trial import try_in_child, try_mtp_in_child

    if model.embedded:
        return
    key = f"{model.card.header_digest}-{version('llama-cpp-python')}{'-mtp' if mtp else ''}"
    passed = KeyedCache(paths.cache_folder() / "tried.json", bool)
    if not passed.get(key):
        (try_mtp_in_child if mtp else try_in_child)(model.path)
        passed.put({key: True})
