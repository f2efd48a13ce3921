"""From messages to the prompt that a model reads, with the model's own chat template."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import prompts
from runtime.base.errors import Incompatible, UsageError
from runtime.base.types import Message, Tool
from runtime.engine.chat_template import PLAIN_CALLS, CallsAs, ChatTemplate, ThoughtForm, in_fields, template_of
from runtime.engine.literal_text import marked
from runtime.engine.markers import PAIRS, ThinkingMarkers
from runtime.engine.model_markers import thinking_markers
from runtime.engine.template_variables import KEEP_THOUGHTS, Variables, template_variables
from runtime.engine.thinking import ThinkingSplitter
from runtime.engine.thought_form import thought_form
from runtime.engine.tool_form import ToolForm
from runtime.engine.tool_prompt import with_tools

# (text, add_bos, literal) -> token ids; see `Backend.tokenize`.
Tokenize = Callable[..., list[int]]


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt as text, and as tokens once it is `tokenized`.

    `starts_in_thought`: it ends inside an open thought. `open_header`: the header that it ends in, in formats with
    channels. `literal`: the offsets in `text` at which a message spells a
    special token. There it is text like any other. `branches`: lengths of `tokens` at which later prompts will part
    from this one, ascending (`runtime.engine.branches`); only models that cannot go back to any length need them.
    `begun`: it ends inside a reply that goes on, and this is the answer so far; None where a reply begins.
    """

    tokens: tuple[int, ...] = ()
    starts_in_thought: bool = False
    open_header: str = ""
    text: str = ""
    literal: tuple[int, ...] = ()
    branches: tuple[int, ...] = ()
    begun: str | None = None

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
    continues: bool = False,
    tools: Sequence[Tool] = (),
    form: ToolForm | None = None,
) -> Prompt:
    """The prompt for the next answer, not tokenized yet.

    `effort` is one of the template's levels (`template_facts`), None for its default. Earlier thoughts are left out
    unless `keep_thoughts`: then the template gets them in the messages' `thinking`, and is asked to write them.

    `thinking`: None as the template has it; True makes the reply begin inside a thought; False by the
    template's own switch where it has one, else with a closed thought that says `no_think_text`. A model
    without markers is asked through the switch alone. `special`: special tokens that a message spells act as such.

    `continues`: the last message is an answer that goes on; without content, its thought does. The prompt is then the
    one that asked for that answer, with the reply so far. Raises UsageError if the last message is no answer.

    `tools` are listed for the model in the way of the tool `form`, which tools, calls and their results need. Thoughts
    since the last question stay, since their calls belong to the answer that the model is about to give.
    """
    messages, reply = _parted(messages, markers) if continues else (messages, None)
    said = answered(without_thoughts(messages, markers))
    if not template.takes_system:
        said = with_system_in_question(said)
    tags = (*markers.texts, markers.open, *(markers.wrapper or ())) if markers else ()
    whole = said if reply is None else (*said, reply)
    quoting = marked(whole, () if special else (*template.spellings, *tags), template.source, tools)
    given, listed = quoting.messages[: len(said)], dict[str, object]()
    if form is not None and (tools or any(each.calls or each.role == "tool" for each in said)):
        given, listed = with_tools(given, quoting.tools, form)
        if not template.takes_system:
            given = with_system_in_question(given)
    asked: Variables = {}
    if thinking is not None or effort is not None:
        asked = template_variables(template).asked(thinking, effort)
    thoughts = None
    if keep_thoughts:
        asked, thoughts = {**asked, **KEEP_THOUGHTS}, thought_form(template, markers)
    elif since := _thoughts_since_question(given):
        given, thoughts = since, thought_form(template, markers) or in_fields
    text = _rendered(template, given, {**asked, **listed}, thoughts, form.writes if form else None)
    if reply is not None:
        text = _with_reply(text, quoting.messages[-1], markers, no_think_text)
    elif markers is not None and thinking:
        text = open_thought(text, markers)
    elif markers is not None and thinking is False:
        switch = template_variables(template).off
        if not switch or prompt_is_thinking(text, markers):
            text = close_thought(text, markers, no_think_text)
    starts_in_thought = markers is not None and prompt_is_thinking(text, markers)
    header = markers.header.open_at_end(text) if markers and markers.header else ""
    text, literal = quoting.read(text)
    if reply is not None:
        thinks = not reply.content and bool(reply.thinking)
        return Prompt(text=text, starts_in_thought=thinks, literal=literal, begun=reply.content)
    return Prompt(text=text, starts_in_thought=starts_in_thought, open_header=header, literal=literal)


