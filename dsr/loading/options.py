"""How to load a model: the user's choices, and what the task needs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.base.errors import NotFound, UsageError
from runtime.engine.speculation import LONGEST_AHEAD, LONGEST_DRAFT
from runtime.gguf.rope import MOST_FACTOR, Yarn
from runtime.nodes.addresses import NodeEntry

AUTO, OFF = "auto", "off"  # values of options: dsr decides, or does not
NGRAM, MTP = "ngram", "mtp"  # values of `draft` that are not the name of a model
ROUTE_HINT = "name one of the same family: --draft MODEL --route 0.2"
_MOST_SCALE = 100.0  # of a LoRA adapter: beyond it nothing of the model is left
REPLY_TOKENS = 4096  # room for each of several samples, thought and answer together, where no limit is given


@dataclass(frozen=True, slots=True)
class RopeRequest:
    """`--rope`: YaRN with this `factor`; with None, the factor that the context needs."""

    factor: float | None = None


def rope_request(text: str | None) -> RopeRequest | None:
    """The value of `--rope`: yarn or yarn:FACTOR. Raises UsageError."""
    if text is None:
        return None
    kind, colon, factor = text.partition(":")
    if kind == "yarn" and not colon:
        return RopeRequest()
    try:
        number = float(factor)
    except ValueError:
        number = math.nan
    if kind != "yarn" or not math.isfinite(number):
        raise UsageError(
            f"--rope is yarn or yarn:FACTOR, not {text!r}", hint="for twice the trained length: --rope yarn:2"
        )
    if not 1 < number <= MOST_FACTOR:
        raise UsageError(
            f"--rope {text}: the factor is above 1 and at most {MOST_FACTOR:g}",
            hint="for twice the trained length: --rope yarn:2",
        )
    return RopeRequest(number)


@dataclass(frozen=True, slots=True)
class LoraRequest:
    """`--lora`: the file of an adapter, and what multiplies its effect."""

    path: Path
    scale: float = 1.0


def lora_request(text: str) -> LoraRequest:
    """The value of `--lora`: FILE or FILE:SCALE; a file whose whole name this is has scale 1.

    Raises UsageError for a scale that cannot be used, NotFound if there is no such file.
    """
    if Path(text).exists():
        return LoraRequest(Path(text))
    name, _, number = text.rpartition(":")
    try:
        scale = float(number)
    except ValueError:
        raise _no_adapter(text) from None
    if not name or not -_MOST_SCALE <= scale <= _MOST_SCALE:
        raise UsageError(
            f"--lora {text}: the scale must be between -{_MOST_SCALE:g} and {_MOST_SCALE:g}, not {number}",
            hint="for half of the adapter's effect: --lora FILE:0.5",
        )
    if not Path(name).exists():
        raise _no_adapter(name)
    return LoraRequest(Path(name), scale)


def _no_adapter(name: str) -> NotFound:
    return NotFound(
        f"--lora {name}: no such file", hint="give the path of a LoRA adapter, a GGUF file: --lora FILE[:SCALE]"
    )


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load a model. `context` None leaves its size to the model and the machine. `usual_context` is the size in
    the settings, for models that reach it; once it is settled, it is None if another context was asked for.

    `rope` asks for texts beyond the trained length; `dsr.loading.reach.settled` makes the `yarn` of a model from it.

    `kv_type` names the type of the KV cache, or those of keys and values: "k=q8_0,v=q4_0". With `kv_full`, layers with
    a sliding window cache all tokens, not the window alone.

    `lora` are adapters that change the model's weights.

    `from_disk` "auto" runs a model that is larger than memory from the disk (`dsr.loading.from_disk`); "off": the
    system maps its file, or dsr refuses it.

    `slots`: the most samples that are drawn at once, if there is room for them. `reply_tokens`: the room each of them
    should have, 0 where it is not known whether several will be drawn. `template` replaces the chat template of the
    file. `draft` names a second model that drafts tokens, or is "ngram" or "mtp". With `route`, that second model draws
    the tokens itself, and the model only those where the entropy of the second one is above `route`, in nats. `nodes`
    share the work; `retry` goes on at once without a node that is lost.

    Speeds are predicted where the number of threads is left to the machine and the machine's speeds are known.
    `predict` also predicts for a given number of threads, `measure` also measures speeds that are not known.
    """

    context: int | None = None
    kv_type: str = "f16"
    slots: int = 1
    reply_tokens: int = 0
    template: str | None = None
    draft: str | None = None
    route: float | None = None
    nodes: tuple[NodeEntry, ...] = ()
    retry: bool = False
    predict: bool = False
    measure: bool = False
    kv_full: bool = False
    usual_context: int | None = None
    rope: RopeRequest | None = None
    yarn: Yarn | None = None
    lora: tuple[LoraRequest, ...] = ()
    from_disk: str = "auto"

    def __post_init__(self) -> None:
        if self.from_disk not in (AUTO, OFF):
            raise UsageError(f"--from-disk must be auto or off, not {self.from_disk!r}")
        if self.route is None:
            return
        if not (math.isfinite(self.route) and self.route >= 0):
            raise UsageError(f"--route is an entropy in nats, 0 or more, not {self.route:g}", hint=ROUTE_HINT)
        if self.draft in (None, NGRAM, MTP):
            raise UsageError("--route needs a small model that writes most of the tokens", hint=ROUTE_HINT)

    @property
    def mtp(self) -> bool:
        """Whether the model's own MTP layers draft."""
        return self.draft == MTP

    @property
    def drafted(self) -> int:
        """The most tokens that are drafted and checked at once."""
        return LONGEST_AHEAD if self.mtp else LONGEST_DRAFT if self.draft and self.route is None else 0

    def for_samples(self, samples: int, max_tokens: int | None = None) -> LoadOptions:
        """These options with room for `samples` that are drawn together, each of at most `max_tokens`."""
        return replace(self, slots=samples, reply_tokens=(max_tokens or REPLY_TOKENS) if samples > 1 else 0)


@dataclass(frozen=True, slots=True)
class ExpertsRequest:
    """`task` is a profiled task, or "auto": the first question decides.

    `keep` is "auto" (the fewest experts below the limit of the KL divergence), a number of experts per layer, or a
    share such as "50%".
    """

    task: str = AUTO
    keep: str = AUTO


def experts_request(task: str | None, keep: str | None) -> ExpertsRequest | None:
    """None for all experts. Raises UsageError for `--keep` without `--experts`."""
    if task is None or task == OFF:
        if keep is not None:
            raise UsageError("--keep needs a task: it sets how many of its experts to keep", hint="add --experts auto")
        return None
    return ExpertsRequest(task, keep or AUTO)
