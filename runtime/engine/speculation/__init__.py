"""Speculative decoding of single streams: guess what comes next, check the guess in one batch, keep what is right.

A drafter proposes, the engine decodes the proposal together with the pending token, and the sequence draws from each
row in turn with its own sampler, for as long as it draws what was drafted. Every token is so drawn from the model's own
logits with one step of its own random stream: the text is that of drawing alone, as far as the logits do not depend on
the size of a batch (sample and compare, the simpler relative of Leviathan et al., arXiv 2211.17192).
"""

from runtime.engine.speculation.draft_controller import LONGEST_DRAFT, DraftController
from runtime.engine.speculation.drafter import Drafter
from runtime.engine.speculation.model import ModelDrafter, common_vocabulary
from runtime.engine.speculation.mtp import LONGEST_AHEAD, MtpDrafter
from runtime.engine.speculation.ngram import NgramDrafter
from runtime.engine.speculation.speculation import DraftStatistics, Speculation

__all__ = [
    "LONGEST_AHEAD",
    "LONGEST_DRAFT",
    "DraftController",
    "DraftStatistics",
    "Drafter",
    "ModelDrafter",
    "MtpDrafter",
    "NgramDrafter",
    "Speculation",
    "common_vocabulary",
]
