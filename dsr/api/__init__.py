"""dsr for Python programs: load a model, ask, vote, score given texts, embed. The names here stay.

    from dsr import api

    with api.load("nano") as model:
        print(model.chat("What is 347 + 586?").text)

Importing it is fast, and loads no engine. Nothing here prints; what goes wrong raises a `DsrError`, which says in
`message` what happened and in `hint` what to do. The guide `docs/guides/python.md` has examples.
"""

from __future__ import annotations

from dsr.api.model import Model, Stream, load
from dsr.api.options import AnswerOptions, Question
from dsr.api.results import Answer, Ballot, Decision, Evidence, Score, Text
from runtime.base.errors import (
    Aborted,
    BadModelFile,
    DoesNotFit,
    DsrError,
    Incompatible,
    Lost,
    NotFound,
    UsageError,
)
from runtime.base.types import Message

__all__ = [
    "Aborted",
    "Answer",
    "AnswerOptions",
    "BadModelFile",
    "Ballot",
    "Decision",
    "DoesNotFit",
    "DsrError",
    "Evidence",
    "Incompatible",
    "Lost",
    "Message",
    "Model",
    "NotFound",
    "Question",
    "Score",
    "Stream",
    "Text",
    "UsageError",
    "load",
]
