"""From messages to the prompt that a model reads, with the model's own chat template."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from itertools import pairwise

import prompts
from runtime.base.errors import Aborted, Incompatible
from runtime.base.quoted import quoted
from runtime.base.run import Stop
from runtime.base.types import Message
from runtime.engine.literal_text import marked, special_spellings
from runtime.engine.markers import ThinkingMarkers, thinking_markers
from runtime.engine.thinking import answer_of

# (text, add_bos, literal) -> token ids; see `Backend.tokenize`.
Tokenize = Callable[..., list[int]]


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt as text, and as tokens once it is `tokenized`.

    `starts_in_thought`: it ends inside an open thought. `literal`: the offsets in `text` at which a message spells a
    special token. There it is text like any other. `branches`: lengths of `tokens` at which later prompts will part
    from this one, ascending (`runtime.engine.branches`); only models that cannot go back to any length need them.
    """

    tokens: tuple[int, ...] = ()
    starts_in_thought: bool = False
    text: str = ""
    literal: tuple[int, ...] = ()
    branches: tuple[int, ...] = ()

    def tokenized(self, tokenize: Tokenize) -> Prompt:
        return replace(self, tokens=tuple(tokenize(self.text, add_bos=True, literal=self.literal)))


__all__ = [
    "ChatTemplate",
    "ThinkingMarkers",
    "answered",
    "build_prompt",
    "close_thought",
    "file_layout",
    "open_thought",
    "prompt_is_thinking",
    "template_of",
    "thinking_markers",
    "with_system_in_question",
    "without_thoughts",
]

# Variables with which templates are asked to write earlier thoughts. Source of the first four: llama.cpp,
# common/jinja/caps.cpp, caps_apply_preserve_reasoning. The others: the templates of Hy3 and LFM2.5.
KEEP_THOUGHTS: dict[str, object] = {
    "preserve_thinking": True,
    "clear_thinking": False,
    "truncate_history_thinking": False,
    "drop_thinking": False,
    "preserved_thinking": True,
    "keep_past_thinking": True,
}
# The variable that holds the effort: gpt-oss, Hy3, Solar Open, DeepSeek-V4; Kimi K3; Muse Glimmer.
EFFORT_NAMES = ("reasoning_effort", "thinking_effort", "reasoning_strength")

_HINT = "give another one with --template FILE"
_PROBE = "Be kind."


class ChatTemplate:
    """A compiled chat template; `bos` and `eos` are the texts of those tokens, "" where a model has none.

    `spellings` are those of the special tokens that only the template may use (`runtime.engine.literal_text`). Raises
    Incompatible for a template that is no Jinja or uses what the sandbox does not have.
    """

    def __init__(
        self, source: str, *, bos: str, eos: str, spellings: Sequence[str] = (), stop: Stop | None = None
    ) -> None:
        from runtime.engine.sandbox.environment import MAX_SOURCE, Sandbox

        if len(source) > MAX_SOURCE:
            raise Incompatible(
                f"the chat template is {len(source)} characters long, more than {MAX_SOURCE}", hint=_HINT
            )
        self.source = source
        self.spellings = tuple(spellings)
        self.bos, self.eos = bos, eos
        self._stop = stop
        self._sandbox = Sandbox()
        try:
            self._template = self._sandbox.from_string(source)
        # A hostile template can make the compiler fail in any way: RecursionError, SyntaxError, ValueError,
        # ...
        except Exception as error:
            raise Incompatible(f"the chat template cannot be read: {_reason(error)}", hint=_HINT) from error

    def render(
        self,
        messages: Sequence[Message],
        *,
        enable_thinking: bool | None = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, object] | None = None,
    ) -> str:
        """The text of a conversation. `enable_thinking` None leaves the template's own default.

        `variables` are further ones that the template may read; the thoughts of `messages` are handed over, too.

        Raises Incompatible when the template fails, refuses the messages, or exceeds the sandbox's limits.
        """
        given: dict[str, object] = {
            "messages": [_fields(message) for message in messages],
            "bos_token": self.bos,
            "eos_token": self.eos,
            "add_generation_prompt": add_generation_prompt,
            **_today(),
        }
        if enable_thinking is not None:
            # DeepSeek-V3.1 and Granite call it `thinking`.
            given |= {"enable_thinking": enable_thinking, "thinking": enable_thinking}
        given |= variables or {}
        from runtime.engine.sandbox.environment import Refused

        self._sandbox.start(self._stop)
        try:
            text = self._template.render(given)
        except Aborted:
            raise
        except Refused as error:
            raise Incompatible(f"the chat template refuses this conversation: {_reason(error)}", hint=_HINT) from error
        except Exception as error:
            raise Incompatible(f"the chat template failed: {_reason(error)}", hint=_HINT) from error
        if add_generation_prompt and not text.strip():
            raise Incompatible("the chat template writes nothing", hint=_HINT)
        return text

    def accepts(self, messages: Sequence[Message]) -> bool:
        """Whether the template renders these messages."""
        try:
            self.render(messages)
        except Incompatible:
            return False
        return True

    @cached_property
    def takes_system(self) -> bool:
        """Whether a system prompt reaches the model. Some templates refuse it, and some drop it in silence."""
        hello = Message("user", "hello")
        try:
            return _PROBE in self.render([Message("system", _PROBE), hello])
        except Incompatible:
            return not self.accepts([hello])  # what else is wrong with the template shows when it is used


