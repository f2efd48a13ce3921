"""The native bindings of llama-cpp-python without the package around them.

Its `__init__` imports a server's worth of Python (0.2 s), and `diskcache`, which unpickles the files of its folder
(CVE-2025-69872). The modules with the bindings need none of it, so they are imported under a package that is bare.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module, metadata
from importlib.util import find_spec
from types import ModuleType

from runtime.base.errors import EngineFailed
from runtime.gguf.engine_lists import ENGINE_VERSION

__all__ = ["llama_cpp_ext", "native"]

# The structures of the engine change between releases, and a wrong one corrupts memory silently.
if (installed := metadata.version("llama-cpp-python")) != ENGINE_VERSION:
    raise EngineFailed(
        f"llama-cpp-python {installed} is installed, and this dsr is made for {ENGINE_VERSION}",
        hint=f"pip install llama-cpp-python=={ENGINE_VERSION}",
    )


def _import(names: tuple[str, ...]) -> list[ModuleType]:
    """Modules of llama_cpp. The whole package stays importable: it then finds these modules loaded."""
    if "llama_cpp" in sys.modules:
        return [import_module(f"llama_cpp.{name}") for name in names]
    spec = find_spec("llama_cpp")
    assert spec is not None and spec.submodule_search_locations is not None
    bare = ModuleType("llama_cpp")
    bare.__path__ = list(spec.submodule_search_locations)
    sys.modules["llama_cpp"] = bare
    try:
        return [import_module(f"llama_cpp.{name}") for name in names]
    finally:
        del sys.modules["llama_cpp"]


# A failed assertion of ggml starts an installed debugger for a backtrace, which takes seconds.
os.environ.setdefault("GGML_NO_BACKTRACE", "1")
native, llama_cpp_ext = _import(("llama_cpp", "llama_cpp_ext"))
