"""The probabilities of tokens in OpenAI's form."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from runtime.base.events import TokenDrawn


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


def _row(piece: bytes, logprob: float, token: int) -> dict[str, Any]:
    return {"id": token, "token": piece.decode("utf-8", "replace"), "bytes": [*piece], "logprob": logprob}
