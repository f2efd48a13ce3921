"""Whether the engine opens what a plan would write, before hours of work: it gets the header and a file of holes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from quant.gguf.writer import layout
from quant.plan import QuantPlan
from runtime.base.errors import EngineFailed, Incompatible
from runtime.base.run import Run
from runtime.placement.trial import try_layout


def rehearse(plan: QuantPlan, name: str, run: Run) -> None:
    """Check the file of `plan`; `name` is the model's, for the error.

    Raises Incompatible with the engine's reason, DoesNotFit, Aborted."""
    whole = layout(plan.metadata, plan.tensors)
    with tempfile.TemporaryDirectory(prefix="dsr-") as folder:
        path = Path(folder) / "layout.gguf"
        try:
            with path.open("wb") as file:
                file.write(whole.header)
                file.truncate(whole.size)
        except OSError:
            return  # a disk whose files cannot have holes, or be so large
        try:
            try_layout(path, run)
        except EngineFailed as error:
            reason = error.message.removeprefix(f"{path}: ")
            raise Incompatible(
                f"{name}: the engine refuses the model that its config.json describes: {reason}",
                hint="take a model that is published as GGUF",
            ) from error
