"""Known fields that dsr cannot honour: they are refused, never ignored."""

from __future__ import annotations

from dsr.serve.http.errors import Refused


def refuse(*wishes: tuple[str, object, str]) -> None:
    """Raises Refused for the first wish that is there. Each is the place of a field, whether something is asked for
    that dsr does not do, and what dsr does instead.
    """
    for place, asked, why in wishes:
        if asked:
            raise Refused(400, f"{place}: {why}", place=place)
