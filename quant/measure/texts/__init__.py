"""The built-in texts: one for calibration, and a held-out one to measure losses on.

Both are conversations with thinking. The head of each file names their origin. dsr renders them with the chat template
and thinking markers of each model, because the model will see text in that form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, cast

from quant.measure.chunks import Text
from runtime.base.types import Message, Role

if TYPE_CHECKING:
    from runtime.engine.markers import ThinkingMarkers
    from runtime.engine.template import ChatTemplate
    from runtime.gguf.card import ModelCard

_FILES = ("problems.txt", "conversations.txt")
_BETWEEN = "\n====\n"
_SPEAKERS = ("user", "thinking", "assistant")


@dataclass(frozen=True, slots=True)
class Conversation:
    """`messages` end with a question; `thinking` and `answer` are the model's reply."""

    messages: tuple[Message, ...]
    thinking: str
    answer: str


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A text of this package. Files that were calibrated on it record its `name`."""

    name: str
    folder: str

    def conversations(self) -> tuple[Conversation, ...]:
        """Returns all conversations. The files are mixed evenly, so that the first ones are of all kinds."""
        folder = resources.files(__name__) / self.folder
        files = [_parse((folder / name).read_text(encoding="utf-8")) for name in _FILES]
        placed = [(number / len(file), item) for file in files for number, item in enumerate(file)]
        return tuple(item for _, item in sorted(placed, key=lambda pair: pair[0]))

    @property
    def digest(self) -> str:
        """The same for the same text."""
        folder = resources.files(__name__) / self.folder
        return hashlib.sha256(b"\0".join((folder / name).read_bytes() for name in _FILES)).hexdigest()

    def for_model(self, card: ModelCard) -> Text:
        """Returns the whole text in the chat format of this model."""
        return Text(self.name, "".join(text.content for text in self.each_for_model(card)))

    def each_for_model(self, card: ModelCard) -> tuple[Text, ...]:
        """Returns each conversation in the chat format of this model."""
        from runtime.engine.model_markers import thinking_markers
        from runtime.engine.template import ChatTemplate

        end = _spelling(card, card.eos_token)
        template = ChatTemplate(card.template, bos=_spelling(card, card.bos_token), eos=end) if card.template else None
        markers = thinking_markers(template, lambda text: card.token_id(text) is not None)
        return tuple(Text(self.name, render([item], template, markers, end)) for item in self.conversations())


# For importance matrices and sensitivities.
CALIBRATION = BuiltIn("dsr's built-in calibration text", "calibration")
# For losses. No file is calibrated on it.
HELD_OUT = BuiltIn("dsr's built-in held-out text", "held_out")


def _spelling(card: ModelCard, token: int | None) -> str:
    return "" if token is None else card.token_text(token)


def render(
    items: Sequence[Conversation], template: ChatTemplate | None, markers: ThinkingMarkers | None, end: str
) -> str:
    """The conversations as one text. `end` is the text of the token that ends a reply.

    A template may drop the thinking of a reply, so it renders only the part before the reply. Without markers the
    thinking is the first part of the answer. Without a template the parts are paragraphs.
    """
    return "".join(_rendered(item, template, markers, end) for item in items)


def _rendered(item: Conversation, template: ChatTemplate | None, markers: ThinkingMarkers | None, end: str) -> str:
    if template is None:
        said = [*(message.content for message in item.messages), item.thinking, item.answer]
        return "\n\n".join(said) + (end or "\n\n")
    from runtime.engine.template import build_prompt

    prompt = build_prompt(template, item.messages, markers, True if markers else None, "").text
    between = markers.forced_close if markers else "\n\n"
    return prompt + item.thinking + between + item.answer + (end or "\n")


def _parse(text: str) -> list[Conversation]:
    _, *parts = text.rstrip("\n").split(_BETWEEN)
    return [_conversation(list(_turns(part))) for part in parts]


def _conversation(turns: list[tuple[str, str]]) -> Conversation:
    """Returns the conversation without the thinking of earlier replies, as reasoning models are trained."""
    *before, (_, thinking), (_, answer) = turns
    messages = tuple(Message(cast("Role", who), said) for who, said in before if who != "thinking")
    return Conversation(messages, thinking, answer)


def _turns(part: str) -> Iterator[tuple[str, str]]:
    """Yields speaker and text. A line [user], [thinking] or [assistant] begins each turn."""
    who, said = "", list[str]()
    for line in part.split("\n"):
        if line.startswith("[") and line.endswith("]") and line[1:-1] in _SPEAKERS:
            if who:
                yield who, "\n".join(said)
            who, said = line[1:-1], []
        else:
            said.append(line)
    yield who, "\n".join(said)
