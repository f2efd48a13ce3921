"""How a user wants to be answered."""

from __future__ import annotations

from dataclasses import dataclass, field

from dsr.models.model import SamplingRequest
from dsr.store.settings import Thinking
from runtime.strategies.strategy import Strategy


@dataclass(slots=True)
class ChatOptions:
    """The options of a chat that stay when the model changes; None leaves the choice to the model.

    `shown`: what of a thought is shown. `stats`: whether tokens and speed are shown after each answer.
    """

    sampling: SamplingRequest = field(default_factory=SamplingRequest)
    think: bool | None = None
    shown: Thinking = "show"
    stats: bool = False
    strategy: Strategy | None = None
