"""Speculative decoding of single streams: guess what comes next, check the guess in one batch, keep what is right.

A drafter proposes, the engine decodes the proposal together with the pending token, and the sequence draws from each
row in turn with its own sampler, for as long as it draws what was drafted. Every token is so drawn from the model's own
logits with one step of its own random stream: the text is that of drawing alone, as far as the logits do not depend on
the size of a batch (sample and compare, the simpler relative of Leviathan et al., arXiv 2211.17192).
"""

from runtime.speculation.drafter import Drafter
from runtime.speculation.model import ModelDrafter, common_vocabulary
from runtime.speculation.mtp import LONGEST_AHEAD, MtpDrafter
from runtime.speculation.ngram import NgramDrafter
from runtime.speculation.pace import LONGEST_DRAFT, Pace
from runtime.speculation.speculation import DraftStatistics, Speculation

__all__ = [
    "LONGEST_AHEAD",
    "LONGEST_DRAFT",
    "DraftStatistics",
    "Drafter",
    "ModelDrafter",
    "MtpDrafter",
    "NgramDrafter",
    "Pace",
    "Speculation",
    "common_vocabulary",
]
