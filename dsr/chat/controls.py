"""Thinking and sampling in a conversation: /think, /effort, /keep-thoughts and /set."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast, get_args

from dsr.chat.asked import DEFAULT, check_known, effort_line, effort_of, kept_line
from dsr.chat.conversation import Conversation
from dsr.models.sampling import SETTINGS, breakers_of, logit_bias_of, option_name, option_value, sampling_words
from dsr.store.settings import Thinking
from dsr.ui.console import Console
from runtime.base.errors import UsageError
from runtime.base.types import SamplingParams, out_of_range, range_text
from runtime.engine.prompt_options import PromptOptions


def _words(text: str) -> list[str]:
    """The words of a line; quotes keep spaces, and a backslash is itself. Raises ValueError for a missing quote."""
    words = shlex.shlex(text, posix=True)
    words.whitespace_split, words.escape, words.commenters = True, "", ""
    return [*words]


# What /set changes: the option's name -> the field of SamplingRequest and how to read its value.
SETTABLE: dict[str, tuple[str, Callable[[str], Any]]] = {
    **{option_name(name): (name, type(getattr(SamplingParams(), name))) for name in SETTINGS},
    "dry-sequence-breaker": ("dry_sequence_breakers", lambda text: breakers_of(tuple(_words(text)))),
    "logit-bias": ("logit_bias", lambda text: tuple(map(logit_bias_of, _words(text)))),
    "seed": ("seed", int),
    "max-tokens": ("max_tokens", int),
    "think-budget": ("think_budget", int),
}
_WIDTH = max(map(len, SETTABLE))
_ADVISERS = {"catalogue": "the catalogue", "model file": "the model file", "default": "llama.cpp"}
_LIMITS = ("max-tokens", "think-budget")  # may be "off"


class Controls:
    """What the user changes about thinking and sampling. `ask` asks a question with the files of the next one."""

    def __init__(self, conversation: Conversation, console: Console, ask: Callable[[str], None]) -> None:
        self._conversation = conversation
        self._console = console
        self._ask = ask
        self._options = conversation.options

    def think(self, value: str) -> None:
        """/think: on, off, or a budget of tokens for the thought. Raises UsageError."""
        if value in ("on", "off"):
            self._sample(think_budget=None)
            self._order_thinking(value == "on", f"thinking is {value}")
        elif value.isdecimal():
            self._sample(think_budget=int(value))
            self._order_thinking(True, f"thoughts are closed after {int(value)} tokens")
        else:
            raise UsageError("/think takes on, off, or a number of tokens")

    def _order_thinking(self, think: bool, done: str) -> None:
        self._options.asked = replace(self._options.asked, thinking=think)
        note = self._conversation.loaded.chat_format.thinking_note(think, self._options.sampling.think_budget)
        self._console.say(note or done)

    def effort(self, text: str) -> None:
        """/effort: a level, "default", or a level and the question that it is for; "" tells. Raises UsageError."""
        chat_format, before = self._conversation.loaded.chat_format, self._options.asked
        level, _, question = text.partition(" ")
        if level:
            asked = replace(before, effort=None if level == DEFAULT else effort_of("/effort", level))
            asked = replace(asked, thinking=asked.thinking or None)  # an effort is one of thinking
            self._check_known(replace(asked, keep_thoughts=False))
            self._options.asked = asked
        if question.strip():
            try:
                self._ask(question.strip())
            finally:
                self._options.asked = replace(self._options.asked, effort=before.effort, thinking=before.thinking)
        else:
            self._console.say(f"effort: {effort_line(chat_format, self._options.asked)}")

    def _check_known(self, asked: PromptOptions) -> None:
        loaded = self._conversation.loaded
        check_known(loaded.chat_format, asked, prefix="/")

    def keep_thoughts(self, value: str) -> None:
        """/keep-thoughts: on, off; "" tells. Raises UsageError."""
        chat_format = self._conversation.loaded.chat_format
        if value not in ("on", "off", ""):
            raise UsageError("/keep-thoughts takes on, off, or nothing")
        if value:
            asked = replace(self._options.asked, keep_thoughts=value == "on")
            self._check_known(replace(asked, effort=None))
            self._options.asked = asked
        self._console.say(f"earlier thoughts: {kept_line(chat_format, self._options.asked)}")

    def _sample(self, **change: Any) -> None:
        """Change sampling options; the seed stays unless it is changed."""
        conversation = self._conversation
        asked = replace(self._options.sampling, **change)
        defaults = conversation.loaded.model.sampling.params
        seed = conversation.params.seed if asked.seed is None or "seed" not in change else asked.seed
        conversation.params = replace(asked, seed=seed).applied_to(defaults)
        self._options.sampling = asked

    def set(self, text: str) -> None:
        """/set: the name of an option and its value; reset: all of them; alone: what there is. Raises UsageError."""
        name, _, value = text.partition(" ")
        value = value.strip()
        if name in ("", "reset"):
            self._reset() if name else self._list()
            return
        if name == "thinking":
            if value not in get_args(Thinking):
                raise UsageError(f"/set thinking takes {', '.join(get_args(Thinking))}, not {value!r}")
            self._options.shown = cast(Thinking, value)
        elif name not in SETTABLE:
            near = difflib.get_close_matches(name, (*SETTABLE, "thinking"), n=1)
            raise UsageError(
                f"/set does not know {name!r}",
                hint=f"did you mean {near[0]}?" if near else "/set alone lists the names",
            )
        elif not value:
            self._console.say(self._line(name), style="plain", hang=_WIDTH + 1)
            return
        else:
            self._set(name, value)
        self._console.say(f"{name} = {value}")

    def names(self, before: str) -> tuple[str, ...]:
        """The arguments of /set: a name, then what it takes besides a number."""
        if not before:
            return (*SETTABLE, "thinking", "reset")
        if before == "thinking":
            return get_args(Thinking)
        return ("default", "off") if before in _LIMITS else ("default",) if before in SETTABLE else ()

    def _set(self, name: str, value: str) -> None:
        field, read = SETTABLE[name]
        back = value == "default" or (value == "off" and name in _LIMITS)
        hint = f"for the model's recommendation: /set {name} default" if field in SETTINGS else None
        try:
            wanted = None if back else read(value)
        except ValueError:
            off = ", or off" if name in _LIMITS else ""
            raise UsageError(f"/set {name} takes a number{off}, not {value!r}", hint=hint) from None
        if isinstance(wanted, int | float) and (complaint := out_of_range(field, wanted)):
            raise UsageError(f"{name} {complaint}", hint=hint)
        self._sample(**{field: wanted})

    def _reset(self) -> None:
        self._sample(**dict.fromkeys(field for field, _ in SETTABLE.values()))
        self._console.say(f"sampling: {self.sampling()}")

    def _list(self) -> None:
        for name in SETTABLE:
            self._console.say(self._line(name), style="plain", hang=_WIDTH + 1)
        self._console.say(
            f"{'thinking':{_WIDTH}} {self._options.shown} ({', '.join(get_args(Thinking))})", style="plain"
        )

    def _line(self, name: str) -> str:
        """The value in force and the range of an option."""
        field, _ = SETTABLE[name]
        allowed = f" ({range_text(field)})" if range_text(field) else ""
        return f"{name:{_WIDTH}} {option_value(getattr(self._conversation.params, field))}{allowed}"

    def sampling(self) -> str:
        """The sampling in use, and the recommendation where it differs."""
        params = self._conversation.params
        recommended = self._conversation.loaded.model.sampling
        advice, adviser = recommended.params, _ADVISERS[recommended.origin]
        now, advised = sampling_line(params), sampling_line(replace(advice, max_tokens=params.max_tokens))
        why = f"as {adviser} has it" if now == advised else f"{adviser} has {sampling_line(advice)}"
        return f"{now}, seed {params.seed} ({why})"


def sampling_line(params: SamplingParams) -> str:
    limit = [f"max-tokens {params.max_tokens}"] if params.max_tokens is not None else []
    return ", ".join([*sampling_words(params), *limit])
