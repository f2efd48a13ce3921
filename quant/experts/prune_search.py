"""How many experts a task needs: the smallest number with a KL divergence below KLD_LIMIT.

The KL divergence is measured between the whole model and the model with fewer experts, on the text that the task's
profile was made from. dsr writes no file for it: it masks experts while the model reads (runtime.llama.MaskedScorer).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from quant.experts.profile import Profile
from quant.experts.prune_plan import PrunePlan, min_keep, plan_prune
from quant.experts.scores import DEFAULT_SCORE
from quant.measure.chunks import LEAST_CHUNK, ChunkOptions, Text, settle_threads
from quant.measure.divergence import Base, Estimate, Report
from runtime.base.errors import UsageError
from runtime.base.events import Listener, Progress, ignore
from runtime.base.keyed_cache import KeyedCache, finite
from runtime.base.run import Run
from runtime.gguf.card import ModelCard

if TYPE_CHECKING:
    from runtime.llama import MaskedScorer

# The largest KL divergence, in nats per token, of `--keep auto`. It is the cost of 5 bits per weight (Q5_K_M of an 8B
# model: 0.011, Q4_K_M 0.031, Q3_K_M 0.10: llama.cpp tools/perplexity/README.md), which counts as harmless. The cost of
# 4 bits would be too much, because the experts were chosen on the same text that is measured: other questions lose
# more. On the embedded model's profile questions, no task lost more than one of 40 answers below 0.03. With 0.01, it
# solved 363 of the 400 development problems with 39 % of the experts, and 365 with all of them; the worst task solved
# 96 % as many (docs/log.md).
KLD_LIMIT = 0.01
_WINDOW = 512  # tokens that are read at once, as in all measurements here
# Windows for all tasks together, and at least for each task: about 4000 scored tokens, for a mean that is right within
# a tenth. The logits of the whole model for these tokens are on the disk during the measurement.
_MAX_CHUNKS, _MIN_CHUNKS = 16, 4
_NAME = 60  # characters of the task names in a file name, which may have 255 bytes


def kld_curve(
    card: ModelCard,
    profiles: Sequence[Profile],
    keeps: Sequence[int],
    score: str = DEFAULT_SCORE,
    active: int | None = None,
    *,
    cache: Path,
    run: Run,
) -> tuple[KldPoint, ...]:
    """The divergence with each number of experts in `keeps`, in their order.

    Results in the folder `cache` are not measured again. Raises what `plan_prune` and `KldMeter.measure` raise.
    """
    plans = [plan_prune(card, profiles, keep, score, active) for keep in keeps]
    with MaskedModel(card, run) as model, KldMeter(model, profiles, cache) as meter:
        return tuple(map(meter.measure, plans))


def search_keep(
    card: ModelCard,
    profiles: Sequence[Profile],
    score: str = DEFAULT_SCORE,
    active: int | None = None,
    *,
    cache: Path,
    run: Run,
) -> tuple[KldPoint, ...]:
    """The points that a search for the smallest number of experts measured, ascending; `smallest_keep` picks from them.

    Raises what `kld_curve` raises.
    """
    with MaskedModel(card, run) as model, KldMeter(model, profiles, cache) as meter:
        return bisect_keep(meter, card, profiles, score, active)


def bisect_keep(
    meter: KldMeter,
    card: ModelCard,
    profiles: Sequence[Profile],
    score: str = DEFAULT_SCORE,
    active: int | None = None,
    listen: Listener = ignore,
) -> tuple[KldPoint, ...]:
    """`search_keep` with an open meter for these profiles.

    The search is a bisection: it assumes that the divergence shrinks with every expert. Groups of experts stay groups.
    The last point is always the one with all experts.
    """
    plans = [
        plan_prune(card, profiles, keep, score, active) for keep in range(min_keep(card, active), card.experts + 1)
    ]
    plans = [each for each in plans if each.groups == plans[-1].groups]
    found: dict[int, KldPoint] = {}
    low, high = 0, len(plans) - 1
    most = high.bit_length()
    while low < high:
        listen(Progress("measuring", "the fewest experts", len(found), most, "steps"))
        middle = (low + high) // 2
        point = found[middle] = meter.measure(plans[middle])
        low, high = (low, middle) if point.kld.value <= KLD_LIMIT else (middle + 1, high)
    listen(Progress("measuring", "the fewest experts", most, most, "steps"))
    found.setdefault(len(plans) - 1, meter.measure(plans[-1]))
    return tuple(found[number] for number in sorted(found))


def smallest_keep(points: Sequence[KldPoint]) -> KldPoint | None:
    """The smallest number of experts that is below KLD_LIMIT with all larger numbers; None without any."""
    chosen = None
    for point in sorted(points, key=lambda each: -each.keep):
        if point.kld.value > KLD_LIMIT:
            break
        chosen = point
    return chosen


@dataclass(frozen=True, slots=True)
class KldPoint:
    """The result for `keep` experts per layer, on the task with the largest divergence.

    `kld` in nats per token; `same_top` is the share of tokens with the same most likely token.
    """

    keep: int
    task: str
    kld: Estimate
    same_top: Estimate


class MaskedModel:
    """The model for several meters. A context manager.

    The file is opened at the first measurement, and again when a plan needs other settings in its metadata.
    """

    def __init__(self, card: ModelCard, run: Run) -> None:
        self.card, self.run = card, run
        self._threads = run.threads
        self._opened = ExitStack()
        self._model: MaskedScorer | None = None
        self._settings: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @property
    def window(self) -> int:
        """Tokens that are read at once."""
        return min(_WINDOW, self.card.context_length)

    def open_with(self, settings: dict[str, int]) -> MaskedScorer:
        """The model, opened with these settings in its metadata. It stays open until a call with other settings."""
        from runtime.llama import MaskedScorer

        if self._model is None or settings != self._settings:
            self._opened.close()
            self._model = None
            opened = MaskedScorer(self.card.path, window=self.window, metadata=settings, run=self.run)
            self._model, self._settings = self._opened.enter_context(opened), settings
            self._threads = settle_threads(self._model, self._threads)
        return self._model


def _figures(value: Any) -> tuple[float, ...]:
    """The divergence, its standard error, the share of same top tokens, its standard error."""
    figures = tuple(map(finite, value))
    if len(figures) != 4:
        raise ValueError("not four figures")
    return figures


class KldMeter:
    """Measures plans on the texts of some profiles. A context manager, which keeps the logits of the whole model."""

    def __init__(self, model: MaskedModel, profiles: Sequence[Profile], cache: Path) -> None:
        """`cache` is the folder of earlier results; it may not exist yet."""
        self._model, self._card, self._profiles = model, model.card, tuple(profiles)
        self._chunks = max(_MAX_CHUNKS // len(self._profiles), _MIN_CHUNKS)
        key = hashlib.sha256(f"damage 2\0{self._card.header_digest}\0{model.window}\0{self._chunks}".encode())
        for profile in profiles:
            text = profile.text.encode("utf-8", "surrogatepass")
            key.update(f"\0{profile.digest}\0{hashlib.sha256(text).hexdigest()}".encode())
        names = "+".join(profile.task for profile in profiles)
        name = "".join(letter if letter.isalnum() else "-" for letter in names)[:_NAME]
        self._known = KeyedCache(cache / f"{name}-{key.hexdigest()[:16]}.json", _figures)
        self._stack = ExitStack()
        self._bases: list[tuple[str, Base]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure(self, plan: PrunePlan) -> KldPoint:
        """The divergence on the task where it is largest.

        Raises UsageError (too little text), Incompatible (routers that cannot be masked), EngineFailed, DoesNotFit,
        Aborted.
        """
        if not plan.changes_model:
            return KldPoint(plan.keep, self._profiles[0].task, Estimate(0.0, 0.0), Estimate(1.0, 0.0))
        return max((self._of(profile.task, plan) for profile in self._profiles), key=lambda each: each.kld.value)

    def _of(self, task: str, plan: PrunePlan) -> KldPoint:
        key = f"{plan.keep} of {plan.experts}, {plan.active} active, {_digest(plan)}, {task}"
        figures = self._known.get(key)
        if figures is None:
            report = self._compare(task, plan)
            figures = (report.kld.value, report.kld.error, report.same_top.value, report.same_top.error)
            self._known.put({key: figures})
        kld, kld_error, same, same_error = figures
        return KldPoint(plan.keep, task, Estimate(kld, kld_error), Estimate(same, same_error))

    def _compare(self, task: str, plan: PrunePlan) -> Report:
        if not self._bases:
            self._record_bases()
        model = self._model.open_with(_settings(self._card, plan))
        layers = self._profiles[0].routing  # the layers that every token passes
        model.keep({layer: plan.kept[layer] for layer in layers}, plan.experts)
        name = f"{task} with {plan.keep} of {plan.experts} experts"
        return dict(self._bases)[task].compare(model, name=name, listen=self._model.run.listen)

    def _record_bases(self) -> None:
        """Records the logits of the whole model for each text."""
        model = self._model.open_with({})
        model.keep(None)
        bases = []
        for profile in self._profiles:
            text = Text(profile.task, profile.text)
            context = min(self._model.window, len(model.tokenize(text.content, add_bos=True)))
            if context < LEAST_CHUNK:
                raise UsageError(
                    f"the text of the profile of {profile.task} is too short for a measurement: {context} tokens",
                    hint=f"make the profile again with more text: dsr experts profile MODEL --task {profile.task}",
                )
            base = self._stack.enter_context(Base())
            name = f"{profile.task} with all experts"
            base.record(model, [text], ChunkOptions(context, self._chunks), name=name, listen=self._model.run.listen)
            bases.append((profile.task, base))
        self._bases = bases


def _settings(card: ModelCard, plan: PrunePlan) -> dict[str, int]:
    """The metadata of the pruned file that differ from the model's, without the number of experts."""
    found = {}
    if plan.active != plan.active_before:
        found[f"{card.architecture}.expert_used_count"] = plan.active
    if plan.grouping and plan.groups == 1:
        found[f"{card.architecture}.expert_group_count"] = 1
    return found


def _digest(plan: PrunePlan) -> str:
    kept = sorted((layer, tuple(numbers)) for layer, numbers in plan.kept.items())
    return hashlib.sha256(f"{kept} {plan.groups}".encode()).hexdigest()[:12]
