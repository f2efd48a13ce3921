"""What `dsr experts prune` will write and what it costs, in words."""

from __future__ import annotations

from dsr.experts.prune import PruneDecision
from dsr.quantize.plan_summary import layers_in_words
from quant.experts.prune_plan import PrunePlan

LAYER_HEADER = ("layer", "weight lost", "kept")


def summary(decision: PruneDecision) -> list[str]:
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
        lines.append(f"no profile has layer {layers}, which predicts further tokens: its first experts are kept")
    worst = max(lost, key=lambda layer: lost[layer])
    lines.append(f"lost gate weight: {plan.lost_weight:.1%} on average, {lost[worst]:.1%} in layer {worst}")
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
