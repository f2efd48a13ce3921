"""Make dsr/data/nano.gguf: nano's F16 file through llama.cpp's own quantizer, to Q8_0.

    python tests/nano/quantize.py nano-f16.gguf dsr/data/nano.gguf

The F16 file comes from tests/nano/training/make_all.sh.
"""

import ctypes
import os
import sys

from runtime.llama.bindings import native

Q8_0 = 7  # LLAMA_FTYPE_MOSTLY_Q8_0, llama.h
ADDED = {"general.author": "the dsr developers", "general.license": "mit"}  # as in LICENSE


def overrides(texts: dict[str, str]) -> ctypes.Array:  # type: ignore[type-arg]
    """Metadata for the quantizer to write; the last entry has no key."""
    entries = (native.llama_model_kv_override * (len(texts) + 1))()
    for entry, (key, text) in zip(entries, texts.items(), strict=False):
        entry.key = key.encode()
        entry.tag = native.LLAMA_KV_OVERRIDE_TYPE_STR
        entry.value.val_str = text.encode()
    return entries


source, target = sys.argv[1:]
params = native.llama_model_quantize_default_params()
params.ftype = Q8_0
params.kv_overrides = overrides(ADDED)
params.nthread = os.cpu_count() or 1
part = target + ".part"
if native.llama_model_quantize(source.encode(), part.encode(), params):
    sys.exit(f"could not quantize {source}")
os.replace(part, target)
print(f"{target}: {os.path.getsize(target)} bytes")
