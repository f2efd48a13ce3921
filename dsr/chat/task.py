"""A question for a strategy, from a conversation with an open model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dsr.loading.load import LoadedModel
from runtime.base.types import Message
from runtime.engine.grammar import Grammar
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.strategies.bounds import Drawer
from runtime.strategies.paragraphs import Document
from runtime.strategies.task import Task


def task_of(
    loaded: LoadedModel,
    said: Sequence[Message],
    request: Request,
    engine: Drawer,
    build: Callable[[Sequence[Message], bool | None], Prompt],
    grammar: Grammar | None,
    documents: tuple[Document, ...] = (),
) -> Task:
    """The last message of `said` as the question of a strategy; the messages before it are part of every prompt.

    `request` asks that question, without the `documents` that it is about. `build` makes the prompt of messages, with
    thinking on, off, or as the request has it.
    """
    *before, asked = said
    return Task(
        question=asked.content,
        prompt=request.prompt,
        make_prompt=lambda question, thinking: build([*before, Message("user", question)], thinking),
        params=request.params,
        engine=engine,
        markers=loaded.markers,
        family=loaded.chat_format.family,
        parameters=loaded.card.parameters,
        grammar=grammar,
        tokens_of=loaded.tokens,
        longest=loaded.backend.longest,
        documents=documents,
    )
