"""What a loaded model is expected to do, and a run measured against that."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dsr.store import paths, predictions
from dsr.store.predictions import Correction, Figures, PredictedRun, correction
from runtime.base.errors import UsageError
from runtime.base.types import Completion
from runtime.gguf.card import ModelCard
from runtime.gguf.layers import layer_count
from runtime.machine.host import resident_memory
from runtime.machine.machine import Machine
from runtime.placement.latency import LatencyModel, Share
from runtime.placement.memory import part_sizes

LEAST_TOKENS = 32  # in all: fewer measure the clock
_PASS = 512  # tokens of a prompt that are computed together, `BATCH_SIZE` of runtime.llama


@dataclass(frozen=True, slots=True)
class Predictor:
    """Of a model that is open on this machine's CPU alone. `memory` is that of the process, in bytes, without
    what the measuring of the machine left behind in it."""

    card: ModelCard
    machine: Machine
    context: int
    slots: int
    kv_type: str
    memory: int
    left_behind: int = 0

    def seconds(self, lengths: Sequence[int], prompt: int) -> float:
        """To draw samples of so many tokens together behind a prompt of `prompt` tokens.

        A step takes what the samples that are still drawn need: the last one is as slow as if it were alone. Raises
        UsageError where the model does not fit and the disk is not known.
        """
        seconds, done, ends = 0.0, 0, sorted(lengths)
        for number, end in enumerate(ends):
            if end > done:
                seconds += (end - done) * self._step(len(ends) - number, prompt + (done + end) // 2)
                done = end
        return seconds

    def reading(self, tokens: int, before: int) -> float:
        """Seconds to read a prompt of so many tokens behind `before` cached ones, up to the logits of its last one."""
        seconds, done = 0.0, 0
        while done < tokens:
            count = min(_PASS, tokens - done)
            seconds += self._pass(count, 1 if done + count == tokens else 0, before + done + count // 2)
            done += count
        return seconds

    def _step(self, samples: int, attended: int) -> float:
        return self._pass(samples, samples, attended)

    def _pass(self, tokens: int, drawn: int, attended: int) -> float:
        """To compute so many tokens together; the head only for those that are `drawn` from."""
        every = tuple(range(layer_count(self.card)))
        layers = Share(self.machine.devices[0], every, every, False)
        latency = LatencyModel(self.card, self.machine, tokens, attended, self.kv_type)
        seconds = latency.of([layers], part_sizes(self.card, self.context, self.slots, self.kv_type))[0].total
        return seconds + (replace(latency, rows=drawn).head(layers.device).total if drawn else 0.0)

    def compared(
        self, model: str, completions: Sequence[Completion], prompt: int, seconds: float
    ) -> PredictedRun | None:
        """What was drawn in so many seconds, and what was expected; None for too little, and where nothing was."""
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
        """The same where samples came and went: (tokens computed together, of them drawn from, cached before each, how
        many such passes there were)."""
        drawn = sum(outputs * count for _, outputs, _, count in passes)
        if drawn < LEAST_TOKENS or seconds <= 0:
            return None
        try:
            expected = sum(count * self._pass(*each) for *each, count in passes)
        except UsageError:
            return None
        return self._run(model, max(outputs for _, outputs, _, _ in passes), drawn, expected, seconds)

    def _run(self, model: str, samples: int, drawn: int, expected: float, seconds: float) -> PredictedRun:
        said, past = drawn / expected, predictions.load(paths.predictions_file())
        learnt = past_correction(self.machine, past, model, samples)
        return PredictedRun(
            at=time.time(),
            model=model,
            context=self.context,
            samples=samples,
            kv_type=self.kv_type,
            predicted=Figures(said * learnt.factor, self.memory),
            measured=Figures(drawn / seconds, resident_memory() - self.left_behind),
            uncorrected=said,
            threads=self.machine.devices[0].speed.threads,
            probe=self.machine.probe,
        )


def past_correction(machine: Machine, past: Sequence[PredictedRun], model: str = "", samples: int = 1) -> Correction:
    """What `past` runs teach about forecasts for `machine`. Nothing if it has more than its CPU: such runs are not
    kept."""
    if len(machine.devices) > 1:
        return Correction()
    return correction(past, machine.probe, machine.devices[0].speed.threads, model, samples)


def waves(completions: Sequence[Completion]) -> list[list[Completion]]:
    """Which samples were drawn together; none when that cannot be told, as where one waited for another's slot."""
    left, found = sorted((each for each in completions if each.tokens), key=lambda each: each.sample), []
    while left:
        wave, left = left[: left[0].slots], left[left[0].slots :]
        if any(each.slots != len(wave) for each in wave):
            return []
        found.append(wave)
    return found
