"""The log-probabilities of an answer's tokens: in OpenAI's form, and as lines for people."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from runtime.base.events import Event, TokenDrawn
from runtime.base.texts import json_text


class TokensDrawn:
    """The tokens of all samples, as they are drawn. Without `SamplingParams.top_logprobs` there are none."""

    def __init__(self) -> None:
        self._of: dict[int, list[TokenDrawn]] = {}

    def hear(self, event: Event) -> None:
        if isinstance(event, TokenDrawn):
            self._of.setdefault(event.sample, []).append(event)

    def of(self, sample: int) -> tuple[TokenDrawn, ...]:
        return tuple(self._of.get(sample, ()))


def chat_logprobs(tokens: Iterable[TokenDrawn]) -> dict[str, Any]:
    """The tokens of the answer; those of the thought have a list of their own."""
    rows: dict[str, list[dict[str, Any]]] = {"answer": [], "thinking": []}
    for each in tokens:
        rows[each.part].append(token_row(each))
    thought = {"reasoning": rows["thinking"]} if rows["thinking"] else {}
    return {"content": rows["answer"], "refusal": None, **thought}


def token_row(drawn: TokenDrawn) -> dict[str, Any]:
    """A token with its probability, and the likeliest ones."""
    top = [_row(each.piece, each.logprob, each.token) for each in drawn.top]
    return {**_row(drawn.piece, drawn.logprob, drawn.token), "top_logprobs": top}


def logprob_lines(tokens: Iterable[TokenDrawn]) -> list[str]:
    """'answer    -0.0012  99.88 %  "933"   "93" 0.10 %': a line for each token, with the likeliest other ones."""
    lines = []
    for each in tokens:
        others = [f"{_text(other.piece)} {_share(other.logprob)}" for other in each.top if other.token != each.token]
        line = f"{each.part:8}  {each.logprob:z8.4f}  {_share(each.logprob):>8}  {_text(each.piece)}"
        lines.append("   ".join([line, *others]))
    return lines


def _share(logprob: float) -> str:
    return f"{100 * math.exp(logprob):.2f} %"


def _text(piece: bytes) -> str:
    """Quoted, so that blanks and line breaks are seen and nothing controls a terminal."""
    return json_text(piece.decode("utf-8", "replace"))


def _row(piece: bytes, logprob: float, token: int) -> dict[str, Any]:
    return {"id": token, "token": piece.decode("utf-8", "replace"), "bytes": [*piece], "logprob": logprob}
