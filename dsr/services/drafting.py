"""What guesses ahead for a model: from `--draft MODEL`, `--draft ngram` or `--draft mtp` to a drafter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dsr import library
from dsr.library import LocalModel
from runtime import memory
from runtime.backend import Stop
from runtime.errors import Incompatible
from runtime.events import Listener
from runtime.gguf import ModelCard, read_card
from runtime.speculation import Drafter, ModelDrafter, NgramDrafter, common_vocabulary

NGRAM, MTP = "ngram", "mtp"

# Tokens up to which a second model follows a text: its own KV cache must fit beside that of the model.
_MOST_FOLLOWED = 16384


@dataclass(frozen=True, slots=True)
class DraftModel:
    """A second model, checked; `vocabulary` is the number of tokens it has in common with the first."""

    local: LocalModel
    card: ModelCard
    vocabulary: int
    context: int

    @property
    def memory(self) -> int:
        """Bytes it needs beside the first model."""
        return memory.need(self.card, self.context).total


def draft_model(draft: str | None, card: ModelCard, context: int | None) -> DraftModel | None:
    """The model that is to draft for `card`; None where no second model is wanted.

    Raises NotFound, BadModelFile, and Incompatible for a vocabulary other than that of `card` or for a file from which
    drafts cannot be made.
    """
    if draft == MTP:
        if not card.nextn_layers:
            raise Incompatible(f"{card.name}: this file carries no MTP layers to draft with", hint="try --draft ngram")
        raise Incompatible("drafting with MTP layers is not supported", hint="try --draft ngram")
    if draft is None or draft == NGRAM:
        return None
    local = library.find(draft)
    second = read_card(local.path)
    context = min(context or card.context_length, second.context_length, _MOST_FOLLOWED)
    return DraftModel(local, second, common_vocabulary(card, second), context)


@contextmanager
def drafting(
    draft: str | None, model: DraftModel | None, threads: int, *, stop: Stop | None, listen: Listener
) -> Iterator[Drafter | None]:
    """The drafter, for the length of the block; None where nothing drafts."""
    if model is None:
        yield NgramDrafter() if draft == NGRAM else None
        return
    from runtime.llama import LlamaBackend, OpenOptions

    options = OpenOptions(context=model.context, threads=threads)
    with LlamaBackend(model.local.path, options, stop=stop, listen=listen) as backend:
        yield ModelDrafter(backend, model.vocabulary)
