"""Branches of prompts: each is a beginning of the prompt that comes next, whatever template writes both."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from runtime.base.types import Message
from runtime.engine.branches import branches
from runtime.engine.markers import ThinkingMarkers
from runtime.engine.template import ChatTemplate, Prompt, build_prompt, file_layout
from runtime.llama import LlamaBackend

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
THINK = ThinkingMarkers("<think>", "</think>")
FOLDER = Path(__file__).parents[2] / "templates"
TEMPLATES = {
    name: (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    for name in ("nano", "qwen3-like", "deepseek-r1-distill-qwen-7b", "smollm2", "gemma3", "llama3")
}
SYSTEM, FIRST, FILE = "Be kind, and say little.", "How many?", "one two\nthree\n"
ASKED = (Message("system", SYSTEM), Message("user", FIRST))
TALK = (*ASKED, Message("assistant", "<think>\nHm.\n</think>\n\nFour."), Message("user", "Why?"))

_TOKENS = re.compile(r"<[｜|][^<>]*[｜|]>|</?\w+>|\s*[^\W\d]+|\s*\d|\s+|.", re.DOTALL)


def tokenize(text: str, *, add_bos: bool = False, literal: Sequence[int] = ()) -> list[int]:
    """Special tokens, words with all white space before them, digits, runs of white space, other characters."""
    return [sum(ord(each) << 21 * at for at, each in enumerate(token)) for token in _TOKENS.findall(text)]


def builder(name: str, thinking: bool | None = None) -> Callable[[Sequence[Message]], Prompt]:
    template = ChatTemplate(TEMPLATES[name], bos=BOS, eos=EOS)
    return lambda messages: build_prompt(template, messages, THINK, thinking, "")


def branched(name: str, messages: Sequence[Message], thinking: bool | None = None) -> tuple[Prompt, tuple[int, ...]]:
    build = builder(name, thinking)
    prompt = build(messages).tokenized(tokenize)
    return prompt, branches(prompt, messages, build, tokenize)


def spelled(tokens: Sequence[int]) -> str:
    return "".join(chr(token >> 21 * at & 0x1FFFFF) for token in tokens for at in range(-(-token.bit_length() // 21)))


def about_file(question: str) -> tuple[Message, ...]:
    return (Message("system", SYSTEM), Message("user", file_layout("a.txt", FILE, question)))


@pytest.mark.parametrize(
    ("name", "before_question", "before_answer"),
    [
        ("nano", f"{BOS}{SYSTEM}<｜User｜>", f"{BOS}{SYSTEM}<｜User｜>{FIRST}<｜Assistant｜>"),
        ("deepseek-r1-distill-qwen-7b", f"{BOS}{SYSTEM}<｜User｜>", f"{BOS}{SYSTEM}<｜User｜>{FIRST}"),
        (
            "qwen3-like",
            f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user",
            f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{FIRST}<|im_end|>\n<|im_start|>assistant",
        ),
        (
            "gemma3",
            f"{BOS}<start_of_turn>user\n{SYSTEM}",
            f"{BOS}<start_of_turn>user\n{SYSTEM}\n\n{FIRST}<end_of_turn>\n<start_of_turn>model",
        ),
    ],
)
def test_a_prompt_branches_before_the_question_and_before_the_answer(
    name: str, before_question: str, before_answer: str
) -> None:
    prompt, found = branched(name, ASKED)
    assert [spelled(prompt.tokens[:length]) for length in found] == [before_question, before_answer]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_with_a_file_branches_behind_the_file(name: str) -> None:
    prompt, found = branched(name, about_file("How many?"))
    assert len(found) == 3
    assert spelled(prompt.tokens[: found[1]]).endswith("\n[file content end]")


def test_a_forced_thought_is_no_part_of_the_next_turn() -> None:
    for thinking in (True, False):
        prompt, found = branched("qwen3-like", ASKED, thinking)
        assert spelled(prompt.tokens[: found[-1]]).endswith("<|im_start|>assistant")


def test_the_last_question_of_a_conversation_makes_the_branches() -> None:
    prompt, found = branched("nano", TALK)
    assert [spelled(prompt.tokens[:length]) for length in found] == [
        f"{BOS}{SYSTEM}<｜User｜>",
        f"{BOS}{SYSTEM}<｜User｜>{FIRST}<｜Assistant｜>Four.{EOS}<｜User｜>Why?<｜Assistant｜>",
    ]


def test_a_long_text_before_a_branch_is_not_read_again() -> None:
    read: list[int] = []

    def counting(text: str, *, add_bos: bool = False, literal: Sequence[int] = ()) -> list[int]:
        read.append(len(text))
        return tokenize(text)

    messages = (*ASKED[:1], Message("user", file_layout("a.txt", "word\n" * 10_000, "How many?")))
    prompt = builder("nano")(messages).tokenized(tokenize)
    assert len(branches(prompt, messages, builder("nano"), counting)) == 3
    assert max(read) < 1000


def test_a_template_that_refuses_the_next_turn_gives_no_branch_for_it() -> None:
    once = ChatTemplate(
        "{% if messages | length > 1 %}{{ raise_exception('one only') }}{% endif %}Q: {{ messages[0].content }} A:",
        bos="", eos="",
    )  # fmt: skip
    messages = (Message("user", "Why?"),)
    prompt = build_prompt(once, messages, None, None, "").tokenized(tokenize)
    found = branches(prompt, messages, lambda said: build_prompt(once, said, None, None, ""), tokenize)
    assert [spelled(prompt.tokens[:length]) for length in found] == ["Q:"]


def test_a_template_that_writes_everything_otherwise_gives_no_branch() -> None:
    counts = ChatTemplate("{{ messages | length }}{{ messages[-1].content }}", bos="", eos="")
    build = lambda said: build_prompt(counts, said, None, None, "")  # noqa: E731
    prompt = build((Message("user", "Why?"),)).tokenized(tokenize)
    # Another question is the only one, too.
    assert branches(prompt, (Message("user", "Why?"),), build, tokenize) == (1,)
    prompt = build(TALK).tokenized(tokenize)
    assert branches(prompt, TALK, build, tokenize) == ()


def test_a_quoted_special_token_keeps_its_place() -> None:
    template = ChatTemplate(TEMPLATES["qwen3-like"], bos="", eos="", spellings=("<|im_end|>",))
    build = lambda said: build_prompt(template, said, None, None, "")  # noqa: E731
    messages = (Message("user", "What does <|im_end|> do?"),)
    read: list[tuple[str, tuple[int, ...]]] = []

    def noting(text: str, *, add_bos: bool = False, literal: Sequence[int] = ()) -> list[int]:
        read.append((text, tuple(literal)))
        return tokenize(text)

    prompt = build(messages).tokenized(noting)
    assert branches(prompt, messages, build, noting)
    assert all(text[at : at + 10] == "<|im_end|>" for text, literal in read for at in literal)
    assert sum(bool(literal) for _, literal in read) > 2


texts = some.text(alphabet="xy \n\t1é<.|", max_size=12).map(lambda text: f"{text}z")


@given(some.sampled_from(sorted(TEMPLATES)), texts, texts, texts, texts, some.sampled_from((None, True, False)))
def test_every_branch_is_a_beginning_of_the_prompt_that_comes_next(
    name: str, system: str, question: str, answer: str, next_question: str, thinking: bool | None
) -> None:
    build = builder(name, thinking)
    asked = (Message("system", system), Message("user", file_layout("a.txt", FILE, question)))
    answered = Message("assistant", f"<think>\nHm.\n</think>\n\n{answer}")
    prompt, found = branched(name, asked, thinking)
    later = (
        (asked[0], Message("user", next_question)),
        (asked[0], Message("user", file_layout("a.txt", FILE, next_question))),
        (*asked, answered, Message("user", next_question)),
    )
    assert len(found) == 3
    for length, messages in zip(found, later, strict=True):
        assert build(messages).tokenized(tokenize).tokens[:length] == prompt.tokens[:length]


def test_the_branches_of_the_embedded_model_are_beginnings_of_its_next_turn(backend: LlamaBackend) -> None:
    build = builder("nano")
    prompt = build(TALK).tokenized(backend.tokenize)
    found = branches(prompt, TALK, build, backend.tokenize)
    assert found
    for answer, question in ((" a", "b"), ("\n\n1", " c"), ("The sum.", "\nWhat?")):
        talk = (*TALK, Message("assistant", answer), Message("user", question))
        assert build(talk).tokenized(backend.tokenize).tokens[: found[-1]] == prompt.tokens[: found[-1]]
    assert len(prompt.tokens) - found[-1] < 8
