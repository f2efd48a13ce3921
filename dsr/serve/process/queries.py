"""Queries that an engine process answers besides drawing: what a text is in tokens, what a prompt reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dsr.loading.load import LoadedModel
from dsr.models.sampling import effective
from dsr.serve.ask import ask_of
from runtime.base.errors import UsageError
from runtime.engine.template import Prompt


def answer(loaded: LoadedModel, kind: str, given: Mapping[str, Any]) -> Any:
    """The answer to a query of this `QueryKind`, as JSON. Raises DsrError."""
    return _QUERIES[kind](loaded, given)


def _tokenize(loaded: LoadedModel, given: Mapping[str, Any]) -> list[int]:
    literal = () if given.get("special", True) else range(len(given["text"]))
    return loaded.backend.tokenize(given["text"], add_bos=bool(given.get("add_bos")), literal=literal)


def _detokenize(loaded: LoadedModel, given: Mapping[str, Any]) -> str:
    return b"".join(_spelled(loaded, given["tokens"])).decode("utf-8", "replace")


def _pieces(loaded: LoadedModel, given: Mapping[str, Any]) -> list[list[int]]:
    """The bytes of each token."""
    return [[*piece] for piece in _spelled(loaded, given["tokens"])]


def check_tokens(loaded: LoadedModel, tokens: Sequence[int]) -> None:
    """Raises UsageError for a token that the model does not have: the engine would end over it."""
    size = loaded.card.vocab_size
    for token in tokens:
        if not 0 <= token < size:
            raise UsageError(f"there is no token {str(token)[:20]} in a vocabulary of {size}")


def _spelled(loaded: LoadedModel, tokens: Sequence[int]) -> list[bytes]:
    check_tokens(loaded, tokens)
    return [*map(loaded.backend.piece, tokens)]


def _ends(loaded: LoadedModel, given: Mapping[str, Any]) -> list[int]:
    """The tokens that end a reply."""
    return [token for token in range(loaded.card.vocab_size) if loaded.backend.ends(token)]


def _prompt(loaded: LoadedModel, given: Mapping[str, Any]) -> str:
    return _asked(loaded, given).text


def _count(loaded: LoadedModel, given: Mapping[str, Any]) -> int:
    return len(_asked(loaded, given).tokens)


def _asked(loaded: LoadedModel, given: Mapping[str, Any]) -> Prompt:
    """The prompt of an ask, with the tools that it lists."""
    ask = ask_of(given["ask"])
    tools = ask.tools.offered if ask.tools is not None else ()
    return loaded.prompt(ask.messages, loaded.chat_format.known(ask.options), tools)


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
        "sampling": effective(loaded.model.sampling.params),
    }


_QUERIES: dict[str, Callable[[LoadedModel, Mapping[str, Any]], Any]] = {
    "tokenize": _tokenize,
    "detokenize": _detokenize,
    "pieces": _pieces,
    "ends": _ends,
    "prompt": _prompt,
    "count": _count,
    "props": _props,
}
