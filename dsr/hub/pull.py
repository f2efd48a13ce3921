"""Pulls a model: decides which files to take and whether they fit, then downloads them.

`plan` asks the hub and decides, but writes nothing; `download` obeys the plan. The decisions are pure functions in
select_files.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dsr.hub.cache import RemoteFile, RepoCache, check_names
from dsr.hub.client import Hub, Listing
from dsr.hub.left_out import LeftOut, left_out
from dsr.hub.original import local_index, original_files
from dsr.hub.runs_here import check_named, header_of, readable_choices
from dsr.hub.select_files import (
    CONTEXTS,
    QuantDecision,
    check_raw_parts,
    checkpoint_files,
    choose_quant,
    estimated_beyond_weights,
    included,
    smaller_model,
)
from dsr.models.cache_scan import size_on_disk
from dsr.models.gguf_names import QuantChoice, choose_files, is_model_file, quant_of, quants_in
from dsr.models.references import Reference
from quant.sources.shards import read_bytes
from runtime.base.errors import (
    BadModelFile,
    DoesNotFit,
    DsrError,
    Incompatible,
    NetworkError,
    NotFound,
    UsageError,
    VerificationFailed,
)
from runtime.base.events import Listener, ignore
from runtime.base.shard_names import check_shards
from runtime.base.types import ByteCount
from runtime.gguf.card import ModelCard
from runtime.placement.memory import need

# The predicted tokens per second of a quantization with a context, from the header of another one of the same model.
QuantSpeed = Callable[[ModelCard, QuantChoice, int], float]


@dataclass(frozen=True, slots=True)
class PullRequest:
    """What the user asked for. `include` are glob patterns over the repository's paths.

    `from_disk` says how a model runs that does not fit: "from the disk, about 1.2 tokens/s"; "" if it cannot.
    `speed` predicts how fast quantizations run."""

    reference: Reference
    revision: str = "main"
    include: tuple[str, ...] = ()
    original: bool = False
    force: bool = False
    from_disk: Callable[[ModelCard], str] = field(default=lambda card: "", repr=False, compare=False)
    speed: QuantSpeed | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file of the plan: `size` bytes in total, of which `here` bytes are in the cache already."""

    path: str
    size: ByteCount
    digest: str
    here: ByteCount

    @property
    def missing(self) -> ByteCount:
        return ByteCount(self.size - self.here)


@dataclass(frozen=True, slots=True)
class PullPlan:
    """What a pull will do. `why` is the reason for the quantization; empty if the user named it or the files.

    `left_out` are the other files of the repository, by kind."""

    repo: str
    revision: str
    commit: str
    quant: str | None
    why: str
    files: tuple[PlannedFile, ...]
    destination: Path
    free: ByteCount
    listing: Listing | None
    left_out: tuple[LeftOut, ...] = ()

    @property
    def size(self) -> ByteCount:
        return ByteCount(sum(file.size for file in self.files))

    @property
    def missing(self) -> ByteCount:
        return ByteCount(sum(file.missing for file in self.files))

    @property
    def shortage(self) -> ByteCount:
        """Bytes that the disk lacks; 0 when the files fit."""
        return ByteCount(max(int(self.missing) - int(self.free), 0))

    @property
    def main_file(self) -> Path:
        """The path to open: the GGUF file, its first shard, or the folder of the checkpoint."""
        models = sorted(file.path for file in self.files if is_model_file(file.path))
        return self.destination.joinpath(*models[0].split("/")) if models else self.destination


def plan(request: PullRequest, hub: Hub, available: int, listen: Listener = ignore) -> PullPlan:
    """Decide what to download for a machine with `available` bytes of memory for a model. Writes nothing.

    Raises NotFound, Gated, NetworkError, UsageError; DoesNotFit when no quantization fits the memory (unless
    `request.force`); VerificationFailed for a listing that cannot be trusted; Incompatible for pickled
    weights.
    """
    repo = _repo_of(request)
    if hub.offline:
        return plan_from_cache(request, hub.cache(repo))
    try:
        listing = hub.listing(repo, request.revision, listen)
    except NetworkError as error:
        raise _with_offline_hint(error, request, hub.cache(repo)) from error
    quant, why, paths = _select(request, listing, hub, available, listen)
    check_names(paths)
    cache = hub.cache(repo)
    files = [listing.file(path) for path in paths]
    return PullPlan(
        repo=repo,
        revision=request.revision,
        commit=listing.commit,
        quant=quant,
        why=why,
        files=tuple(_planned(file, cache, listing.commit) for file in files),
        destination=cache.snapshot(listing.commit),
        free=cache.free(),
        listing=listing,
        left_out=left_out(listing.sizes, paths),
    )


