"""The built-in texts: one for calibration, and a held-out one to measure losses on.

Both have conversations with thinking. The head of each file names their origin. dsr renders them with the chat template
and thinking markers of each model, because the model will see text in that form. For calibration there are passages of
many kinds, too, as they are: with conversations alone, corrected files lost a sixth more on text of another kind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, TypeVar, cast

from quant.measure.chunks import Text
from runtime.base.types import Message, Role

if TYPE_CHECKING:
    from runtime.engine.markers import ThinkingMarkers
    from runtime.engine.template import ChatTemplate
    from runtime.gguf.card import ModelCard

_FILES = ("problems.txt", "conversations.txt")
_PASSAGES = "passages.txt"
# A vocabulary of fewer tokens is of a model for one task, such as nano. It knows no languages, and reads no passages.
_LANGUAGES = 4096
# Of the problems, which are much alike, a model that reads passages reads one in three.
_EVERY = 3
_Item = TypeVar("_Item")
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
        return mixed(*(_parse(self._read(name)) for name in _FILES))

    def passages(self) -> tuple[str, ...]:
        """Returns the passages of plain text; the held-out text has none."""
        if not (resources.files(__name__) / self.folder / _PASSAGES).is_file():
            return ()
        _, *parts = self._read(_PASSAGES).rstrip("\n").split(_BETWEEN)
        return tuple(part + "\n\n" for part in parts)

    @property
    def digest(self) -> str:
        """The same for the same text."""
        folder = resources.files(__name__) / self.folder
        return hashlib.sha256(b"\0".join((folder / name).read_bytes() for name in _FILES)).hexdigest()

    def for_model(self, card: ModelCard) -> Text:
        """Returns the whole text in the chat format of this model."""
        return Text(self.name, "".join(text.content for text in self.each_for_model(card)))

    def each_for_model(self, card: ModelCard) -> tuple[Text, ...]:
        """Returns each conversation in the chat format of this model, and the passages; mixed evenly."""
        from runtime.engine.model_markers import thinking_markers
        from runtime.engine.template import ChatTemplate

        end = _spelling(card, card.eos_token)
        template = ChatTemplate(card.template, bos=_spelling(card, card.bos_token), eos=end) if card.template else None
        markers = thinking_markers(template, lambda text: card.token_id(text) is not None)

        def rendered(items: Sequence[Conversation]) -> list[str]:
            return [render([item], template, markers, end) for item in items]

        passages = self.passages() if card.vocab_size >= _LANGUAGES else ()
        if not passages:
            return tuple(Text(self.name, text) for text in rendered(self.conversations()))
        problems, conversations = (_parse(self._read(name)) for name in _FILES)
        parts = rendered(problems[::_EVERY]), rendered(conversations), passages
        return tuple(Text(self.name, text) for text in mixed(*parts))

    def _read(self, name: str) -> str:
        return (resources.files(__name__) / self.folder / name).read_text(encoding="utf-8")


# For importance matrices and sensitivities.
CALIBRATION = BuiltIn("dsr's built-in calibration text", "calibration")
# For losses. No file is calibrated on it.
HELD_OUT = BuiltIn("dsr's built-in held-out text", "held_out")


def mixed(*lists: Sequence[_Item]) -> tuple[_Item, ...]:
    """All items, those of each list spread evenly over the whole."""
    placed = [(number / len(items), item) for items in lists for number, item in enumerate(items)]
    return tuple(item for _, item in sorted(placed, key=lambda pair: pair[0]))


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
