"""The predicted speed and memory of a loaded model, and real runs compared with the prediction."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dsr.loading.from_disk import DiskPlan
from dsr.store import paths, predictions
from dsr.store.predictions import Correction, Figures, PredictedRun, correction
from runtime.base.errors import UsageError
from runtime.base.types import Completion
from runtime.engine.backend import ROWS
from runtime.gguf.card import ModelCard, layer_count
from runtime.machine.host import resident_memory
from runtime.machine.machine import Machine
from runtime.placement.latency import LatencyModel, Share
from runtime.placement.memory import part_sizes

LEAST_TOKENS = 32  # in all: fewer measure the clock


@dataclass(frozen=True, slots=True)
class Predictor:
    """Predicts for a model that is loaded on this machine's CPU alone.

    `memory`: bytes that the process should take; `left_behind`: bytes that measuring the machine added to the process.
    `disk`: how a model that is larger than memory runs.
    """

    card: ModelCard
    machine: Machine
    context: int
    slots: int
    kv_type: str
    memory: int
    left_behind: int = 0
    kv_full: bool = False
    disk: DiskPlan | None = None

    def seconds(self, lengths: Sequence[int], prompt: int) -> float:
        """Seconds to draw samples of these `lengths` together after a prompt of `prompt` tokens.

        A step takes the time of the samples that are not finished. Raises UsageError where the model does not fit and
        the speed of the disk is not known.
        """
        seconds, done, ends = 0.0, 0, sorted(lengths)
        for number, end in enumerate(ends):
            if end > done:
                seconds += (end - done) * self._step(len(ends) - number, prompt + (done + end) // 2)
                done = end
        return seconds

    def reading(self, tokens: int, before: int) -> float:
        """Seconds to read `tokens` of a prompt after `before` cached ones, up to the logits of the last one."""
        seconds, done = 0.0, 0
        together = ROWS if self.disk is None else self.disk.chunk
        while done < tokens:
            count = min(together, tokens - done)
            seconds += self._pass(count, 1 if done + count == tokens else 0, before + done + count // 2)
            done += count
        return seconds

    def _step(self, samples: int, attended: int) -> float:
        return self._pass(samples, samples, attended)

    def _pass(self, tokens: int, drawn: int, attended: int) -> float:
        """Seconds to compute `tokens` together; the head only for the `drawn` ones."""
        machine = self.machine if self.disk is None else self.machine.with_any_memory()
        every = tuple(range(layer_count(self.card)))
        layers = Share(machine.devices[0], every, every, False)
        latency = LatencyModel(self.card, machine, tokens, attended, self.kv_type, self.kv_full)
        sizes = part_sizes(self.card, self.context, self.slots, self.kv_type, kv_full=self.kv_full)
        seconds = latency.of([layers], sizes)[0].total
        seconds += replace(latency, rows=drawn).head(layers.device).total if drawn else 0.0
        return seconds if self.disk is None else self.disk.forecast(machine.disk_read, seconds, tokens).seconds

    def compared(
        self, model: str, completions: Sequence[Completion], prompt: int, seconds: float
    ) -> PredictedRun | None:
        """The run of `seconds` compared with its prediction; None for too few tokens or where nothing was predicted."""
        drawn = sum(len(each.tokens) for each in completions)
        groups = waves(completions)
        if drawn < LEAST_TOKENS or seconds <= 0 or not groups:
            return None
        try:
            expected = sum(self.seconds([len(each.tokens) for each in wave], prompt) for wave in groups)
        except UsageError:
            return None
        return self._run(model, max(map(len, groups)), drawn, expected, seconds)

    def compared_passes(
        self, model: str, passes: Sequence[tuple[int, int, int, int]], seconds: float
    ) -> PredictedRun | None:
        """`compared` for samples that start and end at different times.

        Each pass is (tokens computed together, tokens drawn from, tokens cached before each, number of such passes).
        """
        drawn = sum(outputs * count for _, outputs, _, count in passes)
        if drawn < LEAST_TOKENS or seconds <= 0:
            return None
        try:
            expected = sum(count * self._pass(*each) for *each, count in passes)
        except UsageError:
            return None
        return self._run(model, max(outputs for _, outputs, _, _ in passes), drawn, expected, seconds)

    def _run(self, model: str, samples: int, drawn: int, expected: float, seconds: float) -> PredictedRun:
        uncorrected, past = drawn / expected, predictions.load(paths.predictions_file())
        learnt = self._learnt(past, model, samples)
        return PredictedRun(
            at=time.time(),
            model=model,
            context=self.context,
            samples=samples,
            kv_type=self.kv_type,
            predicted=Figures(uncorrected * learnt.factor, self.memory),
            measured=Figures(drawn / seconds, resident_memory() - self.left_behind),
            uncorrected=uncorrected,
            threads=self.machine.devices[0].speed.threads,
            probe=self.machine.probe if self.disk is None else "",
            weights=self.card.weights_size,
        )

    def _learnt(self, past: Sequence[PredictedRun], model: str, samples: int) -> Correction:
        """Runs from the disk teach nothing about runs in memory, nor the reverse."""
        if self.disk is not None:
            return Correction()
        return past_correction(self.machine, past, model, samples, self.card.weights_size)


def past_correction(
    machine: Machine, past: Sequence[PredictedRun], model: str = "", samples: int = 1, weights: int = 0
) -> Correction:
    """The correction of predictions for `machine` by `past` runs; none for a machine with more than a CPU.

    With `weights`, in bytes, only runs of models of about this size count.
    """
    if len(machine.devices) > 1:
        return Correction()
    return correction(past, machine.probe, machine.devices[0].speed.threads, model, samples, weights)


def waves(completions: Sequence[Completion]) -> list[list[Completion]]:
    """The samples that were drawn together, as groups; none where a sample waited for the slot of another."""
    left, found = sorted((each for each in completions if each.tokens), key=lambda each: each.sample), []
    while left:
        wave, left = left[: left[0].slots], left[left[0].slots :]
        if any(each.slots != len(wave) for each in wave):
            return []
        found.append(wave)
    return found
