"""A model's own chat template, compiled for the sandbox, and how it gets messages."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from runtime.base.errors import Aborted, Incompatible
from runtime.base.quoted import quoted
from runtime.base.run import Stop
from runtime.base.types import Message
from runtime.engine.literal_text import special_spellings

# (thought, answer) -> the fields of a message; the thought may be "".
ThoughtForm = Callable[[str, str], dict[str, object]]


def in_fields(thought: str, answer: str) -> dict[str, object]:
    """Under all the names in use: `thinking` is gpt-oss's and LFM2.5's, `reasoning` Solar Open's."""
    fields = dict.fromkeys(("reasoning_content", "reasoning", "thinking"), thought) if thought else {}
    return {"content": answer, **fields}


def in_parts(thought: str, answer: str) -> dict[str, object]:
    """Parts of the content, as Magistral and Ministral 3 read them."""
    if not thought:
        return {"content": answer}
    return {"content": [{"type": "thinking", "thinking": thought}, {"type": "text", "text": answer}]}


def in_blocks(thought: str, answer: str) -> dict[str, object]:
    """Blocks, as Apertus reads them: in all answers or in none."""
    thoughts = [{"type": "thoughts", "text": thought}] if thought else []
    return {"content": {"blocks": [*thoughts, {"type": "response", "text": answer}]}}


@dataclass(frozen=True, slots=True)
class CallsAs:
    """How a template gets the calls of a message: their arguments as `texts` or as objects; `alone`: without content,
    since it writes either of both.
    """

    texts: bool = False
    alone: bool = False


PLAIN_CALLS = CallsAs()
MAX_PROBED = 5.0  # seconds of processor time, as for one rendering; common templates take 0.05
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
        self._probed = 0.0
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
        add_generation_prompt: bool = True,
        variables: Mapping[str, object] | None = None,
        thoughts: ThoughtForm | None = None,
        calls: CallsAs = PLAIN_CALLS,
    ) -> str:
        """The text of a conversation.

        `variables` are those that the template may read besides the usual ones. `thoughts` says how it gets thoughts of
        messages; with None it gets none. `calls` says how it gets calls.

        Raises Incompatible when the template fails, refuses the messages, or exceeds the sandbox's limits.
        """
        given: dict[str, object] = {
            "messages": [_fields(message, thoughts, calls) for message in messages],
            "bos_token": self.bos,
            "eos_token": self.eos,
            "add_generation_prompt": add_generation_prompt,
            **_today(),
            **(variables or {}),
        }
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

    def probe(
        self,
        messages: Sequence[Message],
        variables: Mapping[str, object] | None = None,
        *,
        add_generation_prompt: bool = True,
        thoughts: ThoughtForm | None = None,
        calls: CallsAs = PLAIN_CALLS,
    ) -> str | None:
        """As `render`, to find out what the template does: None where it refuses.

        All probes together take as much processor time as one rendering may, and one more rendering at most. Later ones
        are refused.
        """
        if self._probed > MAX_PROBED:
            return None
        started = time.thread_time()
        try:
            return self.render(
                messages,
                variables=variables,
                add_generation_prompt=add_generation_prompt,
                thoughts=thoughts,
                calls=calls,
            )
        except Incompatible:
            return None
        finally:
            self._probed += time.thread_time() - started

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


def _today() -> dict[str, object]:
    """The date, as llama.cpp gives it to every template (common/chat.cpp, common_chat_extra_context)."""
    now = datetime.now()
    return {"date_string": now.strftime("%d %b %Y"), "datetime": now.strftime("%b %d %Y")}


def _fields(message: Message, thoughts: ThoughtForm | None, calls: CallsAs) -> dict[str, object]:
    if message.role == "tool":
        name = {"name": message.name} if message.name else {}
        return {"role": "tool", "content": message.content, "tool_call_id": message.call_id, **name}
    if message.role != "assistant":
        return {"role": message.role, "content": message.content}
    said = {"content": message.content} if thoughts is None else thoughts(message.thinking, message.content)
    if not message.calls:
        return {"role": "assistant", **said}
    alone = {"content": None} if calls.alone else {}
    written = [
        {"id": each.id, "type": "function", "function": {"name": each.name, "arguments": arguments}}
        for each in message.calls
        for arguments in [each.arguments or "{}" if calls.texts else each.values]
    ]
    return {"role": "assistant", **said, **alone, "tool_calls": written}


def _reason(error: Exception) -> str:
    """One line for a person: what jinja or Python said, and the line of the template where it is known."""
    line = getattr(error, "lineno", None)
    if isinstance(error, (RecursionError, MemoryError)):
        said = "it is nested too deeply" if isinstance(error, RecursionError) else "it needs too much memory"
    else:
        said = quoted(" ".join(str(error)[:1000].split()), 300) or type(error).__name__
    return f"{said} (line {line})" if line is not None else said