def _parted(messages: Sequence[Message], markers: ThinkingMarkers | None) -> tuple[Sequence[Message], Message | None]:
    """The messages before the answer that goes on, and that answer; None for an empty one, which begins."""
    if not messages or messages[-1].role != "assistant":
        raise UsageError("only an answer can go on, and the last message is none")
    (reply,) = without_thoughts(messages[-1:], markers)
    return messages[:-1], reply if reply.content or reply.thinking else None


def _with_reply(prompt: str, reply: Message, markers: ThinkingMarkers | None, no_think_text: str) -> str:
    """The prompt with the reply so far, as the model wrote it."""
    if markers is None:
        return prompt + reply.content
    if reply.thinking:
        thought = open_thought(prompt, markers)
        thought = thought.rstrip() + markers.gap + reply.thinking
        return thought + markers.forced_close + reply.content if reply.content else thought
    if prompt_is_thinking(prompt, markers):
        prompt = close_thought(prompt, markers, no_think_text)
    elif markers.header is not None:
        begun = markers.header.open_at_end(prompt)
        prompt += markers.answer_open.removeprefix(begun)
    return prompt + reply.content


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
    """The conversation with the answers alone as contents, and the thoughts in `thinking`.

    Reasoning models are trained to see only the answers of their own past.
    """
    return tuple(_divided(message, markers) if message.role == "assistant" else message for message in messages)


def _divided(message: Message, markers: ThinkingMarkers | None) -> Message:
    """A stored answer that may still hold its thought, as a person or another program wrote it.

    A thought begins with its mark, or ends with it on a line of its own.
    """
    text = message.content
    begins = text.lstrip().startswith(tuple(each.open for each in (*PAIRS, *((markers,) if markers else ()))))
    ends = markers is not None and re.search(rf"^[ \t]*{re.escape(markers.close)}[ \t]*$", text, re.MULTILINE)
    if not begins and not ends:
        return message
    splitter = ThinkingSplitter(markers, starts_in_thought=not begins)
    parts = splitter.feed(text) + splitter.finish()
    if not begins and splitter.in_thought:
        return message  # the mark was only quoted
    thought, answer = ("".join(said for part, said in parts if part == which) for which in ("thinking", "answer"))
    return replace(message, content=answer, thinking=message.thinking or thought[: splitter.thought_end])


def answered(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The conversation without questions that got no answer, such as those that were stopped inside the thought.

    Many templates refuse an empty answer, or two questions in a row. The last question is always kept, with the calls
    that it led to and their results.
    """
    kept = [message for message in messages[:-1] if message.role == "system"]
    exchange: list[Message] = []
    for message in messages:
        if message.role == "user":
            kept += exchange if len(exchange) > 1 else ()
            exchange = [message]
        elif message.role == "tool" or (message.role == "assistant" and (message.content.strip() or message.calls)):
            open_to_more = exchange and (exchange[-1].role != "assistant" or exchange[-1].calls)
            exchange += [message] if open_to_more else []
    last = messages[-1].role if messages else "system"
    kept += exchange if len(exchange) > 1 or last in ("user", "tool") else ()
    return (*kept, *(each for each in messages[-1:] if each.role == "system"))


def _thoughts_since_question(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages with those thoughts alone that led to calls since the last question; () if there are none."""
    question = max((at for at, each in enumerate(messages) if each.role == "user"), default=-1)
    if not any(each.thinking for each in messages[question + 1 :]):
        return ()
    before = (replace(each, thinking="") for each in messages[: question + 1])
    return (*before, *messages[question + 1 :])


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
    variables: Variables,
    thoughts: ThoughtForm | None,
    calls: CallsAs | None,
) -> str:
    """The text of a conversation. Raises Incompatible, with a hint that names what the template refused."""
    try:
        return template.render(messages, variables=variables, thoughts=thoughts, calls=calls or PLAIN_CALLS)
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
