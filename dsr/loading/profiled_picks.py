"""How often the profiled tasks of a model chose each expert (`dsr experts profile`)."""

from __future__ import annotations

from contextlib import suppress

from dsr.loading.from_disk import Picks
from dsr.store import paths
from runtime.base.errors import DsrError
from runtime.gguf.card import ModelCard, layer_count


def profiled_picks(card: ModelCard) -> dict[str, Picks]:
    """The picks of each readable profile that belongs to this model, by task; empty without any."""
    if not card.experts or not any(paths.experts_folder().glob("*/*.gguf")):
        return {}
    from quant.experts.profile import ProfileStore, router_digest

    found: dict[str, Picks] = {}
    with suppress(DsrError):  # the profiles only make a forecast better
        store, digest = ProfileStore(paths.experts_folder()), router_digest(card)
        for task in store.tasks(digest):
            with suppress(DsrError):
                profile = store.get(digest, task)
                routing = {n: each for n, each in profile.routing.items() if n < layer_count(card)}
                if profile.experts == card.experts:
                    found[task] = {n: tuple(map(float, each.selected)) for n, each in routing.items()}
    return found
