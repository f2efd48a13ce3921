"""Queries that an engine process answers besides drawing: what a text is in tokens, what a prompt reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dsr.loading.load import LoadedModel
from dsr.serve.ask import ask_of
from runtime.base.errors import UsageError


def answer(loaded: LoadedModel, kind: str, given: Mapping[str, Any]) -> Any:
    """The answer to a query of this `QueryKind`, as JSON. Raises DsrError."""
    return _QUERIES[kind](loaded, given)


def _tokenize(loaded: LoadedModel, given: Mapping[str, Any]) -> list[int]:
    literal = () if given.get("special", True) else range(len(given["text"]))
    return loaded.backend.tokenize(given["text"], add_bos=bool(given.get("add_bos")), literal=literal)


def _detokenize(loaded: LoadedModel, given: Mapping[str, Any]) -> str:
    size = loaded.vocab_size
    for token in given["tokens"]:
        if not 0 <= token < size:
            raise UsageError(f"there is no token {token} in a vocabulary of {size}")
    return b"".join(map(loaded.backend.piece, given["tokens"])).decode("utf-8", "replace")


def _prompt(loaded: LoadedModel, given: Mapping[str, Any]) -> str:
    ask = ask_of(given["ask"])
    return loaded.prompt(ask.messages, loaded.chat_format.known(ask.options)).text


def _count(loaded: LoadedModel, given: Mapping[str, Any]) -> int:
    ask = ask_of(given["ask"])
    return len(loaded.prompt(ask.messages, loaded.chat_format.known(ask.options)).tokens)


def _props(loaded: LoadedModel, given: Mapping[str, Any]) -> dict[str, Any]:
    backend, template = loaded.backend, loaded.chat_format.template
    return {
        "context": backend.context,
        "longest": backend.longest,
        "slots": backend.slots,
        "threads": loaded.threads,
        "template": template.source,
        "bos": template.bos,
        "eos": template.eos,
        "efforts": [*loaded.chat_format.facts.efforts],
        "thinks": loaded.markers is not None,
    }


_QUERIES: dict[str, Callable[[LoadedModel, Mapping[str, Any]], Any]] = {
    "tokenize": _tokenize,
    "detokenize": _detokenize,
    "prompt": _prompt,
    "count": _count,
    "props": _props,
}