def download(plan: PullPlan, hub: Hub, listen: Listener = ignore) -> tuple[Path, ...]:
    """Download the missing files and return the paths of all files in the cache. Raises the errors of `Hub.fetch`."""
    if plan.listing is None:
        return tuple(plan.destination.joinpath(*file.path.split("/")) for file in plan.files)
    places = hub.fetch_all(plan.listing, [file.path for file in plan.files], listen)
    hub.remember(plan.listing)
    return tuple(places)


def check_space(plan: PullPlan) -> None:
    """Raise DoesNotFit if the missing files do not fit on the disk."""
    if plan.shortage:
        raise DoesNotFit(
            f"the download needs {plan.missing}, and {plan.free} are free at {plan.destination.parents[2]}: "
            f"{plan.shortage} ({int(plan.shortage)} bytes) are missing",
            hint="free some space with dsr rm, set HF_HOME to a folder on another disk, or use --force",
        )


def plan_from_cache(request: PullRequest, cache: RepoCache) -> PullPlan:
    """The plan without a network. Raises NetworkError, which says what the cache has, if a file is missing."""
    hint = "to download it, unset HF_HUB_OFFLINE"
    commit = cache.commit_of(request.revision)
    snapshot = cache.snapshot(commit) if commit else None
    sizes = _sizes_in(snapshot) if snapshot else {}
    if not commit or not snapshot or not sizes:
        part = sum(map(size_on_disk, cache.folder.glob("blobs/*.incomplete")))
        said = f"only a part of {ByteCount(part)}" if part else "nothing"
        raise NetworkError(f"dsr is offline (HF_HUB_OFFLINE), and {said} of {cache.repo} is in the cache", hint=hint)
    try:
        paths, quant = _select_local(request, snapshot, sizes)
    except DsrError as error:
        raise NetworkError(
            f"dsr is offline (HF_HUB_OFFLINE), and the cache does not have the model: {error.message}", hint=hint
        ) from error
    return PullPlan(
        repo=cache.repo,
        revision=request.revision,
        commit=commit,
        quant=quant,
        why="",
        files=tuple(_local(snapshot, path, sizes[path]) for path in paths),
        destination=snapshot,
        free=cache.free(),
        listing=None,
    )


def _select_local(request: PullRequest, snapshot: Path, sizes: Mapping[str, int]) -> tuple[tuple[str, ...], str | None]:
    if request.include:
        paths, quant = included(tuple(sizes), request.include), None
    elif request.reference.quant:
        paths, quant = choose_files(tuple(sizes), request.reference.quant), request.reference.quant
    elif (choices := quants_in(sizes)) and not request.original:
        paths, quant = choices[-1].files, choices[-1].quant
    else:
        index = local_index(sizes, lambda name: read_bytes(snapshot / name))
        paths, quant = checkpoint_files(tuple(sizes), index), None
    check_shards(paths)
    return paths, quant


def _sizes_in(snapshot: Path) -> dict[str, int]:
    return {
        path.relative_to(snapshot).as_posix(): path.stat().st_size
        for path in sorted(snapshot.rglob("*"))
        if path.is_file()
    }


def _local(snapshot: Path, path: str, size: int) -> PlannedFile:
    place = snapshot.joinpath(*path.split("/"))
    digest = place.resolve().name if place.is_symlink() else ""
    return PlannedFile(path, ByteCount(size), digest, ByteCount(size))


def _with_offline_hint(error: NetworkError, request: PullRequest, cache: RepoCache) -> NetworkError:
    """The same error; if the cache has a complete copy, the hint names it."""
    try:
        local = plan_from_cache(request, cache)
    except DsrError:
        return error
    return NetworkError(error.message, hint=f"a complete copy is in the cache and works offline: {local.main_file}")


def _repo_of(request: PullRequest) -> str:
    reference = request.reference
    if request.original:
        if reference.quant:
            raise UsageError(
                "original weights have no quantization", hint=f"leave out --original or :{reference.quant}"
            )
        if reference.entry is not None:
            return reference.entry.original
    if reference.kind == "program":
        raise UsageError(f"{reference.text} is a model of another program: there is nothing to pull")
    if reference.path is not None and not reference.path.exists():
        raise NotFound(
            f"{reference.text} is not a repository, and there is no such file",
            hint="for one file of a repository: dsr pull ORG/REPO --include FILE",
        )
    if reference.repo is None:
        raise UsageError(f"{reference.text} is on this machine already: there is nothing to pull")
    return reference.repo


