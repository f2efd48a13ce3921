"""The file of a size that loses least: losses of types, weights from probes, a plan, and its check on the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from quant.plan import QuantPlan
from quant.recipe.mixtures import kept_type, quantizable
from quant.sources.source import Source
from quant.to_a_size.allocate import Fitted, plan_of_size
from quant.to_a_size.losses import Losses
from quant.to_a_size.probes import Probes
from quant.to_a_size.weights import Probe, fit, groups
from runtime.base.events import Progress
from runtime.base.run import Run

# Multiplications that all first probes take together: 20 for SmolLM2-135M, half a minute on two cores.
_WORK = 4e12
_LEAST_PROBES, _MOST_PROBES = 8, 64
_NEAR = 0.15  # a plan whose divergence is this near to the predicted one is not corrected
_CORRECTIONS = 1  # a second one never found a better plan of nano
_FINE = frozenset({"Q8_0"})  # losses too small for a probe


def most_probes(parameters: int, tokens: int) -> int:
    """How many first probes a model gets at most, unless it has more kinds of tensors."""
    return int(min(max(_WORK / max(parameters * tokens, 1), _LEAST_PROBES), _MOST_PROBES))


def best_of_size(
    source: Source,
    budget: int,
    losses: Losses,
    probes: Probes,
    rounded: Callable[[QuantPlan], QuantPlan],
    run: Run,
) -> Fitted:
    """The plan of at most `budget` bytes, header included, with the least divergence. `rounded` makes a plan correct
    its errors as the losses have it.

    `predicted_kld` is measured: the divergence of a file with this plan. Raises DoesNotFit (no types make it so small,
    or there is no room to measure), EngineFailed, Aborted."""
    parameters = sum(tensor.parameters for tensor in source.tensors)
    found = groups(source.tensors, most_probes(parameters, probes.tokens))
    specs = {tensor.name: tensor for tensor in source.tensors if quantizable(tensor)}
    coarse = {name: _coarse(each, kept_type(specs[name])) for name, each in losses.items()}
    first = rounded(plan_of_size(source, budget, coarse).plan)
    measured: list[Probe] = []
    for number, group in enumerate(found):
        run.listen(Progress("measuring", "tensors", number, len(found), "steps"))
        measured.append(_probe(probes, first, group.tensors, losses))
    run.listen(Progress("measuring", "tensors", len(found), len(found), "steps"))
    best: Fitted | None = None
    for correction in range(_CORRECTIONS + 1):
        fitted = plan_of_size(source, budget, losses, fit(found, measured))
        plan = rounded(fitted.plan)
        real = probes.of_file(plan)
        if best is None or real < (best.predicted_kld or 0.0):
            best = replace(fitted, predicted_kld=real)
        predicted = fitted.predicted_kld or 0.0
        if correction == _CORRECTIONS or abs(real - predicted) <= _NEAR * predicted:
            break
        measured.append(_probe(probes, plan, specs, losses))
    assert best is not None
    return best


def _coarse(losses: Mapping[str, float], kept: str) -> Mapping[str, float]:
    """The types whose loss a probe can tell; all where there are no others."""
    return {kind: loss for kind, loss in losses.items() if kind not in _FINE and kind != kept} or losses


def _probe(probes: Probes, plan: QuantPlan, names: Iterable[str], losses: Losses) -> Probe:
    chosen = frozenset(names)
    types = {tensor.name: tensor.target for tensor in plan.tensors if tensor.name in chosen}
    return Probe({name: losses[name][kind] for name, kind in types.items()}, probes.of_tensors(plan, chosen))
