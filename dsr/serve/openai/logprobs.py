"""The probabilities of tokens in OpenAI's form."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from runtime.base.events import TokenDrawn


def chat_logprobs(tokens: Iterable[TokenDrawn]) -> dict[str, Any]:
    """The tokens of the answer; those of the thought have a list of their own."""
    rows: dict[str, list[dict[str, Any]]] = {"answer": [], "thinking": []}
    for each in tokens:
        top = [_row(other.piece, other.logprob, other.token) for other in each.top]
        rows[each.part].append({**_row(each.piece, each.logprob, each.token), "top_logprobs": top})
    thought = {"reasoning": rows["thinking"]} if rows["thinking"] else {}
    return {"content": rows["answer"], "refusal": None, **thought}


def _row(piece: bytes, logprob: float, token: int) -> dict[str, Any]:
    return {"id": token, "token": piece.decode("utf-8", "replace"), "bytes": [*piece], "logprob": logprob}
