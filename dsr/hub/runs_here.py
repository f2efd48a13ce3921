"""Tells before a download, from names and headers on the hub, whether a GGUF model can run on this machine's engine.

What cannot run is refused with Incompatible. `force` downloads it all the same, for another program.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from dsr.hub.client import Hub, Listing
from dsr.hub.remote_card import remote_card
from dsr.models.gguf_names import QuantChoice, foreign_error, foreign_program, quant_of, quants_in, readable
from runtime.base.errors import BadModelFile, DsrError, Gated, Incompatible
from runtime.base.events import Listener, Notice
from runtime.gguf.card import ModelCard
from runtime.gguf.embedding import check_useful


def readable_choices(choices: Sequence[QuantChoice], *, force: bool) -> Sequence[QuantChoice]:
    """The choices that the engine can read; with `force` all, where there are only others."""
    try:
        return readable(choices)
    except Incompatible as error:
        if force:
            return choices
        raise _unless_forced(error) from error


def check_named(listing: Listing, files: Sequence[str], hub: Hub, listen: Listener, *, force: bool) -> None:
    """Check the files of a quantization that the user named. Raises as `header_of` does."""
    quant = _label(files)
    program = foreign_program(quant)
    if program and not force:
        raise _unless_forced(foreign_error(quant, program, [choice.quant for choice in quants_in(listing.sizes)]))
    header_of(listing, files, hub, listen, force=force)


def header_of(listing: Listing, files: Sequence[str], hub: Hub, listen: Listener, *, force: bool) -> ModelCard | None:
    """The header on the hub; None, with a notice, where it cannot be read now or `force` passes over what it tells.

    Raises Gated, BadModelFile, Incompatible.
    """
    try:
        card = remote_card(listing, files, hub, listen)
        check_useful(card)
        return card
    except Gated:
        raise
    except (BadModelFile, Incompatible) as error:
        if not force and isinstance(error, Incompatible):
            raise _unless_forced(error) from error
        if not force:
            raise
        listen(Notice(f"{error.message}; dsr downloads it because of --force"))
    except DsrError as error:
        listen(
            Notice(f"dsr cannot read the header of {_label(files)} ({error.message}); it uses the file size instead")
        )
    return None


def _label(files: Sequence[str]) -> str:
    return quant_of(files[0]) or PurePosixPath(files[0]).name


def _unless_forced(error: Incompatible) -> Incompatible:
    return Incompatible(error.message, hint=f"{error.hint}; to download it anyway, use --force")
