"""Predicts how fast the quantizations of a model run, from the header of one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dsr.hub.pull import QuantSpeed
from dsr.loading.options import LoadOptions
from dsr.models.gguf_names import QuantChoice
from dsr.plan.decide import plan_placement
from dsr.plan.planned_model import PlannedModel
from runtime.base.errors import DsrError
from runtime.base.types import ByteCount
from runtime.gguf.card import ModelCard
from runtime.machine.machine import Machine

# The one type whose speed is measured for this. What a token costs is nearly its bytes, whatever their type.
_TYPE = "Q4_K"
_PLAIN = ("F32", "F16", "BF16")


def speed_on(machine: Callable[[], Machine | None]) -> QuantSpeed:
    """The prediction for a machine, which is asked for when the first speed is needed; 0 where nothing is known."""

    def speed(card: ModelCard, choice: QuantChoice, context: int) -> float:
        here = machine()
        if here is None:
            return 0.0
        options = LoadOptions(context=min(context, card.context_length or context))
        model = PlannedModel("", card.name, choice.quant, resized(card, choice.size))
        try:
            return plan_placement(model, here, options).tokens_per_second
        except DsrError:
            return 0.0

    return speed


def resized(card: ModelCard, size: int) -> ModelCard:
    """The card of another quantization of the same model, whose weights have `size` bytes."""
    kept = sum(tensor.size for tensor in card.tensors if tensor.type in _PLAIN)
    ratio = max(size - kept, 0) / max(card.weights_size - kept, 1)
    tensors = tuple(
        tensor if tensor.type in _PLAIN else replace(tensor, type=_TYPE, size=ByteCount(round(tensor.size * ratio)))
        for tensor in card.tensors
    )
    return replace(card, tensors=tensors, size=ByteCount(size))
