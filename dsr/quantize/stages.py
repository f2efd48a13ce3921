"""Whether a file is rounded stage by stage, so that each matrix corrects the errors of those before it, too."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from dsr.quantize.decide import Decision
from dsr.quantize.enough_tokens import enough_for_stages
from dsr.quantize.moments import LONGEST, original_file
from dsr.store import kept_moments
from quant.round.plan import staged
from quant.sources.source import Source
from runtime.base.errors import DoesNotFit, EngineFailed, Incompatible
from runtime.base.events import Notice
from runtime.base.run import Run
from runtime.gguf.reader import read_card
from runtime.machine.host import probe
from runtime.machine.machine import usable
from runtime.placement.trial import try_file

if TYPE_CHECKING:
    from quant.measure.cross_stages import CrossStages
    from quant.round.moments import Moments

_SHARE = 2  # stages take half of what is usable; the model is mapped, or takes the other half


@contextmanager
def with_stages(
    source: Source, decision: Decision, moments: Moments | None, run: Run
) -> Iterator[tuple[Decision, CrossStages | None]]:
    """The decision with the stages of its plan; None, and a notice that says why, where that is not possible.

    Raises Aborted."""
    if moments is None or all(tensor.rounding != "best" for tensor in decision.plan.tensors):
        yield decision, None
        return
    from quant.measure.cross_stages import CrossStages, NoStages

    with ExitStack() as stack:
        found = None
        try:
            if sys.platform != "linux":
                raise NoStages("this takes Linux")
            if (text := moments.text()) is None:
                raise NoStages(f"{moments.folder} does not have the text of the second moments")
            path = stack.enter_context(original_file(source, kept_moments.folder(), run))
            card = read_card(path)
            try_file(card, run)
            context = min(LONGEST, card.context_length)
            text = text[:: -(-moments.index.tokens // enough_for_stages(source))]  # some of each kind
            stages = CrossStages(path, decision.plan, text, context)
            stages.check(usable(probe().memory_available) // _SHARE, run)
            found = stages
        except (NoStages, DoesNotFit, EngineFailed, Incompatible) as error:
            run.listen(Notice(f"each matrix corrects its own errors alone: {error.message}"))
        if found is not None:
            decision = replace(decision, plan=staged(decision.plan, found.tokens))
        yield decision, found
