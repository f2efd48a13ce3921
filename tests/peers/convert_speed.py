"""How long, and with how much memory, do dsr and llama.cpp's converter turn the same checkpoint into BF16 GGUF?

    python tests/peers/convert_speed.py LLAMA_CPP PYTHON [--pairs N] [--name CLASS]

A random checkpoint of about 1 GB is made first, of Llama or of one of the classes of `_LARGE`. Both run as whole
processes in turns, write to the same disk, and are charged what starting costs them, which for the converter includes
torch. LLAMA_CPP and PYTHON as in `convert.py`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from common import report

from tests.quant import tiny, tiny_models

ROOT = Path(__file__).resolve().parents[2]
HIDDEN, INNER, LAYERS, VOCABULARY = 2048, 5632, 8, 32000
# What makes a gigabyte of the tiny models of tests/quant/configs/tiny: heads and blocks of published sizes.
_WIDE = {"hidden_size": 2048, "intermediate_size": 6144, "vocab_size": VOCABULARY}
_LARGE: dict[str, dict[str, Any]] = {
    "Gemma3ForCausalLM": _WIDE
    | {"num_hidden_layers": 10, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256}
    | {"query_pre_attn_scalar": 256},
    "Lfm2MoeForCausalLM": _WIDE
    | {"num_hidden_layers": 3, "num_attention_heads": 32, "num_key_value_heads": 8, "num_experts": 32}
    | {"num_experts_per_tok": 4, "moe_intermediate_size": 1024},
    "Qwen3_5ForCausalLM": _WIDE
    | {"num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256}
    | {"linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_num_key_heads": 16}
    | {"linear_num_value_heads": 32, "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 2},
}

# The vocabulary of a tiny checkpoint is no published one, which the converter would refuse.
_THEIRS = """
import runpy, sys
root = sys.argv[1]
sys.path[:0] = [root + "/gguf-py", root]
from conversion import base
for made in [c for c in vars(base).values() if isinstance(c, type) and "get_vocab_base_pre" in vars(c)]:
    made.get_vocab_base_pre = lambda self, tokenizer: "llama-bpe"
sys.argv = [root + "/convert_hf_to_gguf.py", *sys.argv[2:]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def make_checkpoint(folder: Path, name: str) -> None:
    if name in _LARGE:
        tiny_models.make_tiny(name, folder, changes=_LARGE[name])
        return
    config = tiny._BASE | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": VOCABULARY,
        "torch_dtype": "bfloat16",
    }

    def layer(_: int, prefix: str) -> dict[str, tuple[int, ...]]:
        attention = tiny.attention_shapes(prefix + ".self_attn", HIDDEN, 32, 8, 64)
        return attention | tiny.network_shapes(prefix + ".mlp", HIDDEN, INNER)

    tiny._save(folder, config, tiny._frame(config, layer), "BF16")
    split = [tiny.split(tiny.LLAMA_3), tiny.byte_level()]
    tokenizer = tiny.byte_level_tokenizer(split, bos="<|begin|>", added=tiny.SPECIAL)
    tiny._save_tokenizer(folder, tokenizer, {"bos_token": "<|begin|>"})


def run(command: list[str]) -> tuple[float, float]:
    """Seconds, and the largest resident size in MiB as the kernel accounts it."""
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert child.stderr is not None
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{' '.join(command[:4])} failed:\n{said[-2000:]}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama_cpp")
    parser.add_argument("python")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--name", choices=_LARGE)
    asked = parser.parse_args()
    ours, theirs = [], []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name) / (asked.name or "llama")
        # In a process of its own: the kernel counts a parent's memory at the time of a fork as the child's.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            pool.submit(make_checkpoint, folder, asked.name or "llama").result()
        size = sum(file.stat().st_size for file in folder.iterdir())
        for _ in range(asked.pairs):
            out = Path(name) / "out.gguf"
            made = [sys.executable, "-m", "dsr", "quantize", str(folder), str(out), "--recipe", "bf16", "--force"]
            ours.append(run(made))
            out.unlink()
            theirs.append(
                run(
                    [
                        asked.python,
                        "-c",
                        _THEIRS,
                        asked.llama_cpp,
                        str(folder),
                        "--outfile",
                        str(out),
                        "--outtype",
                        "bf16",
                    ]
                )
            )
            out.unlink()
    print(f"a checkpoint of {size:,} bytes")
    report("seconds", [each[0] for each in ours], [each[0] for each in theirs], "s")
    mine, other = (statistics.median(each[1] for each in runs) for runs in (ours, theirs))
    print(f"largest resident memory: dsr {mine:.0f} MiB, converter {other:.0f} MiB, ratio {mine / other:.3f}")


if __name__ == "__main__":
    main()
