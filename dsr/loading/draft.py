"""What guesses ahead for a model: from `--draft MODEL`, `--draft ngram` or `--draft mtp` to a drafter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dsr.models import library
from dsr.models.model import Model
from runtime.base.errors import BadModelFile, EngineFailed, Incompatible, UsageError
from runtime.base.events import Listener
from runtime.base.run import Run, Stop
from runtime.engine.backend import Backend
from runtime.engine.speculation import Drafter, ModelDrafter, MtpDrafter, NgramDrafter, common_vocabulary
from runtime.gguf.reader import ModelCard
from runtime.placement import memory

NGRAM, MTP = "ngram", "mtp"

# Architectures for which llama.cpp has a graph of the layers that predict ahead (LLM_GRAPH_TYPE_DECODER_MTP in
# src/models). Tried here are deepseek2, glm4moe and qwen35. Left out are those whose recurrent layers or compressed
# caches cannot forget a wrong draft (qwen3next) or were not tried.
_PREDICTING = {
    "cohere2moe", "deepseek2", "deepseek32", "glm-dsa", "glm4moe", "hy_v3", "mimo2", "qwen35", "qwen35moe", "step35",
}  # fmt: skip
_INSTEAD = "try --draft ngram"

# Tokens up to which a second model follows a text: its own KV cache must fit beside that of the model.
_MOST_FOLLOWED = 16384


@dataclass(frozen=True, slots=True)
class DraftModel:
    """A second model, checked; `vocabulary` is the number of tokens it has in common with the first."""

    local: Model
    card: ModelCard
    vocabulary: int
    context: int

    @property
    def memory(self) -> int:
        """Bytes it needs beside the first model."""
        return memory.need(self.card, self.context).total


def draft_model(draft: str | None, card: ModelCard, context: int | None) -> DraftModel | None:
    """The model that is to draft for `card`; None where no second model is wanted.

    Raises NotFound, BadModelFile, and Incompatible for a vocabulary other than that of `card`.
    """
    if draft is None or draft in (NGRAM, MTP):
        return None
    local = library.find(draft)
    second = local.card
    context = min(context or card.context_length, second.context_length, _MOST_FOLLOWED)
    return DraftModel(local, second, common_vocabulary(card, second), context)


def check_mtp(card: ModelCard, *, nodes: bool) -> None:
    """Raises Incompatible for a file whose layers that predict ahead are not there or not to be used, and UsageError
    where `nodes` share the work."""
    if nodes:
        raise UsageError("--draft mtp and --nodes exclude each other: MTP layers run on one machine", hint=_INSTEAD)
    if not card.nextn_layers:
        raise Incompatible(f"{card.name}: this file carries no MTP layers to draft with", hint=_INSTEAD)
    names = {tensor.name for tensor in card.tensors}
    if f"blk.{card.layers - card.nextn_layers}.nextn.eh_proj.weight" not in names:
        raise Incompatible(f"{card.name}: this file names MTP layers, but their weights were left out", hint=_INSTEAD)
    if card.architecture not in _PREDICTING:
        raise Incompatible(
            f"{card.name}: the engine cannot draft with the MTP layers of {card.architecture}", hint=_INSTEAD
        )
    if card.nextn_layers > 1:
        raise Incompatible(
            f"{card.name}: this file carries {card.nextn_layers} MTP layers; drafts are made with one", hint=_INSTEAD
        )


def unusable_mtp(card: ModelCard, error: BadModelFile | EngineFailed) -> Incompatible:
    """What to say of MTP layers that the engine failed to open. For many it has assertions, not messages."""
    reason = "it crashes on them" if isinstance(error, BadModelFile) else error.message
    return Incompatible(f"{card.name}: the engine cannot use the MTP layers of this file: {reason}", hint=_INSTEAD)


@contextmanager
def drafting(
    draft: str | None,
    model: DraftModel | None,
    backend: Backend,
    threads: int,
    *,
    stop: Stop | None,
    listen: Listener,
) -> Iterator[Drafter | None]:
    """The drafter for `backend`, for the length of the block; None where nothing drafts."""
    from runtime.llama import LlamaBackend, OpenOptions

    if model is None:
        layers = backend.mtp if isinstance(backend, LlamaBackend) else None
        yield NgramDrafter() if draft == NGRAM else MtpDrafter(layers) if layers is not None else None
        return
    options = OpenOptions(context=model.context, threads=threads, gpus=())  # its memory was counted as the CPU's
    with LlamaBackend(model.local.path, options, Run(stop or Stop(), listen)) as backend:
        yield ModelDrafter(backend, model.vocabulary)
