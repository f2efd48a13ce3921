"""Which marks a model puts around its thought: read off what its chat template writes.

An answer with a thought is rendered, and the same answer without. What stands between question, thought and answer are
the marks. A template that writes no thought may write an empty one, in a prompt that asks for none. For the others, the
marks that are known by name are looked for in the template and in the vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache

from runtime.base.common_prefix import common_length
from runtime.base.types import Message
from runtime.engine.chat_template import ChatTemplate, ThoughtForm, in_blocks, in_fields, in_parts
from runtime.engine.markers import HARMONY, PAIRS, TAG, WRAPPERS, Header, ThinkingMarkers
from runtime.engine.template_variables import probe, template_variables
from runtime.engine.thought_form import ANSWER, QUESTION, THOUGHT

_ASKED = Message("user", QUESTION)
_LONGEST = 100  # characters of a mark
# Tags with a word between them, such as `<|open|>think<|sep|>`, or one tag.
_MARK = re.compile(rf"(?:{TAG.pattern})(?:\w+(?:{TAG.pattern}))?")


def thinking_markers(template: ChatTemplate | None, has_token: Callable[[str], bool]) -> ThinkingMarkers | None:
    """The model's own markers; None for a model that announces none.

    The template counts before what only the vocabulary has: vocabularies are inherited.
    """
    source = template.source if template else ""
    found = (template and derived_markers(template)) or _named(source, has_token)
    if found is None:
        return None
    if template and not found.answer_open:
        found = replace(found, wrapper=_wrapper(template))
    return found.with_tokens(has_token)


def _wrapper(template: ChatTemplate) -> tuple[str, str] | None:
    """The tags around answers that the prompt asks for, or at which the template divides an answer.

    A template may have the same tags for what tools say.
    """
    prompt = probe(template, template_variables(template).on) or ""
    for tags in WRAPPERS:
        divided = re.search(rf"split\(\s*[\"']{tags[0]}", template.source)
        if all(tag in (template.source if divided else prompt) for tag in tags):
            return tags
    return None


def _named(source: str, has_token: Callable[[str], bool]) -> ThinkingMarkers | None:
    if HARMONY.open in source:
        return HARMONY
    for markers in PAIRS:
        if markers.open in source or markers.close in source:
            return markers
    for markers in PAIRS:
        if has_token(markers.open) and has_token(markers.close):
            return markers
    return HARMONY if has_token("<|channel|>") and has_token("<|message|>") else None


@lru_cache(maxsize=8)
def derived_markers(template: ChatTemplate) -> ThinkingMarkers | None:
    """The markers that the template itself writes; None if it writes no thought."""
    prompts = _prompts(template)
    plain = _after_question(_turn(template, None))
    if plain is None or not prompts:
        return None
    for thoughts in (in_fields, in_parts, in_blocks):
        found = _around(_after_question(_turn(template, thoughts)), plain, prompts)
        if found is not None:
            return found
    header, _, behind = plain.partition(ANSWER)
    found = next((found for text in (*prompts, header) for found in _empty_thoughts(text, prompts)), None)
    answer_open = "" if found is None else _direct(header, prompts)
    if found is None or not TAG.match(answer_open) or found.close in answer_open:
        return found
    return replace(found, answer_open=answer_open, dropped=(answer_open, *_MARK.findall(behind)))


def _turn(template: ChatTemplate, thoughts: ThoughtForm | None) -> str | None:
    talk = (_ASKED, Message("assistant", ANSWER, THOUGHT))
    on = template_variables(template).on
    return probe(template, on, talk=talk, add_generation_prompt=False, thoughts=thoughts)


def _prompts(template: ChatTemplate) -> tuple[str, ...]:
    """What the template writes behind the question: by itself, and with thinking on and off."""
    known = template_variables(template)
    written = (probe(template, variables, talk=(_ASKED,)) for variables in ({}, known.on, known.off))
    return tuple(dict.fromkeys(text for text in map(_after_question, written) if text))


def _after_question(written: str | None) -> str | None:
    return written.rpartition(QUESTION)[2] if written and QUESTION in written else None


def _around(turn: str | None, plain: str, prompts: tuple[str, ...]) -> ThinkingMarkers | None:
    """The marks around the thought of a `turn`. `plain` is the same turn without a thought."""
    if turn is None or THOUGHT not in turn or ANSWER not in turn.partition(THOUGHT)[2]:
        return None
    before, _, rest = turn.partition(THOUGHT)
    between, _, behind = rest.partition(ANSWER)
    found = _MARK.match(between.lstrip())
    opening = _opening(before, plain, prompts)
    if found is None or opening is None or max(len(opening), len(between)) > _LONGEST or THOUGHT in between:
        return None
    bare = opening.strip()
    close, rest = found[0], between.lstrip()[found.end() :]
    after, answer_open = rest[: len(rest) - len(rest.lstrip())], rest.strip()
    lead = opening[: len(opening) - len(opening.lstrip())]
    gap = between[: len(between) - len(between.lstrip())]
    if bare == close:
        return None
    header = _header(before, answer_open, prompts)
    dropped = [] if header or not answer_open else _of_the_answer(answer_open, behind, plain, prompts)
    try:
        return ThinkingMarkers(
            bare, close, gap, after, answer_open, tuple(each for each in dropped if each != close), header, lead=lead
        )
    except ValueError:  # such as a tag that is part of another: no format that a reader could tell apart
        return None


def _opening(before: str, plain: str, prompts: tuple[str, ...]) -> str | None:
    """The end of `before` that opens the thought, with the white space around it."""
    header = plain.partition(ANSWER)[0]
    if before == header:
        # Nothing opens it in the conversation; a prompt may, in words.
        return next(
            (each[len(before) :] for each in prompts if each.startswith(before) and each[len(before) :].strip()), None
        )
    begun = [each for each in prompts if before.startswith(each) and before[len(each) :].strip()]
    if begun:
        return before[len(max(begun, key=len)) :]
    marks = list(_MARK.finditer(before))
    if not marks or before[marks[-1].end() :].strip():
        return None
    last = marks[-1]
    return before[last.start() :]


def _header(before: str, answer_open: str, prompts: tuple[str, ...]) -> Header | None:
    """The format of headers, if a prompt ends inside of one, and its end is the same for thought and answer."""
    first = TAG.match(answer_open)
    if first is None or before.rfind(first[0]) < 0:
        return None
    thought = before[before.rfind(first[0]) :]
    common = re.sub(r"\w+$", "", thought[: common_length(thought, answer_open)])
    name = re.match(r"\w+", thought[len(common) :])
    end = TAG.match(thought[len(common) + name.end() :]) if name else None
    if name is None or end is None or not answer_open.endswith(end[0]):
        return None
    if not any(thought.startswith(each[each.rfind(first[0]) :]) for each in prompts if first[0] in each):
        return None
    channel = re.sub(r"^\w+", "", common[first.end() :])
    inner = (channel,) if TAG.fullmatch(channel) else ()
    return Header((first[0], *inner), end[0], channel, name[0]) if channel.strip() else None


def _of_the_answer(answer_open: str, behind: str, plain: str, prompts: tuple[str, ...]) -> Iterator[str]:
    """The marks around an answer: before it, also when no thought precedes it, and behind it."""
    header = plain.partition(ANSWER)[0]
    direct = _direct(header, prompts)
    if not direct or not answer_open.endswith(direct):
        direct = answer_open
    yield from filter(None, (answer_open.removesuffix(direct), direct, *_MARK.findall(behind)))


def _direct(header: str, prompts: tuple[str, ...]) -> str:
    """What comes between a prompt and an answer without a thought; "" if nothing."""
    return min((header[len(each) :].strip() for each in prompts if header.startswith(each)), key=len, default="")


def _empty_thoughts(text: str, prompts: tuple[str, ...]) -> Iterator[ThinkingMarkers]:
    """The marks of an empty thought at the end of a text that goes on where a prompt ends."""
    bare = text.rstrip()
    marks = list(_MARK.finditer(bare))
    if len(marks) < 2 or marks[-1].end() != len(bare):
        return
    close, after = marks[-1], text[len(bare) :]
    for prompt in prompts:
        begun = prompt.rstrip()
        if not begun or not bare.startswith(begun) or bare == begun:
            continue
        extra = bare[len(prompt) if text.startswith(prompt) else len(begun) : close.start()]
        if not extra.strip():
            # The prompt ends in the opening mark.
            opening = next((each for each in marks[:-1] if each.end() == len(begun)), None)
            if opening is None:
                continue
            inside = bare[opening.end() : close.start()]
            yield ThinkingMarkers(opening[0], close[0], inside[: (len(inside) + 1) // 2], after)
        elif TAG.match(extra.lstrip()) and len(extra) < _LONGEST:
            lead = extra[: len(extra) - len(extra.lstrip())]
            inside = extra[len(extra.rstrip()) :]
            yield ThinkingMarkers(extra.strip(), close[0], inside[: (len(inside) + 1) // 2], after, lead=lead)
