"""How to open a model in the engine."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.base.errors import UsageError
from runtime.base.run import MOST_THREADS
from runtime.engine.backend import ROWS
from runtime.from_disk.units import FromDisk
from runtime.gguf.adapter import Adapter
from runtime.gguf.kv_types import kv_types
from runtime.gguf.rope import Yarn


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How to open a model. All slots share a `context` in tokens. `kv_type`: see `runtime.gguf.kv_types`. With
    `kv_full`, layers with a sliding window cache the whole context, too.

    `visible` are control tokens to show as text. `drafted` is the largest number of draft tokens checked at once. `mtp`
    loads the layers for multi-token prediction. `yarn` scales the positions. `reach` is the most tokens of one text;
    None: the engine's own number.

    `nodes` are addresses ("host:port") of reachable nodes and `gpus` names of local GPUs. `layers` is the number of
    layers for each of these devices, in this order: the last ones of the model, with the head as one more. Tensors
    whose names match `kept` stay on the CPU. Without nodes and with `gpus` None, the engine fills the GPUs it sees.

    `adapters` are LoRA adapters that were checked for this model. `from_disk`: some weights stay on the disk until they
    are used; None: all are in memory. It excludes nodes, GPUs, MTP and adapters. A pass has at most `rows` tokens.
    """

    context: int
    slots: int = 1
    threads: int = 1
    batch_threads: int | None = None
    kv_type: str = "f16"
    kv_full: bool = False
    visible: tuple[str, ...] = ()
    drafted: int = 0
    mtp: bool = False
    nodes: tuple[str, ...] = ()
    gpus: tuple[str, ...] | None = None
    layers: tuple[int, ...] = ()
    kept: tuple[str, ...] = ()
    yarn: Yarn | None = None
    reach: int | None = None
    adapters: tuple[Adapter, ...] = ()
    from_disk: FromDisk | None = None
    rows: int = ROWS

    def __post_init__(self) -> None:
        kv_types(self.kv_type)
        if not 1 <= self.slots < 256:
            raise UsageError(f"between 1 and 255 samples can be open at once, not {self.slots}")
        if not 1 <= self.context < 2**31:
            raise UsageError(f"a context has between 1 and {2**31 - 1} tokens, not {self.context}")
        if not 1 <= self.threads <= MOST_THREADS:
            raise UsageError(f"between 1 and {MOST_THREADS} threads can be used, not {self.threads}")
