"""Are quantized weights read as llama.cpp's converter reads them? Compared number by number, form by form.

    python tests/peers/stored_weights.py LLAMA_CPP PYTHON            the tiny weights of tests/quant/packed.py
    python tests/peers/stored_weights.py LLAMA_CPP PYTHON --write    the same, and keep digests of llama.cpp's floats

LLAMA_CPP and PYTHON as in convert.py. The converter's own dequant_model runs. AWQ, MXFP4 and NVFP4, which it does not
make floats of, are computed by the formulas of transformers (integrations/awq.py, integrations/mxfp4.py) and of ggml.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from quant.sources.checkpoint import open_checkpoint
from tests.quant import packed
from tests.quant.digests import digest

REFERENCE = Path(packed.__file__).with_name("packed_reference.json")

_RUN = r"""
import hashlib, json, sys
from pathlib import Path
root, folder = sys.argv[1:3]
sys.path[:0] = [root + "/gguf-py", root]
from conversion import base
folder = Path(folder)
model = base.TextModel.__new__(base.TextModel)
model.dir_model, model.is_mistral_format, model.lazy = folder, False, False
model.hparams = json.loads((folder / "config.json").read_text())
model._is_nvfp4 = model._is_mxfp4 = model._fp8_as_q8 = False
model._fp8_dequantized = set()
model.model_tensors = model.index_tensors()
model.dequant_model()
out = {}
for name, load in model.model_tensors.items():
    if name != "norm":
        values = load().float().contiguous().numpy()
        out[name] = [list(values.shape), hashlib.sha256(values.tobytes()).hexdigest()[:20]]
print("RESULT" + json.dumps(out))
"""


def ours(folder: Path) -> dict[str, Any]:
    checkpoint, found = open_checkpoint(folder), {}
    for name, tensor in checkpoint.tensors.items():
        if name != "norm":
            rows = np.empty((tensor.rows, tensor.width), np.float32)
            checkpoint.read(name, 0, tensor.rows, rows)
            found[name] = [list(tensor.shape), digest(rows.tobytes())]
    return found


def main() -> None:
    arguments = [argument for argument in sys.argv[1:] if argument != "--write"]
    if len(arguments) != 2:
        sys.exit(__doc__)
    kept, wrong = {}, 0
    for name, make in packed.FORMS.items():
        with tempfile.TemporaryDirectory() as scratch:
            folder = packed.save(Path(scratch) / name, *make())
            mine = ours(folder)
            done = subprocess.run([arguments[1], "-c", _RUN, arguments[0], str(folder)], capture_output=True, text=True)
        result = next((line[6:] for line in done.stdout.splitlines() if line.startswith("RESULT")), None)
        if result is None:
            sys.exit(f"llama.cpp's converter failed on {name}:\n{done.stderr[-3000:]}")
        kept[name] = json.loads(result)
        same = mine == kept[name] and list(mine) == list(kept[name])
        print(f"{name}: {'equal' if same else f'NOT equal: dsr {mine}, llama.cpp {kept[name]}'}")
        wrong += not same
    if "--write" in sys.argv:
        REFERENCE.write_text(json.dumps(kept, indent=1) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
