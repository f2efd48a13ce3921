"""`dsr experts prune`: tasks and a number of experts -> a plan, the damage it will do -> a smaller file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsr.experts.damage import AUTO, Kept, choose
from dsr.experts.profile import store_of_profiles
from dsr.loading.trial import try_once
from dsr.models.gguf_names import shard_of
from dsr.models.model import Model
from dsr.quantize.plan_summary import CONTEXTS, card_of, layers_in_words
from quant.experts.profiles import router_digest
from quant.experts.prune import DEFAULT_SCORE, PrunePlan, check_numbers, expert_layers, kept_number, plan
from quant.experts.pruned_source import PrunedSource
from quant.sources.gguf_source import GgufSource
from quant.write import execute
from quant.write.output import check_place
from runtime.base.errors import UsageError
from runtime.base.events import Event, Listener, Progress, ignore
from runtime.base.run import Run, Stop
from runtime.base.types import ByteCount
from runtime.placement.memory import need

if TYPE_CHECKING:
    from quant.plan import QuantPlan
    from runtime.gguf.card import ModelCard

JOB = "pruning"
LAYER_HEADER = ("layer", "mass lost", "kept")
_TASKS_NAMED = 3  # in a file's name


@dataclass(frozen=True, slots=True)
class PruneRequest:
    """What the options say. `keep` is "auto" (the fewest that do no harm), "50%" or "8"; `active` how many experts a
    token shall use, None as it is. `force` overwrites `out`."""

    tasks: tuple[str, ...]
    keep: str = AUTO
    score: str = DEFAULT_SCORE
    active: int | None = None
    out: Path | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Decided:
    """What the file will be, and what that will do. `bytes_before` and `bytes_after` are of whole files, exact;
    `memory` has (context, before, after) in bytes."""

    model: str
    digest: str
    card: ModelCard
    plan: PrunePlan
    kept: Kept
    file: QuantPlan
    out: Path
    bytes_before: ByteCount
    bytes_after: ByteCount
    memory: tuple[tuple[int, ByteCount, ByteCount], ...]

    def json(self, *, written: bool) -> dict[str, Any]:
        """The body of `dsr.experts.prune/1`."""
        made = self.plan
        return {
            "model": self.model,
            "digest": self.digest,
            "file": str(self.out) if written else None,
            "tasks": list(made.tasks),
            "score": made.score,
            "experts": made.experts,
            "kept": made.keep,
            "active": made.active,
            "active_before": made.active_before,
            "groups": made.groups,
            "grouping": made.grouping,
            "unprofiled": list(made.unprofiled),
            "lost": round(made.mean_lost, 6),
            "layers": [
                {"layer": layer, "kept": list(kept), "lost": round(made.lost[layer], 6) if layer in made.lost else None}
                for layer, kept in made.kept.items()
            ],
            "damage": self.kept.json(),
            "bytes_before": int(self.bytes_before),
            "bytes_after": int(self.bytes_after),
            "memory": [
                {"context": context, "before": int(before), "after": int(after)}
                for context, before, after in self.memory
            ],
        }


def decide(local: Model, request: PruneRequest, *, stop: Stop | None = None, listen: Listener = ignore) -> Decided:
    """Choose the experts and measure the damage. Nothing is written but what was measured.

    Raises Incompatible (a dense model, a profile of another model), NotFound (no such profile), UsageError (numbers,
    score, a place that must not be written to), BadModelFile, EngineFailed, DoesNotFit, Aborted.
    """
    card = local.card
    expert_layers(card)
    tasks = tuple(dict.fromkeys(request.tasks))
    if request.keep.casefold() != AUTO:
        check_numbers(card, kept_number(request.keep, card.experts), request.active)
    if request.out is not None:  # before anything is measured, which takes minutes
        check_place(request.out, card.files, force=request.force)
    digest, store = router_digest(card), store_of_profiles()
    profiles = [store.get(digest, task) for task in tasks]
    plan(card, profiles, card.experts, request.score, request.active)  # raises what is wrong before it takes time
    try_once(local)
    kept = choose(card, digest, profiles, request.keep, request.score, request.active, stop=stop, listen=listen)
    made = plan(card, profiles, kept.keep, request.score, request.active)
    with GgufSource(card.path) as source:
        file = PrunedSource(source, made).file_plan()
    return Decided(
        model=local.absolute_reference,
        digest=digest,
        card=card,
        plan=made,
        kept=kept,
        file=file,
        out=request.out or default_out(local, made),
        bytes_before=card.size,
        bytes_after=file.bytes,
        memory=_memory(card, file),
    )


def carry_out(
    decided: Decided,
    *,
    allow_harm: bool = False,
    force: bool = False,
    stop: Stop | None = None,
    listen: Listener = ignore,
) -> Path:
    """Write the file, or go on where an earlier call was stopped, and return its name.

    Raises UsageError where nothing would be removed, where the measurement says that it will hurt (unless
    `allow_harm`), and what `quant.write.execute.quantize` does.
    """
    kept, made = decided.kept, decided.plan
    if not made.removes_anything:
        raise UsageError(
            f"all {made.experts} experts of each layer would stay: the file would be the model again",
            hint="--dry-run --keep N shows what fewer do",
        )
    if kept.hurts and not allow_harm:
        fewer = made.active != made.active_before
        raise UsageError(
            f"{kept.keep} of {kept.experts} experts{f', {made.active} at a time,' if fewer else ''} are too few for "
            f"{kept.damage.task}: the damage is {kept.damage.kld.value:.4f} nats per token, above the harmless "
            f"{kept.bound:g}",
            hint=f"{'leave out --active' if fewer else '--keep auto finds how many are needed'}, or accept the damage "
            "with --allow-harm",
        )

    def renamed(event: Event) -> None:
        listen(replace(event, job=JOB) if isinstance(event, Progress) else event)

    with GgufSource(decided.card.path) as source:
        return execute.quantize(
            PrunedSource(source, made),
            decided.file,
            decided.out,
            Run(stop or Stop(), renamed),
            force=force,
        )[0]


def default_out(local: Model, made: PrunePlan) -> Path:
    """MODEL-TASK-8of16.gguf in the working directory."""
    name = "nano" if local.embedded else Path(shard_of(local.path.name)[0]).name.removesuffix(".gguf")
    few = len(made.tasks) <= _TASKS_NAMED
    tasks = "+".join(made.tasks) if few else f"{len(made.tasks)}-tasks"
    safe = "".join(letter if letter.isalnum() or letter in "+-_." else "-" for letter in tasks)
    return Path(f"{name}-{safe}-{made.keep}of{made.experts}.gguf")


def _memory(card: ModelCard, file: QuantPlan) -> tuple[tuple[int, ByteCount, ByteCount], ...]:
    after = card_of(file)
    if after is None:
        return ()
    contexts = dict.fromkeys(min(context, card.context_length) for context in CONTEXTS)
    return tuple((context, need(card, context).total, need(after, context).total) for context in contexts)


def summary(decided: Decided) -> list[str]:
    """What will be done and what it costs, in lines for people."""
    made, kept = decided.plan, decided.kept
    lines = [f"{', '.join(made.tasks)}: {made.keep} of {made.experts} experts of each layer are kept, by {made.score}"]
    if made.active != made.active_before:
        lines.append(f"each token uses {made.active} instead of {made.active_before}")
    if made.grouping:
        lines.append(made.grouping)
    if made.unprofiled:
        layers = layers_in_words(made.unprofiled)
        lines.append(f"no profile tells of layer {layers}, which predicts ahead: its first experts are kept")
    worst = max(made.lost, key=lambda layer: made.lost[layer])
    lines.append(f"routing mass lost: {made.mean_lost:.1%} on average, {made.lost[worst]:.1%} in layer {worst}")
    of_task = f" for {kept.damage.task}" if len(made.tasks) > 1 else ""
    lines.append(
        f"damage{of_task}, measured on the profile's text: KLD {kept.damage.kld} nats per token (harmless up to "
        f"{kept.bound:g}), same top token {kept.damage.same_top.value:.1%}"
    )
    share = max(1 - decided.bytes_after / decided.bytes_before, 0)
    lines.append(f"size: {decided.bytes_after} instead of {decided.bytes_before}, {share:.0%} less")
    if decided.memory:
        rows = [f"{after} instead of {before} at {context} tokens" for context, before, after in decided.memory]
        lines.append(f"memory to run it: {', '.join(rows)}")
    return lines


def layer_table(made: PrunePlan) -> list[tuple[str, str, str]]:
    """Rows of LAYER_HEADER."""
    return [
        (str(layer), f"{made.lost[layer]:.1%}" if layer in made.lost else "?", layers_in_words(kept))
        for layer, kept in made.kept.items()
    ]
