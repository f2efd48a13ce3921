"""Vectors of texts from the engine of a model, as every API's route wants them."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from dsr.serve.ask import MOST_TEXTS
from dsr.serve.http.errors import Refused
from dsr.serve.http.server import Server
from dsr.serve.http.streams import unless_gone

Text = str | list[int]


@dataclass(frozen=True, slots=True)
class Embedded:
    """A vector of length 1 for each text: float32, little-endian, base64. `tokens` are those of all texts."""

    vectors: tuple[str, ...]
    tokens: int

    def numbers(self, index: int) -> list[float]:
        """A vector as numbers with nine digits, which is all that float32 has."""
        values = array("f", base64.b64decode(self.vectors[index]))
        if sys.byteorder == "big":
            values.byteswap()
        return [float(f"{value:.9g}") for value in values]


def texts_of(given: str | Sequence[int] | Sequence[Text], place: str) -> list[Text]:
    """The texts of a request: one text, its tokens, or several of both. Raises Refused, which names the place."""
    if isinstance(given, str):
        texts: list[Text] = [given]
    elif given and all(isinstance(each, int) for each in given):
        texts = [[each for each in given if isinstance(each, int)]]
    else:
        texts = [each for each in given if not isinstance(each, int)]
        if len(texts) != len(given):
            raise Refused(400, f"{place}: texts and tokens are mixed", place=place)
    if not texts:
        raise Refused(400, f"{place}: there is no text", place=place)
    if len(texts) > MOST_TEXTS:
        raise Refused(400, f"{place}: {len(texts)} texts, and at most {MOST_TEXTS} are embedded at once", place=place)
    for index, text in enumerate(texts):
        if not text:
            raise Refused(400, f"{place}.{index}: the text is empty", place=f"{place}.{index}")
    return texts


async def embed(
    request: Request,
    server: Server,
    reference: str,
    texts: Sequence[Text],
    *,
    dimensions: int | None = None,
    truncate: bool = False,
) -> Embedded:
    """The vectors of `texts` by a model, with `dimensions` only their first numbers. `truncate` cuts long texts.

    Raises Busy, ToldFailed, ClientDisconnect.
    """
    given = {"texts": list(texts), "dimensions": dimensions, "truncate": truncate}
    async with server.pool.engine(reference) as engine:
        found = await unless_gone(request, engine.query("embed", given))
    return Embedded(tuple(found["vectors"]), sum(found["tokens"]))