def template_of(
    source: str | None,
    override: str | None,
    *,
    name: str,
    bos: str,
    eos: str,
    special_texts: tuple[Sequence[str], Sequence[str]] = ((), ()),
    stop: Stop | None = None,
) -> ChatTemplate:
    """The template given by the user, or the model's own. Raises Incompatible when model `name` has none.

    `special_texts` are the texts of its control tokens and of its user-defined tokens.
    """
    chosen = override if override is not None else source
    if chosen is None:
        raise Incompatible(
            f"{name} has no chat template, so there is no telling how to talk to it",
            hint="give one with --template FILE (a Jinja file, usually published with the original weights)",
        )
    spellings = special_spellings(*special_texts, chosen)
    return ChatTemplate(chosen, bos=bos, eos=eos, spellings=spellings, stop=stop)


def build_prompt(
    template: ChatTemplate,
    messages: Sequence[Message],
    markers: ThinkingMarkers | None,
    thinking: bool | None,
    no_think_text: str,
    *,
    effort: str | None = None,
    keep_thoughts: bool = False,
    special: bool = False,
) -> Prompt:
    """The prompt for the next answer, not tokenized yet.

    `effort` is one of the template's levels (`template_facts`), None for its default. Earlier thoughts are left out
    unless `keep_thoughts`: then the template gets them in the messages' `thinking`, and is asked to write them.

    `thinking`: None as the template has it; True makes the reply begin inside a thought; False by the
    template's own switch where it has one, else with a closed thought that says `no_think_text`. A model
    without markers is asked through the switch alone. `special`: special tokens that a message spells act as such.
    """
    said = answered(without_thoughts(messages, markers))
    if not keep_thoughts:
        said = tuple(replace(message, thinking="") for message in said)
    if not template.takes_system:
        said = with_system_in_question(said)
    tags = (*markers.texts, markers.open, *(markers.wrapper or ())) if markers else ()
    quoting = marked(said, () if special else (*template.spellings, *tags), template.source)
    asked = {**effort_variables(template, effort), **(KEEP_THOUGHTS if keep_thoughts else {})}
    text = _rendered(template, quoting.messages, variables=asked)
    if thinking is not None:
        switched = _rendered(template, quoting.messages, thinking, asked)
        has_switch = switched != _rendered(template, quoting.messages, not thinking, asked)
        text = switched if has_switch else text
        if markers is not None and thinking:
            text = open_thought(text, markers)
        elif markers is not None and (not has_switch or prompt_is_thinking(text, markers)):
            text = close_thought(text, markers, no_think_text)
    starts_in_thought = markers is not None and prompt_is_thinking(text, markers)
    text, literal = quoting.read(text)
    return Prompt(text=text, starts_in_thought=starts_in_thought, literal=literal)


def effort_variables(template: ChatTemplate, effort: str | None) -> dict[str, object]:
    """The variables that ask for a level of effort."""
    return {} if effort is None else {name: effort for name in EFFORT_NAMES if name in template.source}


def prompt_is_thinking(prompt: str, markers: ThinkingMarkers) -> bool:
    """Whether the prompt ends inside an open thought. Tags further up are people's talk, not the template's."""
    return prompt.rstrip().endswith(markers.open)


