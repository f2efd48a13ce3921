"""`dsr experts prune`: tasks and a number of experts -> a plan with its measured loss -> a smaller file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsr.experts.keep import KeepChoice, choose_keep
from dsr.experts.profile import profile_store
from dsr.loading.options import AUTO
from dsr.loading.tried_files import try_once
from dsr.models.model import Model
from dsr.quantize.plan_summary import CONTEXTS, layers_in_words
from quant.experts.expert_tensors import expert_layers
from quant.experts.profile import router_digest
from quant.experts.prune_plan import PrunePlan, check_keep, keep_count, plan_prune
from quant.experts.pruned_source import PrunedSource
from quant.experts.scores import DEFAULT_SCORE
from quant.sources.source import GgufSource
from quant.write import execute
from quant.write.output import check_place
from runtime.base.errors import UsageError
from runtime.base.events import Event, Progress
from runtime.base.run import Run
from runtime.base.shard_names import shard_of
from runtime.base.types import ByteCount
from runtime.placement.memory import need

if TYPE_CHECKING:
    from quant.plan import QuantPlan
    from runtime.gguf.card import ModelCard

JOB = "pruning"
_MAX_TASKS_IN_NAME = 3
LAYER_HEADER = ("layer", "weight lost", "kept")


@dataclass(frozen=True, slots=True)
class PruneRequest:
    """The options of `dsr experts prune`. `keep` is "auto" (the fewest experts below the limit), "50%" or "8".

    `active` is the number of experts per token; None leaves it unchanged. `force` overwrites `out`.
    """

    tasks: tuple[str, ...]
    keep: str = AUTO
    score: str = DEFAULT_SCORE
    active: int | None = None
    out: Path | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class PruneDecision:
    """The file that `write_pruned` will write, and what it costs.

    `bytes_before` and `bytes_after` are the exact sizes of the files. `memory` has (context, before, after) in bytes.
    """

    model: str
    digest: str
    card: ModelCard
    plan: PrunePlan
    choice: KeepChoice
    file: QuantPlan
    out: Path
    bytes_before: ByteCount
    bytes_after: ByteCount
    memory: tuple[tuple[int, ByteCount, ByteCount], ...]

    def json(self, *, written: bool) -> dict[str, Any]:
        """The body of `dsr.experts.prune/1`."""
        plan = self.plan
        lost = plan.layer_lost_weight
        return {
            "model": self.model,
            "digest": self.digest,
            "file": str(self.out) if written else None,
            "tasks": list(plan.tasks),
            "score": plan.score,
            "experts": plan.experts,
            "kept": plan.keep,
            "active": plan.active,
            "active_before": plan.active_before,
            "groups": plan.groups,
            "grouping": plan.grouping,
            "unprofiled": list(plan.unprofiled),
            "lost": round(plan.lost_weight, 6),
            "layers": [
                {"layer": layer, "kept": list(kept), "lost": round(lost[layer], 6) if layer in lost else None}
                for layer, kept in plan.kept.items()
            ],
            "damage": self.choice.json(),
            "bytes_before": int(self.bytes_before),
            "bytes_after": int(self.bytes_after),
            "memory": [
                {"context": context, "before": int(before), "after": int(after)}
                for context, before, after in self.memory
            ],
        }


def decide(model: Model, request: PruneRequest, run: Run) -> PruneDecision:
    """Chooses the experts and measures the loss. Writes nothing but the measured values.

    Raises Incompatible (a dense model, a profile of another model), NotFound (no such profile), UsageError (numbers,
    score, a place that must not be overwritten), BadModelFile, EngineFailed, DoesNotFit, Aborted.
    """
    card = model.card
    expert_layers(card)
    tasks = tuple(dict.fromkeys(request.tasks))
    # All checks come before the measurement, which takes minutes.
    if request.keep.casefold() != AUTO:
        check_keep(card, keep_count(request.keep, card.experts), request.active)
    if request.out is not None:
        check_place(request.out, card.files, force=request.force)
    digest, store = router_digest(card), profile_store()
    profiles = [store.get(digest, task) for task in tasks]
    plan_prune(card, profiles, card.experts, request.score, request.active)
    try_once(model, run)
    choice = choose_keep(card, digest, profiles, request.keep, request.score, request.active, run=run)
    plan = plan_prune(card, profiles, choice.keep, request.score, request.active)
    with GgufSource(card.path) as source:
        file = PrunedSource(source, plan).file_plan()
    return PruneDecision(
        model=model.absolute_reference,
        digest=digest,
        card=card,
        plan=plan,
        choice=choice,
        file=file,
        out=request.out or default_out(model, plan),
        bytes_before=card.size,
        bytes_after=file.bytes,
        memory=_memory(card, file),
    )


def write_pruned(decision: PruneDecision, run: Run, *, allow_harm: bool = False, force: bool = False) -> Path:
    """Writes the file, or resumes an interrupted run, and returns its name.

    Raises UsageError when the plan removes nothing, or when the divergence is above the limit (unless `allow_harm`),
    and what `quant.write.execute.quantize` raises.
    """
    choice, plan = decision.choice, decision.plan
    if not plan.changes_model:
        raise UsageError(
            f"the file would be the same as the model: it keeps all {plan.experts} experts of each layer",
            hint="--dry-run --keep N shows the loss with fewer",
        )
    if choice.exceeds_limit and not allow_harm:
        fewer = plan.active != plan.active_before
        raise UsageError(
            f"{choice.keep} of {choice.experts} experts{f', {plan.active} per token,' if fewer else ''} are too few "
            f"for {choice.point.task}: the KL divergence is {choice.point.kld.value:.4f} nats per token, above the "
            f"limit of {choice.limit:g}",
            hint=f"{'omit --active' if fewer else '--keep auto finds how many are needed'}, or accept the loss with "
            "--allow-harm",
        )

    def renamed(event: Event) -> None:
        run.listen(replace(event, job=JOB) if isinstance(event, Progress) else event)

    with GgufSource(decision.card.path) as source:
        return execute.quantize(
            PrunedSource(source, plan),
            decision.file,
            decision.out,
            replace(run, listen=renamed),
            force=force,
        )[0]


def default_out(model: Model, plan: PrunePlan) -> Path:
    """MODEL-TASK-8of16.gguf in the working directory."""
    name = "nano" if model.embedded else Path(shard_of(model.path.name)[0]).name.removesuffix(".gguf")
    few = len(plan.tasks) <= _MAX_TASKS_IN_NAME
    tasks = "+".join(plan.tasks) if few else f"{len(plan.tasks)}-tasks"
    safe = "".join(letter if letter.isalnum() or letter in "+-_." else "-" for letter in tasks)
    return Path(f"{name}-{safe}-{plan.keep}of{plan.experts}.gguf")


def _memory(card: ModelCard, file: QuantPlan) -> tuple[tuple[int, ByteCount, ByteCount], ...]:
    after = file.card()
    if after is None:
        return ()
    contexts = dict.fromkeys(min(context, card.context_length) for context in CONTEXTS)
    return tuple((context, need(card, context).total, need(after, context).total) for context in contexts)


def summary(decision: PruneDecision) -> list[str]:
    """Lines that say what the file will keep, and what that costs."""
    plan, point, limit = decision.plan, decision.choice.point, decision.choice.limit
    lost = plan.layer_lost_weight
    lines = [
        f"{', '.join(plan.tasks)}: keep {plan.keep} of {plan.experts} experts in each layer, ranked by {plan.score}"
    ]
    if plan.active != plan.active_before:
        lines.append(f"each token uses {plan.active} experts instead of {plan.active_before}")
    if plan.grouping:
        lines.append(plan.grouping)
    if plan.unprofiled:
        layers = layers_in_words(plan.unprofiled)
        lines.append(f"layer {layers} predicts further tokens and has no profile: it keeps its first experts")
    worst = max(lost, key=lambda layer: lost[layer])
    lines.append(f"lost routing weight: {plan.lost_weight:.1%} on average, {lost[worst]:.1%} in layer {worst}")
    of_task = f" for {point.task}" if len(plan.tasks) > 1 else ""
    lines.append(
        f"KL divergence{of_task}, measured on the profile's text: {point.kld} nats per token (limit {limit:g}), same "
        f"top token {point.same_top.value:.1%}"
    )
    share = max(1 - decision.bytes_after / decision.bytes_before, 0)
    lines.append(f"size: {decision.bytes_after} instead of {decision.bytes_before}, {share:.0%} less")
    if decision.memory:
        rows = [f"{after} instead of {before} at {context} tokens" for context, before, after in decision.memory]
        lines.append(f"memory: {', '.join(rows)}")
    return lines


def layer_table(plan: PrunePlan) -> list[tuple[str, str, str]]:
    """Rows of LAYER_HEADER."""
    lost = plan.layer_lost_weight
    return [
        (str(layer), f"{lost[layer]:.1%}" if layer in lost else "?", layers_in_words(kept))
        for layer, kept in plan.kept.items()
    ]
