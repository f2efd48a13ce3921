"""Whether a model turns a text into a vector, and how: read from its header."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runtime.base.errors import Incompatible
from runtime.gguf.card import ModelCard
from runtime.gguf.engine_lists import ENCODERS, check_answers, check_known, no_vectors

Pooling = Literal["mean", "cls", "last"]
Use = Literal["answers", "embeddings"]

# enum llama_pooling_type (llama.h); `runtime.gguf.checks` refuses other numbers. "none" gives a vector for each token,
# "rank" a score.
_POOLINGS: dict[int, Pooling] = {1: "mean", 2: "cls", 3: "last"}
_NONE, _RANK = 0, 4
# llama_model::create_memory (src/llama-model.cpp): these read each batch in one pass and cache nothing. The other
# encoders get a cache, too.
_WITHOUT_CACHE = ENCODERS - {"llama-embed", "t5encoder"}
_HINT = "take a model that was made for embeddings, such as one whose name has 'embed'"


@dataclass(frozen=True, slots=True)
class EmbeddingForm:
    """How a model gives the vector of a text, of `dimensions` numbers.

    `pooling`: the mean of the vectors of all tokens, or that of the first (`cls`) or of the last. `stated`: the file
    names it, so that the model was made for embeddings. `causal`: a token sees only earlier ones. `caches`: the engine
    keeps keys and values, so that a causal model can read a text in parts. `longest`: the most tokens of a text.
    """

    pooling: Pooling
    stated: bool
    dimensions: int
    causal: bool
    caches: bool
    longest: int

    @property
    def in_parts(self) -> bool:
        """Whether a text may be read in several batches. Other texts must lie in one: the engine pools one batch."""
        return self.causal and self.caches and self.pooling == "last"


def embedding_form(card: ModelCard) -> EmbeddingForm:
    """How the model embeds. Raises Incompatible for a model that the engine does not know or that gives no vectors.

    Where the file names no pooling, an encoder takes the mean, as sentence-transformers does; a model that writes text
    takes the last token, the only one that has seen the whole text. llama-server gives one vector for each token
    there, unless `--pooling` says otherwise.
    """
    check_known(card)
    if reason := no_vectors(card):
        raise Incompatible(f"{card.path}: {reason}", hint=_HINT)
    encodes = card.architecture in ENCODERS
    stated = card.metadata.get(f"{card.architecture}.pooling_type")
    if stated == _RANK:
        raise Incompatible(f"{card.path}: a reranker, which gives a score for two texts and no vectors", hint=_HINT)
    if stated == _NONE:
        raise Incompatible(f"{card.path}: it gives a vector for each token, and none for a whole text", hint=_HINT)
    named = _POOLINGS[stated] if isinstance(stated, int) else None
    causal = card.metadata.get(f"{card.architecture}.attention.causal", not encodes)
    return EmbeddingForm(
        pooling=named or ("mean" if encodes else "last"),
        stated=named is not None,
        dimensions=_dimensions(card),
        causal=bool(causal) and not encodes,
        caches=card.architecture not in _WITHOUT_CACHE,
        longest=_longest(card),
    )


def check_useful(card: ModelCard) -> None:
    """Raise Incompatible for a model that neither writes answers nor gives vectors, with why it writes none."""
    if not uses(card):
        check_answers(card)


def uses(card: ModelCard) -> tuple[Use, ...]:
    """What a model is good for here: answers, embeddings, both or nothing."""
    found: list[Use] = []
    try:
        check_answers(card)
        found.append("answers")
    except Incompatible:
        pass
    try:
        embedding_form(card)
        found.append("embeddings")
    except Incompatible:
        pass
    return tuple(found)


def made_for_embeddings(card: ModelCard) -> bool:
    """Whether a model is opened to embed and not to answer: encoders, and files that name a pooling.

    Raises Incompatible for a model that neither answers nor embeds.
    """
    check_useful(card)
    return "answers" not in uses(card) or ("embeddings" in uses(card) and embedding_form(card).stated)


def _dimensions(card: ModelCard) -> int:
    """llama_hparams::n_embd_out: the width of the model, if the file does not say otherwise."""
    given = card.metadata.get(f"{card.architecture}.embedding_length_out")
    return given if isinstance(given, int) and given > 0 else card.embedding_length


def _longest(card: ModelCard) -> int:
    """The trained length; learned positions end with their table, and the engine ends the process behind it."""
    tables = [tensor.shape[1] for tensor in card.tensors if tensor.name == "position_embd.weight"]
    return min([card.context_length, *tables])
