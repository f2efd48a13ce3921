"""Effort and kept thoughts: what the user asks for, and what the chat template of a model knows of it."""

from __future__ import annotations

from dataclasses import replace

from dsr.models.model import ChatFormat
from runtime.base.errors import UsageError
from runtime.engine.prompt_options import PromptOptions
from runtime.engine.template_facts import LEVELS

DEFAULT = "default"  # the value of /effort for the level of the template


def effort_of(option: str, value: str | None) -> str | None:
    """The level of effort that `option` names; None if it is not given. Raises UsageError."""
    if value is None or value in LEVELS:
        return value
    raise UsageError(f"{option} must be {', '.join(LEVELS[:-1])} or {LEVELS[-1]}, not {value!r}")


def asked_of(
    think: bool | None, effort: str | None, keep_thoughts: bool = False, special: bool = False
) -> PromptOptions:
    """The options of a command line. Raises UsageError."""
    if think is False and effort is not None:
        raise UsageError(f"--no-think and --effort {effort} exclude each other", hint="leave out one of them")
    return PromptOptions(think, effort_of("--effort", effort), keep_thoughts, special)


def check_known(chat_format: ChatFormat, asked: PromptOptions, *, prefix: str = "--") -> None:
    """Raises UsageError for options that the chat template does not know. `prefix` is "/" for a command."""
    for option, why in chat_format.unknown(asked):
        said = f"{prefix}effort {asked.effort}" if option == "effort" else f"{prefix}keep-thoughts"
        ways = [f"leave out {said.partition(' ')[0]}"] if prefix == "--" else []
        if option == "effort" and chat_format.facts.efforts:
            ways = ["give one of those", *ways]
        elif option == "effort" and chat_format.markers:
            ways += ["--think-budget N limits the thought" if prefix == "--" else "/think N limits the thought"]
        raise UsageError(f"{said}: {chat_format.source} {why}", hint="; or ".join(ways) or None)


def with_usual(asked: PromptOptions, usual: PromptOptions) -> PromptOptions:
    """The options of the command line, and the settings where an option is not given."""
    return replace(asked, effort=asked.effort or usual.effort, keep_thoughts=asked.keep_thoughts or usual.keep_thoughts)


def unknown_notes(chat_format: ChatFormat, asked: PromptOptions) -> list[str]:
    """Lines for a person whose options a model does not know, such as the next one of a conversation."""
    labels = {"effort": f"effort {asked.effort}", "keep_thoughts": "keeping thoughts"}
    return [f"{chat_format.source} {why}: {labels[option]} has no effect" for option, why in chat_format.unknown(asked)]


def effort_line(chat_format: ChatFormat, asked: PromptOptions) -> str:
    """The effort in force and the levels that the template knows: 'high (of low, medium, high; default medium)'."""
    facts, effort = chat_format.facts, chat_format.known(asked).effort
    if not facts.efforts:
        return "the chat template knows no levels of effort"
    of = f"of {', '.join(facts.efforts)}; default {facts.default_effort or 'another'}"
    return f"{effort or 'default'} ({of})"


def kept_line(chat_format: ChatFormat, asked: PromptOptions) -> str:
    """Whether earlier thoughts stay in the prompt."""
    if chat_format.facts.keeps_thoughts == "never":
        return "removed; the chat template never writes them"
    return "kept" if asked.keep_thoughts else "removed"
