"""Opens a model file, with progress and a way to stop."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from typing import Any

from runtime.base.errors import Aborted, DoesNotFit, EngineFailed
from runtime.base.events import Progress
from runtime.base.run import Run
from runtime.gguf.card import has_plain_stack
from runtime.gguf.header import ANOTHER_FILE
from runtime.gguf.reader import read_card
from runtime.llama.native import log, native

MORE_MEMORY = "close other programs, or raise the limits of this shell: ulimit -v unlimited; ulimit -d unlimited"
# ggml-backend.cpp, src/llama-mmap.cpp, src/llama-model.cpp
_LACKS_MEMORY = re.compile(r"Cannot allocate memory|failed to allocate|unable to allocate")


def load_model(path: Path, params_with: Callable[[Any], Any], run: Run) -> Any:
    """The `llama_model *` of the file at `path` (shard 1 of a split file), with all tensors where they belong.

    `params_with` makes the llama_model_params for a progress callback. Raises EngineFailed, DoesNotFit where the system
    gives no memory, or Aborted if a stop was wanted.
    """

    def progress(fraction: float, _: object) -> bool:
        # An exception here would be printed and lost, so it sets the stop flag instead.
        try:
            run.listen(Progress("loading", path.name, int(fraction * 100), 100, "percent"))
        except BaseException:
            run.stop.set()
        return not run.stop.wanted

    callback = native.llama_progress_callback(progress)
    params = params_with(callback)
    if has_amx() and has_plain_stack(read_card(path)):
        # The engine lays such a weight out in AMX's order, and then has no kernel for its product: it aborts.
        params.use_extra_bufts = False
    log.take()
    model = native.llama_model_load_from_file(os.fsencode(path), params)
    del callback
    if not model:
        if run.stop.take():
            raise Aborted("stopped while loading")
        said = log.take()
        if _LACKS_MEMORY.search(said):
            raise DoesNotFit(f"{path}: there is not enough memory to open it: {said}", hint=MORE_MEMORY)
        raise EngineFailed(f"{path}: the engine cannot load it: {said}", hint=hint_of(said))
    return model


@cache
def has_amx() -> bool:
    """Whether the engine was compiled for the matrix tiles of this CPU (AMX of Intel's servers)."""
    return b"AMX_INT8 = 1" in native.llama_print_system_info()


def with_kernels(cpu: Collection[str]) -> list[str]:
    """Those of the CPU's features for which this engine has kernels: some are compiled without AMX."""
    return [each for each in cpu if has_amx() or not each.startswith("amx_")]


def hint_of(said: str) -> str | None:
    """What to do about a file that the engine refuses for the reason `said`."""
    if said.startswith(("unknown model architecture", "unknown pre-tokenizer", "unknown tokenizer")):
        return "the file is sound: update dsr for a newer engine, or take another model: dsr list --catalog"
    if said.startswith(("K cache type", "V cache type")):
        return "take another type of cache, such as --kv-type f16"
    return ANOTHER_FILE
