"""What a model reference means on this machine: files, catalogue entry, header, chat format, recommended sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import prompts
from dsr.models.catalog import CatalogEntry
from dsr.models.sampling import RecommendedSampling, recommended_sampling
from runtime.base.errors import Incompatible
from runtime.base.run import Stop
from runtime.base.types import ByteCount, Message, Tool
from runtime.engine.markers import ThinkingMarkers
from runtime.engine.model_markers import thinking_markers
from runtime.engine.prompt_options import PromptOptions
from runtime.engine.template import ChatTemplate, Prompt, build_prompt, template_of
from runtime.engine.template_facts import TemplateFacts, template_facts
from runtime.engine.tool_form import ToolForm, tool_form
from runtime.gguf.card import ModelCard
from runtime.gguf.reader import read_card

_PLAIN = PromptOptions()


@dataclass(frozen=True, slots=True)
class Model:
    """One model on this disk: a GGUF file with all its parts, or a folder of original weights.

    `path` is the first part, or the folder. `reference` is what every command accepts for exactly this model.
    `digests` are the SHA-256 sums of `files`, in their order, or empty where the cache does not know them all.
    `problem` says why the model cannot be used; it is None for every model that `find` and `installed` return.
    `program` is another program whose file this is ("ollama", "lmstudio").
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
    program: str | None = None
    _card: list[ModelCard] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def card(self) -> ModelCard:
        """The checked header, read once. Raises BadModelFile."""
        if not self._card:
            self._card.append(read_card(self.path))
        return self._card[0]

    def with_file(self, path: Path) -> Model:
        """This model read from another file, such as one with fewer experts. That file has no known digest."""
        return replace(self, path=path, files=(path,), size=ByteCount(path.stat().st_size), digests=())

    @property
    def absolute_reference(self) -> str:
        """A reference that finds the model from any working directory."""
        is_name = self.embedded or self.repo or self.program
        return self.reference if is_name else str(Path(self.reference).absolute())

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
        return card_markers(self.card, template)

    def chat_format(self, template: str | None = None, stop: Stop | None = None) -> ChatFormat:
        """How the model reads a conversation. `template` replaces the file's own; `stop` ends a rendering with Aborted.

        Raises Incompatible for a model without a template, and for a template that is not valid.
        """
        card = self.card
        bos, eos = ("" if token is None else card.token_text(token) for token in (card.bos_token, card.eos_token))
        compiled = template_of(
            card.template, template, name=card.name, bos=bos, eos=eos, special_texts=card.special_texts(), stop=stop
        )
        markers = thinking_markers(compiled, lambda text: card.token_id(text) is not None)
        if markers is not None:
            markers = replace(markers, conclusion=_conclusion(self.family))
        source = f"the chat template of {self.reference if template is None else '--template'}"
        return ChatFormat(compiled, markers, self.family, source, lambda text: card.token_id(text) is not None)


def _conclusion(family: str) -> str:
    """What the family says at the end of a thought that was cut; "" where nothing is known."""
    if family.startswith("qwen3"):
        return prompts.read("closed-thought-qwen3")
    return prompts.read("no-think-r1") if family == "deepseek-r1" else ""


def card_markers(card: ModelCard, template: str | None = None) -> ThinkingMarkers | None:
    """How a model marks its thoughts. A template that cannot be read says nothing about it."""
    return thinking_markers(_readable(card, template), lambda text: card.token_id(text) is not None)


def card_facts(card: ModelCard) -> TemplateFacts | None:
    """What the model's own chat template knows about thinking and tools; None without one that can be read."""
    template = _readable(card, None)
    return None if template is None else template_facts(template, card_markers(card))


def _readable(card: ModelCard, template: str | None) -> ChatTemplate | None:
    bos, eos = ("" if token is None else card.token_text(token) for token in (card.bos_token, card.eos_token))
    try:
        return template_of(card.template, template, name=card.name, bos=bos, eos=eos)
    except Incompatible:
        return None


def _no_token(text: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How a model reads a conversation: its chat template, its thinking markers, its family's conventions.

    `source` is how messages name the template. `has_token` tells whether a text is one token.
    """

    template: ChatTemplate
    markers: ThinkingMarkers | None
    family: str = ""
    source: str = "the chat template"
    has_token: Callable[[str], bool] = field(default=_no_token, repr=False, compare=False)
    _facts: list[TemplateFacts] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def facts(self) -> TemplateFacts:
        """What the template knows about thinking, found once."""
        if not self._facts:
            self._facts.append(template_facts(self.template, self.markers))
        return self._facts[0]

    @property
    def tool_form(self) -> ToolForm:
        """How the template takes tools, and how the model writes calls; found once for a template."""
        return tool_form(self.template, self.markers).with_tokens(self.has_token)

    def prompt(
        self, messages: Sequence[Message], options: PromptOptions = _PLAIN, tools: Sequence[Tool] = ()
    ) -> Prompt:
        """The prompt for the next answer, not tokenized yet. Raises Incompatible when the template fails."""
        r1 = self.family == "deepseek-r1"
        return build_prompt(
            self.template,
            messages,
            self.markers,
            # R1 sometimes skips its thought; its authors advise to begin the reply with one (README, "Usage").
            thinking=True if options.thinking is None and r1 else options.thinking,
            no_think_text=prompts.read("no-think-r1") if r1 else "",
            effort=options.effort,
            keep_thoughts=options.keep_thoughts,
            special=options.special,
            continues=options.continues,
            tools=tools,
            form=self.tool_form if tools or any(each.calls or each.role == "tool" for each in messages) else None,
        )

    def unknown(self, options: PromptOptions) -> list[tuple[str, str]]:
        """The options that the template does not know: their names, and what it knows instead."""
        unknown = []
        if options.effort is not None and options.effort not in self.facts.efforts:
            levels = ", ".join(self.facts.efforts)
            why = f"knows the levels {levels}, not {options.effort}" if levels else "knows no levels of effort"
            unknown.append(("effort", why))
        if options.keep_thoughts and self.facts.keeps_thoughts == "never":
            unknown.append(("keep_thoughts", "never writes earlier thoughts"))
        return unknown

    def known(self, options: PromptOptions) -> PromptOptions:
        """The options that the template knows. With thinking off, effort is left out."""
        if options.thinking is False:
            options = replace(options, effort=None)
        plain: dict[str, Any] = {name: getattr(_PLAIN, name) for name, _ in self.unknown(options)}
        return replace(options, **plain)

    def tools_note(self, tools: Sequence[Tool]) -> str | None:
        """One line for a person whose tools the template does not know, or None."""
        if not tools or self.facts.tools:
            return None
        return f"{self.source} knows no tools: the system prompt lists them, and calls may fail"

    def system_note(self, system: str) -> str | None:
        """One line for a person whose system prompt the template has no place for, or None."""
        if not system or self.template.takes_system:
            return None
        return "the chat template has no system role: the system prompt joins the first question"

    def thinking_note(self, think: bool | None, budget: int | None) -> str | None:
        """One line for a person whose thinking options the model cannot follow, or None."""
        asked = think is not None or budget is not None
        if self.markers is not None or not asked or (budget is None and self.facts.switch):
            return None
        return "this model does not mark thoughts: they cannot be switched on or off, limited or hidden"
