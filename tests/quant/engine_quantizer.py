"""The engine's own `llama_model_quantize`, as the independent reference: other code than ours, from the same release.

reference(source, target, "q4_k_m")                  what llama-quantize would write
reference(source, target, "iq2_xs", importance)      with an importance matrix
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import runtime.llama  # noqa: F401  first, because it takes over the engine's log
from quant.recipe.mixtures import MIXTURES
from quant.recipe.overrides import NONE, Overrides
from runtime.gguf.types import BY_NAME
from runtime.llama.bindings import native


def reference(
    source: Path,
    target: Path,
    mixture: str,
    importance: Mapping[str, NDArray[np.float32]] | None = None,
    overrides: Overrides = NONE,
) -> Path:
    """Raises RuntimeError where the engine refuses."""
    params = native.llama_model_quantize_default_params()
    params.nthread = 1
    params.ftype = MIXTURES[mixture].file_type
    params.allow_requantize = True
    if importance is not None:
        entries = (native.llama_model_imatrix_data * (len(importance) + 1))()
        for entry, (name, values) in zip(entries, importance.items(), strict=False):
            entry.name, entry.size = name.encode(), values.size
            entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        params.imatrix = entries
    params.pure, params.quantize_output_tensor = overrides.pure, not overrides.keep_output
    if overrides.types:
        named = (native.llama_model_tensor_override * (len(overrides.types) + 1))()
        for place, each in zip(named, overrides.types, strict=False):
            place.pattern, place.type = each.pattern.encode(), BY_NAME[each.type].number
        params.tt_overrides = named
    if native.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params)):
        raise RuntimeError(f"the engine does not quantize {source.name} as {mixture}")
    return target
