"""What a model reference means on this machine: files, catalogue entry, header, and how the model is talked to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from dsr.models.catalog import CatalogEntry
from dsr.models.chat_format import ChatFormat
from dsr.models.sampling import RecommendedSampling, recommended_sampling
from runtime.base.types import ByteCount
from runtime.engine.template import template_of
from runtime.engine.thinking import ThinkingMarkers, thinking_markers
from runtime.gguf.reader import ModelCard, read_card


@dataclass(frozen=True, slots=True)
class Model:
    """One model on this disk: a GGUF file with all its parts, or a folder of original weights.

    `path` is the first part, or the folder. `reference` is what every command accepts for exactly this model.
    `digests` are the SHA-256 sums of `files`, in their order, or empty where the cache does not know them all.
    `problem` says why the model cannot be used; it is None for every model that `find` and `installed` return.
    """

    path: Path
    files: tuple[Path, ...]
    name: str
    reference: str
    size: ByteCount
    kind: Literal["gguf", "safetensors"] = "gguf"
    repo: str | None = None
    revision: str | None = None
    quant: str | None = None
    entry: CatalogEntry | None = None
    digests: tuple[str, ...] = ()
    embedded: bool = False
    problem: str | None = None
    _card: list[ModelCard] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def card(self) -> ModelCard:
        """The checked header, read once. Raises BadModelFile."""
        if not self._card:
            self._card.append(read_card(self.path))
        return self._card[0]

    def with_card(self, card: ModelCard) -> Model:
        """This model with a header that was read elsewhere."""
        known = replace(self)
        known._card.append(card)
        return known

    def with_file(self, path: Path) -> Model:
        """This model read from another file, such as one with fewer experts. That file has no known digest."""
        return replace(self, path=path, files=(path,), size=ByteCount(path.stat().st_size), digests=())

    @property
    def absolute_reference(self) -> str:
        """A reference that finds the model from any working directory."""
        return self.reference if self.embedded or self.repo else str(Path(self.reference).absolute())

    @property
    def short_name(self) -> str:
        """The vendor's name for the model, without the quantization where the catalogue knows it."""
        return "nano" if self.embedded else self.entry.model if self.entry else self.name

    @property
    def family(self) -> str:
        """The family whose conventions the model follows: the catalogue's, else the file's own name; "" if unknown."""
        if self.entry is not None:
            return self.entry.family
        name = self.card.name.lower().replace(" ", "-")
        return "deepseek-r1" if "deepseek-r1" in name else ""

    @property
    def sampling(self) -> RecommendedSampling:
        """The recommended sampling and where it comes from."""
        return recommended_sampling(self.entry, self.card)

    def markers(self, template: str | None = None) -> ThinkingMarkers | None:
        """How the model marks its thoughts, read from `template` or the file's own chat template."""
        card = self.card
        return thinking_markers(template or card.template, lambda text: card.token_id(text) is not None)

    def chat_format(self, template: str | None = None) -> ChatFormat:
        """How the model reads a conversation; `template` replaces the file's own chat template.

        Raises Incompatible for a model without a template, and for a template that is not valid.
        """
        card = self.card
        bos, eos = ("" if token is None else card.token_text(token) for token in (card.bos_token, card.eos_token))
        compiled = template_of(card.template, template, name=card.name, bos=bos, eos=eos)
        return ChatFormat(compiled, self.markers(template), self.family)
