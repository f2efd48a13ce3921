"""How long does collecting second moments take, and how much memory, for a model in the shape of Qwen2.5-7B?

    python tests/peers/collecting_speed.py FOLDER TOKENIZER.gguf [--layers 2] [--tokens 2048] [--threads N]

Writes random BF16 weights with so many layers to FOLDER (3.1 GB with two), with the tokenizer of another file (such as
Qwen2.5-Coder-0.5B). A child collects the moments of the built-in text as `dsr quantize --round` does, with mapped
weights. Its time without opening counts for all 28 layers and for as many tokens as dsr would read.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dsr.quantize.enough_tokens import enough_tokens
from quant.gguf.writer import KeyValue, f32, text, u32
from quant.measure.moments import collect_moments
from quant.measure.texts import CALIBRATION
from quant.recipe.mixtures import unquantized
from quant.sources.source import GgufSource, Source, TensorSpec
from quant.write import execute
from runtime.base.events import Event, Progress
from runtime.base.run import Run
from runtime.gguf.reader import read_card

HIDDEN, INNER, KEYS, LAYERS, VOCABULARY = 3584, 18944, 512, 28, 151936
MEMORY = 2 << 30  # for moments; dsr takes no more where the graph can be cut


class RandomWeights(Source):
    """Qwen2.5-7B with `layers` layers."""

    def __init__(self, tokenizer: Path, layers: int) -> None:
        with GgufSource(tokenizer) as other:
            kept = [each for each in other.metadata if each.key.startswith("tokenizer.")]
        super().__init__("qwen2", _tensors(layers), [*_metadata(layers), *kept], name="random")

    def read(self, tensor: TensorSpec, first: int, count: int) -> NDArray[np.float32]:
        if len(tensor.shape) == 1:
            return np.full((count, tensor.row_length), "norm" in tensor.name, np.float32)
        draw = np.random.default_rng([len(tensor.name), *tensor.name.encode(), first])
        return draw.standard_normal((count, tensor.row_length), np.float32) / np.float32(tensor.row_length**0.5)


def _metadata(layers: int) -> list[KeyValue]:
    sizes = {
        "block_count": layers, "context_length": 32768, "embedding_length": HIDDEN, "feed_forward_length": INNER,
        "attention.head_count": 28, "attention.head_count_kv": 4,
    }  # fmt: skip
    return [
        text("general.architecture", "qwen2"),
        *(u32(f"qwen2.{key}", value) for key, value in sizes.items()),
        f32("qwen2.rope.freq_base", 1e6),
        f32("qwen2.attention.layer_norm_rms_epsilon", 1e-6),
    ]


def _tensors(layers: int) -> list[TensorSpec]:
    found = [TensorSpec(name, (HIDDEN, VOCABULARY), "BF16") for name in ("token_embd.weight", "output.weight")]
    found.append(TensorSpec("output_norm.weight", (HIDDEN,), "F32"))
    matrices = {
        "attn_q": (HIDDEN, HIDDEN), "attn_k": (HIDDEN, KEYS), "attn_v": (HIDDEN, KEYS), "attn_output": (HIDDEN, HIDDEN),
        "ffn_gate": (HIDDEN, INNER), "ffn_up": (HIDDEN, INNER), "ffn_down": (INNER, HIDDEN),
    }  # fmt: skip
    for layer in range(layers):
        found += [TensorSpec(f"blk.{layer}.{part}.weight", shape, "BF16") for part, shape in matrices.items()]
        found += [
            TensorSpec(f"blk.{layer}.{part}.bias", (matrices[part][1],), "F32")
            for part in ("attn_q", "attn_k", "attn_v")
        ]
        found += [TensorSpec(f"blk.{layer}.{part}.weight", (HIDDEN,), "F32") for part in ("attn_norm", "ffn_norm")]
    return found


def collect(path: Path, folder: Path, tokens: int, threads: int) -> None:
    """Collect, then print the figures as JSON."""
    first: list[float] = []
    opened = time.monotonic()

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.job == "collecting" and not first:
            first.append(time.monotonic())

    made = collect_moments(
        path, "random", CALIBRATION.each_for_model(read_card(path)), folder, Run(listen=listen, threads=threads),
        context=2048, memory=MEMORY, most=tokens, mapped=True,
    )  # fmt: skip
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = {
        "tokens": made.index.tokens,
        "wall": time.monotonic() - opened,
        "until_first": first[0] - opened,
        "processor": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss * 1024,
    }
    print(json.dumps(spent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    model = given.folder / f"random-{given.layers}.gguf"
    if given.child:
        collect(model, given.folder / "moments", given.tokens, given.threads)
        return
    given.folder.mkdir(parents=True, exist_ok=True)
    source = RandomWeights(given.tokenizer, given.layers)
    if not model.exists():
        execute.quantize(source, unquantized(source), model, Run(threads=given.threads))
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        link = Path(scratch) / model.name
        link.symlink_to(model.resolve())
        command = [sys.executable, __file__, scratch, str(given.tokenizer), "--child", "--layers", str(given.layers)]
        command += ["--tokens", str(given.tokens), "--threads", str(given.threads)]
        spent = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    enough = enough_tokens(RandomWeights(given.tokenizer, LAYERS))
    whole = spent["wall"] * LAYERS / given.layers * enough / spent["tokens"]
    print(
        f"{given.layers} layers, {spent['tokens']} tokens, {given.threads} threads: {spent['wall']:.0f} s, of which "
        f"{spent['until_first']:.0f} s until the first pass was through, {spent['processor']:.0f} s of processor time, "
        f"peak {spent['peak'] / 2**30:.2f} GiB; all {LAYERS} layers with {enough} tokens: {whole / 3600:.2f} h",
    )


if __name__ == "__main__":
    main()
