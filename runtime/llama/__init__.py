"""Everything native: the only room that imports llama_cpp and ctypes. Other rooms use it through `Backend`.

Pitfalls of llama-cpp-python 0.3.36 and llama.cpp that are handled here:
- A batch above n_batch, reading logits that were not requested, and more outputs than n_outputs_max abort the process.
- An exception in a callback is printed and lost: callbacks here only set or read a flag.
- llama_decode returns 1 for a full cache (nothing changed), 2 for an abort (parts may be cached), below 0 for failure.
- Loading a library by a second name maps a second copy with its own device registry.
- A log callback must be kept alive.
"""

from importlib import import_module
from typing import TYPE_CHECKING

import runtime.llama.address_space  # noqa: F401  # first: it must refuse before anything is loaded

if TYPE_CHECKING:
    from runtime.llama.backend import LlamaBackend
    from runtime.llama.edited_scorer import EditedScorer
    from runtime.llama.embedder import Embedder
    from runtime.llama.graph import GraphNode, Observer
    from runtime.llama.mapped_observer import MappedObserver
    from runtime.llama.masked_experts import MaskedScorer
    from runtime.llama.native import ENGINE_VERSION, EngineDevice, EngineInfo, engine_info, features
    from runtime.llama.open_options import OpenOptions
    from runtime.llama.quantizer import check_rows, dequantize_rows, quantize_rows
    from runtime.llama.rpc import serve
    from runtime.llama.scorer import Scorer
    from runtime.llama.streamed_backend import StreamedBackend
    from runtime.llama.switched_observer import SwitchedObserver

__all__ = [
    "ENGINE_VERSION",
    "EditedScorer",
    "Embedder",
    "EngineDevice",
    "EngineInfo",
    "GraphNode",
    "LlamaBackend",
    "MappedObserver",
    "MaskedScorer",
    "Observer",
    "OpenOptions",
    "Scorer",
    "StreamedBackend",
    "SwitchedObserver",
    "check_rows",
    "dequantize_rows",
    "engine_info",
    "features",
    "quantize_rows",
    "serve",
]

# Each is imported once it is asked for: quantizing needs few of them, and a small file takes a second.
_PLACES = {
    "ENGINE_VERSION": "native",
    "EditedScorer": "edited_scorer",
    "Embedder": "embedder",
    "EngineDevice": "native",
    "EngineInfo": "native",
    "GraphNode": "graph",
    "LlamaBackend": "backend",
    "MappedObserver": "mapped_observer",
    "MaskedScorer": "masked_experts",
    "Observer": "graph",
    "OpenOptions": "open_options",
    "Scorer": "scorer",
    "StreamedBackend": "streamed_backend",
    "SwitchedObserver": "switched_observer",
    "check_rows": "quantizer",
    "dequantize_rows": "quantizer",
    "engine_info": "native",
    "features": "native",
    "quantize_rows": "quantizer",
    "serve": "rpc",
}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
        globals()[name] = found
        return found
