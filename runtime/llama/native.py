"""Loads llama_cpp in the release that dsr is made for, its log, and the libraries that libllama uses."""

from __future__ import annotations

import ctypes
import os
from collections import deque
from pathlib import Path

# A failed assertion of ggml starts an installed debugger for a backtrace, which takes seconds.
os.environ.setdefault("GGML_NO_BACKTRACE", "1")

import llama_cpp
from llama_cpp import llama_cpp as native

from runtime.base.errors import EngineFailed

__all__ = ["ENGINE_VERSION", "library", "log", "native"]

# The structures of the engine change between releases, and a wrong one corrupts memory silently.
ENGINE_VERSION = "0.3.36"
if llama_cpp.__version__ != ENGINE_VERSION:
    raise EngineFailed(
        f"llama-cpp-python {llama_cpp.__version__} is installed, and this dsr is made for {ENGINE_VERSION}",
        hint=f"pip install llama-cpp-python=={ENGINE_VERSION}",
    )

_ERROR = 4  # enum ggml_log_level (ggml.h)
_CONTINUED = 5


class _Log:
    """The last error lines of the engine, for error messages."""

    def __init__(self) -> None:
        self._errors: deque[str] = deque(maxlen=8)
        self._level = 0
        self._callback = native.llama_log_callback(self._hear)
        native.llama_log_set(self._callback, None)

    def _hear(self, level: int, text: bytes, _: object) -> None:
        if level != _CONTINUED:
            self._level = level
        if self._level == _ERROR and text.strip():
            self._errors.append(text.decode("utf-8", "replace").strip())
        if os.environ.get("DSR_DEBUG") == "1":
            os.write(2, text)

    def take(self, fallback: str = "it gave no reason") -> str:
        """The first error line since the last call, without the name of the C function. Later lines follow from it."""
        said = self._errors[0].split(": ", 1)[-1] if self._errors else fallback
        self._errors.clear()
        return said.removeprefix("error loading model: ")


native.llama_backend_init()
log = _Log()


def library(stem: str) -> ctypes.CDLL:
    """A library that libllama uses, loaded by the linked file name: another name would map a second copy."""
    folder = Path(native.__file__).parent / "lib"
    for name in (f"lib{stem}.so.0", f"lib{stem}.0.dylib", f"lib{stem}.dylib", f"{stem}.dll", f"lib{stem}.so"):
        if (folder / name).exists():
            return ctypes.CDLL(str(folder / name))
    raise EngineFailed(f"the engine's library {stem} is not in {folder}", hint="reinstall llama-cpp-python")
