"""What drafts tokens for a model: from `--draft MODEL`, `--draft ngram` or `--draft mtp` to a drafter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dsr.loading.options import MTP, NGRAM
from dsr.models import library
from dsr.models.model import Model
from runtime.base.errors import EngineFailed, Incompatible, UsageError
from runtime.base.run import Run
from runtime.engine.backend import Backend
from runtime.engine.speculation import Drafter, ModelDrafter, MtpDrafter, NgramDrafter, common_vocabulary
from runtime.gguf.card import ModelCard
from runtime.placement import memory

# Architectures whose MTP layers llama.cpp can compute (LLM_GRAPH_TYPE_DECODER_MTP in src/models). deepseek2, glm4moe
# and qwen35 were tried. qwen3next is left out: its recurrent layers cannot forget a wrong draft.
_MTP_ARCHITECTURES = {
    "cohere2moe", "deepseek2", "deepseek32", "glm-dsa", "glm4moe", "hy_v3", "mimo2", "qwen35", "qwen35moe", "step35",
}  # fmt: skip
_HINT = "try --draft ngram"

# The most tokens of context of a draft model: its KV cache must fit in memory together with that of the model.
_MAX_DRAFT_CONTEXT = 16384


@dataclass(frozen=True, slots=True)
class DraftModel:
    """A second model that drafts. `vocabulary` is the number of tokens that it has in common with the first."""

    model: Model
    vocabulary: int
    context: int

    @property
    def memory(self) -> int:
        """Bytes that it needs in addition to the first model."""
        return memory.need(self.model.card, self.context).total


def find_draft_model(draft: str, card: ModelCard, context: int | None) -> DraftModel | None:
    """The model that drafts for `card`; None where `draft` names no second model.

    Raises NotFound, BadModelFile, and Incompatible for a vocabulary that differs from that of `card`.
    """
    if draft in (NGRAM, MTP):
        return None
    model = library.find(draft)
    context = min(context or card.context_length, model.card.context_length, _MAX_DRAFT_CONTEXT)
    return DraftModel(model, common_vocabulary(card, model.card), context)


def check_mtp(card: ModelCard, *, nodes: bool) -> None:
    """Check that the file has MTP layers which the engine can use.

    Raises Incompatible where it has not, and UsageError where `nodes` share the work.
    """
    if nodes:
        raise UsageError("--draft mtp and --nodes exclude each other: MTP layers run on one machine", hint=_HINT)
    if not card.nextn_layers:
        raise Incompatible(f"{card.name}: this file carries no MTP layers to draft with", hint=_HINT)
    names = {tensor.name for tensor in card.tensors}
    if f"blk.{card.layers - card.nextn_layers}.nextn.eh_proj.weight" not in names:
        raise Incompatible(f"{card.name}: this file names MTP layers, but their weights were left out", hint=_HINT)
    if card.architecture not in _MTP_ARCHITECTURES:
        raise Incompatible(
            f"{card.name}: the engine cannot draft with the MTP layers of {card.architecture}", hint=_HINT
        )
    if card.nextn_layers > 1:
        raise Incompatible(
            f"{card.name}: this file carries {card.nextn_layers} MTP layers; drafts are made with one", hint=_HINT
        )


def unusable_mtp(card: ModelCard, error: EngineFailed) -> Incompatible:
    """The error for MTP layers that the engine failed to open."""
    reason = error.message.removeprefix(f"{card.path}: ")
    return Incompatible(f"{card.path}: the engine cannot use the MTP layers of this file: {reason}", hint=_HINT)


@contextmanager
def open_drafter(
    draft: str, model: DraftModel | None, backend: Backend, threads: int, run: Run
) -> Iterator[Drafter | None]:
    """The drafter for `backend`, open for the length of the block; None where the file has no MTP layers."""
    from runtime.llama import LlamaBackend, OpenOptions

    if model is None:
        layers = backend.mtp if isinstance(backend, LlamaBackend) else None
        yield NgramDrafter() if draft == NGRAM else MtpDrafter(layers) if layers is not None else None
        return
    options = OpenOptions(context=model.context, threads=threads, gpus=())  # its memory was counted as the CPU's
    with LlamaBackend(model.model.path, options, run) as backend:
        yield ModelDrafter(backend, model.vocabulary)