def _select(
    request: PullRequest, listing: Listing, hub: Hub, available: int, listen: Listener
) -> tuple[str | None, str, tuple[str, ...]]:
    """The files to download: (quantization, reason, paths)."""
    paths, quant = tuple(listing.sizes), request.reference.quant
    try:
        extra = included(paths, request.include) if request.include else ()
        if quant:
            chosen = _of_quant(paths, quant)
            cache = hub.cache(listing.repo)
            if not any(_planned(listing.file(path), cache, listing.commit).here for path in chosen):  # begins now
                check_named(listing, chosen, hub, listen, force=request.force)
            return quant_of(chosen[0]) or quant, "", tuple(dict.fromkeys((*chosen, *extra)))
        if extra:
            return None, "", extra
        choices = quants_in(listing.sizes)
        if choices and not request.original:
            decision = _decide(request, listing, readable_choices(choices, force=request.force), hub, available, listen)
            return decision.choice.quant, decision.why, decision.choice.files
        if any(is_model_file(path) for path in paths) and not request.original:
            check_shards([path for path in paths if is_model_file(path)])
        return None, "", original_files(listing, hub, request.force, listen)
    except BadModelFile as error:
        hint = "choose another repository" if request.force else "choose another repository, or --force"
        raise BadModelFile(error.path, error.problem, hint=hint) from error
    except (NotFound, VerificationFailed, Incompatible, DoesNotFit, UsageError) as error:
        raise type(error)(f"{listing.repo}: {error.message}", hint=error.hint) from error


def _of_quant(paths: Sequence[str], quant: str) -> tuple[str, ...]:
    try:
        return choose_files(paths, quant)
    except NotFound:
        check_raw_parts(paths, quant)
        raise


def decide_quant(
    listing: Listing,
    choices: Sequence[QuantChoice],
    hub: Hub,
    available: int,
    speed: QuantSpeed | None,
    listen: Listener,
    *,
    force: bool = False,
) -> QuantDecision:
    """The quantization for a person who names none, also for `dsr plan`. Raises DoesNotFit, and as `header_of` does.

    The header of the largest one that may fit tells the memory beyond the weights.
    """
    candidates = [choice for choice in choices if choice.size <= available] or [choices[0]]
    card = header_of(listing, candidates[-1].files, hub, listen, force=force)
    if card is None:
        return choose_quant(choices, available, lambda other, context: estimated_beyond_weights(other.size))
    contexts = tuple(dict.fromkeys(min(context, card.context_length or context) for context in CONTEXTS))
    return choose_quant(
        choices,
        available,
        lambda other, context: need(card, context).beyond_weights,
        contexts,
        speed and (lambda other, context: speed(card, other, context)),
    )


def _decide(
    request: PullRequest, listing: Listing, choices: Sequence[QuantChoice], hub: Hub, available: int, listen: Listener
) -> QuantDecision:
    try:
        return decide_quant(listing, choices, hub, available, request.speed, listen, force=request.force)
    except DoesNotFit as error:
        smallest = choices[0]
        if request.force:
            return QuantDecision(smallest, f"{error.message}; dsr takes it because of --force")
        smaller = smaller_model(request.reference.entry, available)
        ideas = [f"dsr pull {smaller.name} should fit: {smaller.describe()}"] if smaller else []
        card = header_of(listing, smallest.files, hub, listen, force=request.force)
        if card is not None and (how := request.from_disk(card)):
            ideas.append(f"dsr pull {_base_name(request)}:{smallest.quant} gets {smallest.size} that run {how}")
        else:
            ideas.append(f"to download {smallest.quant} anyway, use --force")
        raise DoesNotFit(error.message, hint="; ".join(ideas)) from error


def _base_name(request: PullRequest) -> str:
    """The reference without a quantization."""
    entry = request.reference.entry
    return entry.name if entry is not None and request.reference.kind == "name" else request.reference.repo or ""


def _planned(file: RemoteFile, cache: RepoCache, commit: str) -> PlannedFile:
    return PlannedFile(file.path, ByteCount(file.size), file.digest, ByteCount(cache.cached_bytes(file, commit)))
