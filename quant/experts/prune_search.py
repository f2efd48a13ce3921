"""How many experts a task needs: the damage of keeping fewer, measured on what the task's profile was made from.

Damage is the KL divergence of the whole model from the one that may use the kept experts only, in nats per token.
Nothing is written for it: experts are masked while the model reads (runtime.llama.MaskedScorer).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from quant.experts.profiles import Profile
from quant.experts.prune import DEFAULT_SCORE, PrunePlan, least_keep, plan
from quant.measure.chunks import LEAST_CHUNK, ChunkOptions, Text, settle_threads
from quant.measure.divergence import Base, Estimate, Report
from runtime.base.errors import UsageError
from runtime.base.events import Listener, Progress, ignore
from runtime.base.keyed_cache import KeyedCache, finite
from runtime.base.run import Run, Stop
from runtime.gguf.card import ModelCard

if TYPE_CHECKING:
    from runtime.llama import MaskedScorer

# Nats per token that may be lost where nobody says how many experts to keep. It is what 5 bits per weight cost (Q5_K_M
# of an 8B model: 0.011, Q4_K_M 0.031, Q3_K_M 0.10: llama.cpp tools/perplexity/README.md), which passes for harmless.
# Not the 0.03 of 4 bits, because the experts were chosen on the very text that is read here: questions put in other
# words lose more. Of the embedded model's profile questions no task lost more than one of 40 answers below 0.03; with
# 0.01 363 of its 400 development problems were solved, 365 with all experts, of the worst task 96 % as many, with 39 %
# of the experts (docs/log.md).
KEEP_BOUND = 0.01

_WINDOW = 512  # tokens that are read at once, as all measuring here does
# Windows that are read for all tasks together, and of each at least: some 4000 scored tokens, for a mean that is true
# to a tenth or so. What the whole model says of them stands on the disk meanwhile.
_MOST_CHUNKS, _LEAST_CHUNKS = 16, 4
_NAME = 60  # characters of the tasks' names in that of a file, which may have 255 bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """What `keep` experts in each layer do to the one of the tasks that they do most to: the divergence in nats per
    token, and the share of tokens where the likeliest one stays the same."""

    keep: int
    task: str
    kld: Estimate
    same_top: Estimate


def curve(
    card: ModelCard,
    profiles: Sequence[Profile],
    keeps: Sequence[int],
    score: str = DEFAULT_SCORE,
    active: int | None = None,
    *,
    cache: Path,
    threads: int | None = None,
    stop: Stop | None = None,
    listen: Listener = ignore,
) -> tuple[Damage, ...]:
    """The damage of keeping so many experts, in the order of `keeps`.

    What the folder `cache` holds is not measured again. Raises what `quant.experts.prune.plan` and `Meter.damage` do.
    """
    plans = [plan(card, profiles, keep, score, active) for keep in keeps]
    with Subject(card, threads=threads, stop=stop, listen=listen) as subject, Meter(subject, profiles, cache) as meter:
        return tuple(map(meter.damage, plans))


def auto(
    card: ModelCard,
    profiles: Sequence[Profile],
    score: str = DEFAULT_SCORE,
    active: int | None = None,
    bound: float = KEEP_BOUND,
    *,
    cache: Path,
    threads: int | None = None,
    stop: Stop | None = None,
    listen: Listener = ignore,
) -> tuple[Damage, ...]:
    """What was measured, ascending, to find the fewest experts whose damage stays under `bound`: `smallest` of it.
    Raises what `curve` does."""
    with Subject(card, threads=threads, stop=stop, listen=listen) as subject, Meter(subject, profiles, cache) as meter:
        return halved(meter, card, profiles, score, active, bound)


def halved(
    meter: Meter,
    card: ModelCard,
    profiles: Sequence[Profile],
    score: str = DEFAULT_SCORE,
    active: int | None = None,
    bound: float = KEEP_BOUND,
    listen: Listener = ignore,
) -> tuple[Damage, ...]:
    """What `auto` finds, with a meter for these profiles that is there already.

    By halving, so the damage is taken to shrink with every expert that is kept. Groups of experts stay groups. The
    last is always that of keeping all, which is none.
    """
    plans = [plan(card, profiles, keep, score, active) for keep in range(least_keep(card, active), card.experts + 1)]
    plans = [each for each in plans if each.groups == plans[-1].groups]
    found: dict[int, Damage] = {}
    low, high = 0, len(plans) - 1
    most = high.bit_length()
    while low < high:
        listen(Progress("measuring", "the fewest experts", len(found), most, "steps"))
        middle = (low + high) // 2
        damage = found[middle] = meter.damage(plans[middle])
        low, high = (low, middle) if damage.kld.value <= bound else (middle + 1, high)
    listen(Progress("measuring", "the fewest experts", most, most, "steps"))
    found.setdefault(len(plans) - 1, meter.damage(plans[-1]))
    return tuple(found[number] for number in sorted(found))


def smallest(curve: Sequence[Damage], bound: float = KEEP_BOUND) -> Damage | None:
    """The fewest experts that stay under the bound, as all larger numbers in the curve do."""
    chosen = None
    for damage in sorted(curve, key=lambda each: -each.keep):
        if damage.kld.value > bound:
            break
        chosen = damage
    return chosen


class Subject:
    """A model that meters measure, one after the other. A context manager: the file is opened when something is
    measured for the first time, and again only where it must be read with other settings in its metadata."""

    def __init__(
        self, card: ModelCard, *, threads: int | None = None, stop: Stop | None = None, listen: Listener = ignore
    ) -> None:
        self.card, self.listen = card, listen
        self._threads, self._stop = threads, stop
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

    def read_with(self, settings: dict[str, int]) -> MaskedScorer:
        """The model, opened with these settings in its metadata; it stays open until others are asked for."""
        from runtime.llama import MaskedScorer

        if self._model is None or settings != self._settings:
            self._opened.close()
            self._model = None
            opened = MaskedScorer(
                self.card.path, window=self.window, metadata=settings, run=Run(self._stop or Stop(), self.listen)
            )
            self._model, self._settings = self._opened.enter_context(opened), settings
            self._threads = settle_threads(self._model, self._threads)
        return self._model


def _figures(value: Any) -> tuple[float, ...]:
    """Returns a plan's divergence, its standard error, the share of same top tokens, its standard error."""
    figures = tuple(map(finite, value))
    if len(figures) != 4:
        raise ValueError("not four figures")
    return figures


