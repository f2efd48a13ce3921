"""The one model that dsr recommends for this machine: chosen with measured speeds, kept, and named the same everywhere.

To choose takes about a second; to read the kept choice takes a millisecond. `dsr list --catalog` and `dsr plan` choose
again and replace it. A kept choice counts for one machine and one version of dsr.
"""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

from dsr import __version__
from dsr.store import paths
from runtime.base.keyed_cache import KeyedCache

if TYPE_CHECKING:
    from dsr.plan.runnable import RunnableModel
    from runtime.base.events import Listener
    from runtime.machine.machine import Machine


def kept() -> str | None:
    """The command that downloads the recommended model, with its figures; None before the first choice."""
    return _cache().get(_key())


def measured(listen: Listener) -> str | None:
    """The kept recommendation, or one that is chosen now; None where nothing can be measured or no model fits."""
    from dsr.plan.suggest import machine_for_suggestions

    found = kept()
    if found is None and (machine := machine_for_suggestions(listen)) is not None:
        choose(machine)
        found = kept()
    return found


def choose(machine: Machine) -> RunnableModel | None:
    """The recommended model for this machine, which is kept."""
    from dsr.models.catalog import load
    from dsr.plan.suggest import recent_thinkers, suggestion

    row = suggestion(recent_thinkers(load()), machine)
    if row is not None:
        _cache().put({_key(): pull_line(row)})
    return row


def pull_line(row: RunnableModel) -> str:
    """The command that downloads a model, with the bytes to download and the speed: 'dsr pull qwen3:8b (~4.81 GiB, ~9
    tokens/s)'."""
    from dsr.models.catalog import load
    from dsr.plan.estimate import estimated_card
    from dsr.plan.report import figure

    entry = load().lookup(row.name)
    download = f"~{estimated_card(entry, row.quant).weights_size}, " if entry is not None else ""
    return f"dsr pull {row.name} ({download}~{figure(row.tokens_per_second)} tokens/s)"


def _key() -> str:
    return f"{platform.node()}, {os.cpu_count()} CPUs, dsr {__version__}"


def _cache() -> KeyedCache[str]:
    return KeyedCache(paths.cache_folder() / "recommended.json", str)
