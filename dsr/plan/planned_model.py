"""The model to plan for: a file on this machine, a header on the hub, or the figures of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dsr.hub.client import Hub, Listing
from dsr.hub.pull import QuantSpeed, decide_quant
from dsr.hub.remote_card import remote_card
from dsr.hub.select_files import estimated_beyond_weights
from dsr.loading.from_disk import Picks
from dsr.loading.profiled_picks import profiled_picks
from dsr.models import library
from dsr.models.catalog import CatalogEntry
from dsr.models.gguf_names import QuantChoice, choose_files, quant_of, quants_in, readable
from dsr.models.references import Reference, parse
from dsr.plan.estimate import estimated_card, quants_to_try
from runtime.base.errors import BadModelFile, DoesNotFit, Incompatible, NetworkError, NotFound
from runtime.base.events import Listener, Notice, ignore
from runtime.gguf.card import ModelCard
from runtime.gguf.engine_lists import check_answers
from runtime.gguf.header import LONGEST_HEADER
from runtime.gguf.reader import card_from_headers, parse_header

_ANY_SIZE = 1 << 62  # the size of a file, where only its header is known


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """A model to plan for. `reference` finds it again; `origin` says where `card` comes from if not from the file.

    `profiles`: how often each profiled task chose each expert.
    `why` is the reason for the quantization, if the user named none.
    `choices` are the quantizations in its repository, the smallest first; empty where the hub was not asked.
    """

    reference: str
    name: str
    quant: str | None
    card: ModelCard
    origin: str = ""
    entry: CatalogEntry | None = None
    choices: tuple[QuantChoice, ...] = ()
    why: str = ""
    profiles: Mapping[str, Picks] = field(default_factory=dict)


def find_model(
    text: str, hub: Hub, available: int, listen: Listener = ignore, speed: QuantSpeed | None = None
) -> PlannedModel:
    """The model that `text` names. For a model that is not here, only the header is read on the hub.

    If `text` names no quantization, the one that `dsr pull` prefers for `available` bytes is taken. If the hub cannot
    be reached, a model of the catalogue is estimated. Raises what `library.find` and `Hub.listing` raise, and
    Incompatible for a model that the engine does not know.
    """
    try:
        model = library.find(text)
    except (NotFound, Incompatible) as error:
        reference = parse(text)
        if reference.repo is None:
            raise
        try:
            return _on_the_hub(reference, hub, available, listen, speed)
        except NetworkError as unreachable:
            if reference.entry is None:
                raise
            listen(Notice(unreachable.message))
            return from_catalogue(reference.entry, reference.quant or _usual(reference.entry, available))
        except DoesNotFit as too_large:
            raise too_large from error
    try:
        check_answers(model.card)
        return PlannedModel(
            model.absolute_reference,
            model.short_name,
            model.quant,
            model.card,
            entry=model.entry,
            profiles=profiled_picks(model.card),
        )
    except BadModelFile:
        card = _header_only(model.path)
        if card is None:
            raise
        check_answers(card)
        return PlannedModel(
            model.absolute_reference, card.name, model.quant, card, "the header of a file without its weights"
        )


def from_catalogue(entry: CatalogEntry, quant: str) -> PlannedModel:
    """An estimate from the figures of the catalogue. Raises NotFound for a quantization that cannot be estimated."""
    return PlannedModel(
        reference=f"{entry.name}:{quant}",
        name=entry.model,
        quant=quant,
        card=estimated_card(entry, quant),
        origin="an estimate from the catalogue's figures, not from the model's header",
        entry=entry,
    )


def _usual(entry: CatalogEntry, available: int) -> str:
    """The usual quantization; where it does not fit, the largest that fits, else the smallest."""
    known = quants_to_try(entry)
    sizes = {quant: estimated_card(entry, quant).weights_size for quant in known}
    return next((q for q in known if sizes[q] + estimated_beyond_weights(sizes[q]) <= available), known[-1])


def _on_the_hub(
    reference: Reference, hub: Hub, available: int, listen: Listener, speed: QuantSpeed | None
) -> PlannedModel:
    assert reference.repo is not None
    listing = hub.listing(reference.repo, listen=listen)
    choices = readable(quants_in(listing.sizes))
    files, why = _files(reference, listing, choices, hub, available, speed, listen)
    card = remote_card(listing, files, hub, listen)
    check_answers(card)
    quant = quant_of(files[0]) or reference.quant
    named = reference.entry.name if reference.entry and reference.kind == "name" else reference.repo
    return PlannedModel(
        reference=f"{named}:{quant}" if quant else named,
        name=reference.entry.model if reference.entry else card.name,
        quant=quant,
        card=card,
        origin=f"the model's header on the hub ({reference.repo}); dsr downloaded nothing else",
        why=why,
        entry=reference.entry,
        choices=tuple(choices),
    )


def _files(
    reference: Reference,
    listing: Listing,
    choices: Sequence[QuantChoice],
    hub: Hub,
    available: int,
    speed: QuantSpeed | None,
    listen: Listener,
) -> tuple[tuple[str, ...], str]:
    """The files of the quantization, and the reason for it."""
    if reference.quant:
        return choose_files(tuple(listing.sizes), reference.quant), ""
    if not choices:
        raise NotFound(f"{reference.repo} has no GGUF file", hint="name a repository that has one")
    try:
        decision = decide_quant(listing, choices, hub, available, speed, listen)
        return decision.choice.files, decision.why
    except DoesNotFit:
        return choices[0].files, ""  # the plan says how much memory is missing


def _header_only(path: Path) -> ModelCard | None:
    """The card of a file whose weights are missing; None if its header is broken too."""
    with path.open("rb") as file:
        data = file.read(LONGEST_HEADER)
    try:
        card = card_from_headers((path,), (parse_header(data, _ANY_SIZE, path),))
    except BadModelFile:
        return None
    return replace(card, size=card.weights_size)
