"""What a loaded model is expected to do, and a run measured against that."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from dsr.predictions import Figures, Run
from runtime.card import ModelCard
from runtime.errors import UsageError
from runtime.hardware import resident_memory
from runtime.latency import Latency, Share
from runtime.layers import layer_count
from runtime.memory import costs
from runtime.site import Site
from runtime.types import Completion

LEAST_TOKENS = 32  # in all: fewer measure the clock


@dataclass(frozen=True, slots=True)
class Forecast:
    """Of a model that is open on this machine's CPU alone. `memory` is that of the process, in bytes, without
    what the measuring of the machine left behind in it."""

    card: ModelCard
    site: Site
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

    def _step(self, samples: int, attended: int) -> float:
        every = tuple(range(layer_count(self.card)))
        whole = Share(self.site.devices[0], every, every, True)
        latency = Latency(self.card, self.site, samples, attended, self.kv_type)
        return latency.of([whole], costs(self.card, self.context, self.slots, self.kv_type))[0].total

    def compared(self, model: str, completions: Sequence[Completion], prompt: int, seconds: float) -> Run | None:
        """What was drawn in so many seconds, and what was expected; None for too little, and where nothing was."""
        drawn = sum(len(each.tokens) for each in completions)
        groups = waves(completions)
        if drawn < LEAST_TOKENS or seconds <= 0 or not groups:
            return None
        try:
            expected = sum(self.seconds([len(each.tokens) for each in wave], prompt) for wave in groups)
        except UsageError:
            return None
        return Run(
            at=time.time(),
            model=model,
            context=self.context,
            samples=max(map(len, groups)),
            kv_type=self.kv_type,
            predicted=Figures(drawn / expected, self.memory),
            measured=Figures(drawn / seconds, resident_memory() - self.left_behind),
        )


def waves(completions: Sequence[Completion]) -> list[list[Completion]]:
    """Which samples were drawn together; none when that cannot be told, as where one waited for another's slot."""
    left, found = sorted((each for each in completions if each.tokens), key=lambda each: each.sample), []
    while left:
        wave, left = left[: left[0].slots], left[left[0].slots :]
        if any(each.slots != len(wave) for each in wave):
            return []
        found.append(wave)
    return found