class Meter:
    """Measures plans for one model on the texts of some profiles. A context manager, which holds what the whole model
    said to them."""

    def __init__(self, subject: Subject, profiles: Sequence[Profile], cache: Path) -> None:
        """`cache` is the folder in which figures are kept; it may be missing."""
        self._subject, self._card, self._profiles = subject, subject.card, tuple(profiles)
        self._most = max(_MOST_CHUNKS // len(self._profiles), _LEAST_CHUNKS)
        key = hashlib.sha256(f"damage 2\0{self._card.header_digest}\0{subject.window}\0{self._most}".encode())
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

    def damage(self, plan: PrunePlan) -> Damage:
        """The damage to the task that suffers most.

        Raises UsageError (too little text), Incompatible (routers that cannot be masked), EngineFailed, DoesNotFit,
        Aborted.
        """
        if plan.keep == plan.experts and plan.active == plan.active_before:
            return Damage(plan.keep, self._profiles[0].task, Estimate(0.0, 0.0), Estimate(1.0, 0.0))
        return max((self._of(profile.task, plan) for profile in self._profiles), key=lambda each: each.kld.value)

    def _of(self, task: str, plan: PrunePlan) -> Damage:
        key = f"{plan.keep} of {plan.experts}, {plan.active} active, {_digest(plan)}, {task}"
        figures = self._known.get(key)
        if figures is None:
            report = self._measured(task, plan)
            figures = (report.kld.value, report.kld.error, report.same_top.value, report.same_top.error)
            self._known.put({key: figures})
        kld, kld_error, same, same_error = figures
        return Damage(plan.keep, task, Estimate(kld, kld_error), Estimate(same, same_error))

    def _measured(self, task: str, plan: PrunePlan) -> Report:
        if not self._bases:
            self._record()
        model = self._subject.read_with(_settings(self._card, plan))
        layers = self._profiles[0].routing  # those that text passes through
        model.keep({layer: plan.kept[layer] for layer in layers}, plan.experts)
        name = f"{task} with {plan.keep} of {plan.experts} experts"
        return dict(self._bases)[task].compare(model, name=name, listen=self._subject.listen)

    def _record(self) -> None:
        """What the whole model says to each text."""
        model = self._subject.read_with({})
        model.keep(None)
        bases = []
        for profile in self._profiles:
            text = Text(profile.task, profile.text)
            context = min(self._subject.window, len(model.tokenize(text.content, add_special=True)))
            if context < LEAST_CHUNK:
                raise UsageError(
                    f"the text of the profile of {profile.task} is too short to measure on: {context} tokens",
                    hint=f"profile it anew with more text: dsr experts profile MODEL --task {profile.task}",
                )
            base = self._stack.enter_context(Base())
            name = f"{profile.task} with all experts"
            base.record(model, [text], ChunkOptions(context, self._most), name=name, listen=self._subject.listen)
            bases.append((profile.task, base))
        self._bases = bases


def _settings(card: ModelCard, plan: PrunePlan) -> dict[str, int]:
    """What a pruned file says otherwise, beside the number of experts."""
    found = {}
    if plan.active != plan.active_before:
        found[f"{card.architecture}.expert_used_count"] = plan.active
    if plan.grouping and plan.groups == 1:
        found[f"{card.architecture}.expert_group_count"] = 1
    return found


def _digest(plan: PrunePlan) -> str:
    kept = sorted((layer, tuple(numbers)) for layer, numbers in plan.kept.items())
    return hashlib.sha256(f"{kept} {plan.groups}".encode()).hexdigest()[:12]
