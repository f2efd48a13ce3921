"""What drafts tokens for a model: from `--draft MODEL`, `--draft ngram` or `--draft mtp` to a drafter.

With `--route`, the second model draws the tokens itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dsr.loading.options import MTP, NGRAM, LoadOptions
from dsr.models import library
from dsr.models.model import Model
from runtime.base.errors import EngineFailed, Incompatible, UsageError
from runtime.base.run import Run
from runtime.engine.backend import Backend
from runtime.engine.routing import RoutedBackend
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
    """A second model that drafts. `vocabulary` is the number of tokens that it has in common with the first.

    Its cache has `context` tokens for all of `slots` samples.
    """

    model: Model
    vocabulary: int
    context: int
    slots: int = 1

    @property
    def memory(self) -> int:
        """Bytes that it needs in addition to the first model."""
        return memory.need(self.model.card, self.context, self.slots).total


def find_draft_model(draft: str, card: ModelCard, context: int | None, slots: int = 1) -> DraftModel | None:
    """The model that drafts for `card`; None where `draft` names no second model. `slots`: the samples it is asked for.

    Raises NotFound, BadModelFile, and Incompatible for a vocabulary that differs from that of `card`.
    """
    if draft in (NGRAM, MTP):
        return None
    model = library.find(draft)
    context = min(context or card.context_length, model.card.context_length, _MAX_DRAFT_CONTEXT)
    return DraftModel(model, common_vocabulary(card, model.card), context, slots)


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
def with_draft(
    options: LoadOptions, model: DraftModel | None, backend: Backend, threads: int, run: Run
) -> Iterator[tuple[Backend, Drafter | None]]:
    """What draws, and what drafts for it, open for the length of the block.

    With `options.route` that is `backend` together with `model` (`runtime.engine.routing`), and nothing drafts.
    """
    from runtime.llama import LlamaBackend, OpenOptions

    if options.draft is None:
        yield backend, None
        return
    if model is None:
        layers = backend.mtp if isinstance(backend, LlamaBackend) else None
        yield backend, NgramDrafter() if options.draft == NGRAM else MtpDrafter(layers) if layers is not None else None
        return
    slots = backend.slots if options.route is not None else 1
    # Its memory was counted as the CPU's.
    opened = OpenOptions(context=model.context, slots=slots, threads=threads, gpus=())
    with LlamaBackend(model.model.path, opened, run) as small:
        if options.route is not None:
            yield RoutedBackend(backend, small, options.route), None
        else:
            yield backend, ModelDrafter(small, model.vocabulary)