def open_thought(prompt: str, markers: ThinkingMarkers) -> str:
    """The prompt with the beginning of a thought, unless it has that already."""
    return prompt if prompt_is_thinking(prompt, markers) else prompt + markers.forced_open


def close_thought(prompt: str, markers: ThinkingMarkers, no_think_text: str) -> str:
    """The prompt with a closed thought that says `no_think_text`, unless it ends in a closed one already."""
    bare = prompt.rstrip()
    if bare.endswith(markers.close):
        return prompt
    before = bare.removesuffix(markers.open) if prompt_is_thinking(prompt, markers) else prompt
    return before + markers.forced_open + no_think_text + markers.forced_close


def without_thoughts(messages: Sequence[Message], markers: ThinkingMarkers | None) -> tuple[Message, ...]:
    """The conversation with the answers alone, as reasoning models are trained to see their own past."""
    return tuple(
        replace(message, content=answer_of(message.content, markers)) if message.role == "assistant" else message
        for message in messages
    )


def answered(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The conversation without questions that got no answer, such as those that were stopped inside the thought.

    Many templates refuse an empty answer, or two questions in a row. The last question is always kept.
    """
    kept = [message for message in messages[:-1] if message.role == "system"]
    for asked, reply in pairwise(messages):
        if asked.role == "user" and reply.role == "assistant" and reply.content.strip():
            kept += [asked, reply]
    return (*kept, *(each for each in messages[-1:] if each.role != "assistant"))


def with_system_in_question(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The system prompt at the beginning of the first question, as llama.cpp does it.

    Source: common/chat.cpp, system_message_not_supported.
    """
    system = "\n".join(message.content for message in messages if message.role == "system")
    said = [message for message in messages if message.role != "system"]
    first = next((at for at, message in enumerate(said) if message.role == "user"), None)
    if system and first is not None:
        said[first] = replace(said[first], content=f"{system}\n{said[first].content}")
    return tuple(said)


def _rendered(
    template: ChatTemplate,
    messages: Sequence[Message],
    enable_thinking: bool | None = None,
    variables: Mapping[str, object] | None = None,
) -> str:
    """The text of a conversation. Raises Incompatible, with a hint that names what the template refused."""
    try:
        return template.render(messages, enable_thinking=enable_thinking, variables=variables)
    except Incompatible as error:
        raise Incompatible(error.message, hint=_advice(template, messages) or error.hint) from error


def _advice(template: ChatTemplate, messages: Sequence[Message]) -> str | None:
    """What to leave out of a refused conversation, found by rendering without it."""
    without_system = [message for message in messages if message.role != "system"]
    if len(without_system) < len(messages) and template.accepts(without_system):
        return "leave out --system (in a conversation: /system), or give another template with --template FILE"
    if len(without_system) > 1 and template.accepts(without_system[-1:]):
        return "begin a new conversation (/clear, or without --resume), or give another template with --template FILE"
    return None


def file_layout(name: str, content: str, question: str) -> str:
    """A file and a question about it in the layout that DeepSeek-R1 documents."""
    return prompts.read("file-layout").format(file_name=name, file_content=content, question=question)


def _today() -> dict[str, object]:
    """The date, as llama.cpp gives it to every template (common/chat.cpp, common_chat_extra_context)."""
    now = datetime.now()
    return {"date_string": now.strftime("%d %b %Y"), "datetime": now.strftime("%b %d %Y")}


def _fields(message: Message) -> dict[str, object]:
    """A message as templates know it: the thought stands in the field that the template reads."""
    fields: dict[str, object] = {"role": message.role, "content": message.content}
    if message.thinking:
        fields |= dict.fromkeys(("reasoning_content", "reasoning", "thinking"), message.thinking)
    return fields


def _reason(error: Exception) -> str:
    """One line for a person: what jinja or Python said, and the line of the template where it is known."""
    line = getattr(error, "lineno", None)
    if isinstance(error, (RecursionError, MemoryError)):
        said = "it is nested too deeply" if isinstance(error, RecursionError) else "it needs too much memory"
    else:
        said = quoted(" ".join(str(error)[:1000].split()), 300) or type(error).__name__
    return f"{said} (line {line})" if line is not None else said
