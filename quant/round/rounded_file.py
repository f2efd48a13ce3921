"""The keys `dsr.round.*` in the metadata of a file: how its weights were rounded."""

from __future__ import annotations

from dataclasses import dataclass

from quant.gguf.writer import KeyValue, boolean, text, texts, u32
from runtime.gguf.card import ModelCard
from runtime.gguf.metadata import Metadata

PREFIX = "dsr.round."
STAGED = boolean(f"{PREFIX}staged", True)


def tokens_read(count: int) -> KeyValue:
    """The entry for the tokens whose inputs were corrected for."""
    return u32(f"{PREFIX}tokens", count)


@dataclass(frozen=True, slots=True)
class RoundedFile:
    """How a file was rounded: the effort, how many tensors, and the text of the second moments (its tokens, names).

    `staged`: each matrix corrects the errors of those before it, too."""

    effort: str
    tensors: int
    tokens: int
    datasets: tuple[str, ...]
    staged: bool = False

    def entries(self) -> tuple[KeyValue, ...]:
        """The keys to write."""
        return (
            text(f"{PREFIX}effort", self.effort),
            u32(f"{PREFIX}tensors", self.tensors),
            tokens_read(self.tokens),
            texts(f"{PREFIX}datasets", [name.encode("utf-8", "replace") for name in self.datasets]),
            boolean(STAGED.key, self.staged),
        )


def read_rounding(card: ModelCard) -> RoundedFile | None:
    """How a file was rounded; None for one whose rounding corrects nothing, and for keys of another form."""
    effort, tensors = card.metadata.get(f"{PREFIX}effort"), card.metadata.get(f"{PREFIX}tensors")
    tokens = card.metadata.get(f"{PREFIX}tokens")
    if not (isinstance(effort, str) and isinstance(tensors, int) and isinstance(tokens, int)):
        return None
    names = Metadata(card.path, card.metadata, card.architecture).array(f"{PREFIX}datasets", ("str",))
    staged = card.metadata.get(STAGED.key) is True
    return RoundedFile(effort, tensors, tokens, names.strings() if names else (), staged)
