"""Puts files before the text of a question, and finds them there again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import prompts
from runtime.base.errors import UsageError
from runtime.base.texts import read_text
from runtime.base.types import Message
from runtime.engine.template import answered, file_layout
from runtime.strategies.paragraphs import Document

_BEGIN, _MIDDLE, _END, _ = re.split(r"\{\w+\}", prompts.read("file-layout"))


@dataclass(frozen=True, slots=True)
class GivenFile:
    """A file as it stands in a question. `text` is its whole part of the message, with the lines around it."""

    name: str
    text: str

    @property
    def content(self) -> str:
        """The text of the file itself."""
        return self.text[len(_BEGIN) + len(self.name) + len(_MIDDLE) : len(self.text) - len(_END)]


def with_files(files: tuple[Path, ...], prompt: str | None) -> str | None:
    """The question with the files it is about before it, in the layout that DeepSeek documents for R1."""
    if not files:
        return prompt
    if prompt is None:
        raise UsageError(
            "-f gives a file to ask about, but no question was asked", hint="add the question as an argument"
        )
    for path in reversed(files):
        prompt = file_layout(path.name, read_text(path), prompt)
    return prompt


def given_files(question: str) -> tuple[GivenFile, ...]:
    """The files at the beginning of a question from `with_files`; their texts in a row begin the question.

    A file that contains the layout itself may come out in several parts. A question may contain it, too.
    """
    files: list[GivenFile] = []
    while question.startswith(_BEGIN):
        name, middle, content = question.removeprefix(_BEGIN).partition(_MIDDLE)
        at = content.rfind(_END) if middle and "\n" not in name else -1
        if at < 0:
            break
        # The next file begins directly after the end of this one; the last end is that of the last file.
        following = content.find(_END + _BEGIN)
        at = following if 0 <= following < at else at
        text = question[: len(_BEGIN) + len(name) + len(middle) + at + len(_END)]
        files.append(GivenFile(name, text))
        question = question[len(text) :]
    return tuple(files)


def newest_in_place(turns: Sequence[Message]) -> tuple[list[Message], tuple[str, ...]]:
    """The turns with each file once: where it was given first, as it was given last.

    Also the names of the files that the last question changed. Two files of one name in one question are left alone.
    """
    turns = answered(turns)  # a file in the place of an earlier one must not go with a question that prompts leave out
    given = [given_files(turn.content) if turn.role == "user" else () for turn in turns]
    names = [[file.name for file in files] for files in given]
    twice = {name for each in names for name in each if each.count(name) > 1}
    newest = {file.name: file.text for files in given for file in files}
    before = {file.name: file.text for files in given[:-1] for file in files}
    done: set[str] = set()
    edited: list[Message] = []
    for turn, files in zip(turns, given, strict=True):
        question = turn.content[sum(len(file.text) for file in files) :]
        texts = [
            file.text if file.name in twice else newest[file.name]
            for file in files
            if file.name in twice or file.name not in done
        ]
        done |= {file.name for file in files}
        edited.append(replace(turn, content="".join(texts) + question) if files else turn)
    changed = {file.name for file in given[-1] if before.get(file.name, file.text) != file.text} if given else set()
    return edited, tuple(sorted(changed - twice))


def parted(turns: Sequence[Message]) -> tuple[list[Message], tuple[Document, ...]]:
    """The turns without their files, and the files: of each name those that were given last.

    Where no file was given, what stands before the last paragraph of the last question is a document named "text".
    """
    given = [given_files(turn.content) if turn.role == "user" else () for turn in turns]
    said = [
        replace(turn, content=turn.content[sum(len(file.text) for file in files) :])
        for turn, files in zip(turns, given, strict=True)
    ]
    documents = []
    for number, files in enumerate(given):
        later = {file.name for others in given[number + 1 :] for file in others}
        documents += [Document(file.name, file.content) for file in files if file.name not in later]
    if not documents and said:
        text, _, question = said[-1].content.rstrip().rpartition("\n\n")
        if text:
            said[-1], documents = replace(said[-1], content=question), [Document("text", text)]
    return said, tuple(documents)


def unseen_files(turns: Sequence[Message], question: str) -> tuple[str, ...]:
    """The names of files that only the last of `turns` has, which got no answer: prompts leave it out.

    Files that `question`, the next one, gives again are seen.
    """
    asked = [given_files(turn.content) for turn in turns if turn.role == "user"]
    seen = {file.text for turn in answered(turns) if turn.role == "user" for file in given_files(turn.content)}
    again = {file.name for file in given_files(question)}
    unseen = (file.name for file in (asked[-1] if asked else ()) if file.text not in seen and file.name not in again)
    return tuple(dict.fromkeys(unseen))


def files_that_stay(gone: Sequence[Message], kept: Sequence[Message]) -> str:
    """The files of the questions in `gone`, in their order, as text to put before the first question in `kept`.

    If a later question has a file of the same name, the earlier file is an older version and is left out.
    """
    asked = [turn for turn in (*gone, *kept) if turn.role == "user"]
    files = [given_files(turn.content) for turn in asked]
    stay: list[str] = []
    for number in range(sum(turn.role == "user" for turn in gone)):
        later = {file.name for others in files[number + 1 :] for file in others}
        stay += [file.text for file in files[number] if file.name not in later]
    return "".join(stay)
