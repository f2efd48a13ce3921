"""Do our converted models say what transformers says? Logits of 64 tokens on the same random weights, in F32.

    python tests/peers/logits.py PYTHON [NAME...]

PYTHON is an interpreter with torch and transformers 5; neither is needed by dsr or by its tests. NAME is a model of
tests/quant/configs/tiny (default: all). Prints the relative error |ours - theirs| / |theirs| of each model; the exit
status is 1 if one is above 1e-3, with MXFP4 0.1. A class that transformers lacks has no reference.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from quant.convert.conversion import source_of
from quant.recipe.recipe import load, plan
from quant.sources.checkpoint import open_checkpoint
from quant.write.execute import quantize
from runtime.base.errors import DsrError
from runtime.base.run import Run
from tests.peers.warm import warm
from tests.quant.tiny_models import MODELS, make_tiny

TOKENS = 64
MOST = 1e-3
MOST_OF_MXFP4 = 0.1  # the engine multiplies MXFP4 with activations of 8 bits

_THEIRS = """
import json, sys, numpy, torch, transformers
folder, tokens, out = sys.argv[1:]
transformers.logging.set_verbosity_error()
torch.manual_seed(0)
options = {"dtype": torch.float32, "attn_implementation": "eager", "output_loading_info": True}
# ggml looks GELU up in a table, by inputs of 16 bits and with results of 16 bits (ggml_vec_gelu_f32 in vec.h).
import torch.nn.functional
exact = torch.nn.functional.gelu
def gelu(values, approximate="none"):
    if approximate != "tanh":
        return exact(values, approximate=approximate)
    found = exact(values.half().float(), approximate="tanh").half().float()
    return torch.where(values.abs() < 10, found, values.relu())
torch.nn.functional.gelu = gelu
# The engine's standard deviation of Gemma 3n's activations divides by n - 1 (gaussian_topk in src/models/gemma3n.cpp).
deviation = torch.std
torch.std = lambda values, **options: deviation(values, **(options | {"unbiased": True}))
# PhiMoE: the engine weighs the two experts by their softmax (transformers: by one among near equals, about 1 each), and
# its norms do not subtract the mean (src/models/phi3.cpp).
if "PhiMoE" in folder:
    import transformers.models.phimoe.modeling_phimoe as phimoe
    def softmax_of_best(scores, jitter_eps, training, top_k=2):
        best, chosen = torch.softmax(scores, -1).topk(top_k)
        return best / best.sum(-1, keepdim=True), chosen
    phimoe.sparsemixer = softmax_of_best
    def without_mean(self, values):
        return values * torch.rsqrt(values.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight + self.bias
    torch.nn.LayerNorm.forward = without_mean
# MiMo 7B comes with a class of its own, which is derived from Qwen 2's and adds layers for multi-token prediction.
if "MiMoForCausalLM" in folder:
    options["config"] = transformers.Qwen2Config.from_pretrained(folder)
def language_model(folder, **options):  # of a checkpoint whose other parts transformers cannot make here
    import safetensors.torch
    text = transformers.AutoConfig.from_pretrained(folder).get_text_config()
    model = transformers.AutoModelForCausalLM.from_config(text, dtype=torch.float32, attn_implementation="eager")
    tensors = safetensors.torch.load_file(folder + "/model.safetensors")
    found = model.load_state_dict({name.replace("language_model.", ""): each for name, each in tensors.items()}, False)
    return model, {"missing_keys": found.missing_keys, "unexpected_keys": found.unexpected_keys}

automatic = transformers.AutoModelForCausalLM, transformers.AutoModelForImageTextToText
kinds = (*(each.from_pretrained for each in automatic), language_model)
for number, kind in enumerate(kinds):
    try:
        model, loaded = kind(folder, **options)
        break
    except (ValueError, KeyError, ImportError):
        if number + 1 == len(kinds):
            raise
senses = "vision", "visual", "audio", "projector", "mtp."
wrong = [name for name in loaded["missing_keys"] if not any(sense in name for sense in senses)]
wrong += list(loaded["unexpected_keys"]) + [str(each) for each in loaded.get("mismatched_keys", ())]
if wrong:
    print(f"names that do not match: {sorted(wrong)[:6]}", file=sys.stderr)
with torch.no_grad():
    found = model.eval()(torch.tensor([json.loads(tokens)]), use_cache=False).logits[0]
numpy.save(out, found.float().numpy())
"""


def ours(folder: Path, scratch: Path, tokens: list[int]) -> np.ndarray:
    """Our logits, (tokens, vocabulary), with a cache in F32."""
    import llama_cpp

    source = source_of(open_checkpoint(folder))
    out = scratch / "ours.gguf"
    quantize(source, plan(load("f32"), source), out, Run(threads=2))
    model = llama_cpp.Llama(
        str(out), n_ctx=128, n_batch=64, n_ubatch=64, logits_all=True, type_k=0, type_v=0, n_threads=1, verbose=False
    )
    model.eval(tokens)
    return np.array(model.scores[: len(tokens)])


def theirs(python: str, folder: Path, scratch: Path, tokens: list[int]) -> tuple[np.ndarray | None, str]:
    """The logits of transformers, and what it complained of."""
    out = scratch / "theirs.npy"
    status, text = warm(python, _THEIRS, "torch", "transformers").run(folder, str(tokens), out)
    lines = [line for line in text.strip().splitlines() if "it/s]" not in line] or [""]
    said = next((line for line in lines if re.match(r"\w+Error: ", line)), lines[-1])
    return (np.load(out) if status == 0 and out.exists() else None), said


def error_of(python: str, name: str) -> tuple[float | None, str]:
    """The relative error of one model, None without a reference; and what transformers said.

    Raises DsrError or ValueError where ours cannot be converted or run."""
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        make_tiny(name, scratch / name, dtype="F32")
        tokens = [int(each) for each in np.random.default_rng(0).integers(0, 256, TOKENS)]
        mine = ours(scratch / name, scratch, tokens)
        reference, said = theirs(python, scratch / name, scratch, tokens)
        if reference is None:
            return None, said
        size = min(mine.shape[1], reference.shape[1])
        error = np.linalg.norm(mine[:, :size] - reference[:, :size]) / np.linalg.norm(reference[:, :size])
        return float(error), said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python")
    parser.add_argument("names", nargs="*", default=MODELS)
    given = parser.parse_args()
    wrong = 0
    for name in given.names:
        try:
            error, said = error_of(given.python, name)
        except (DsrError, ValueError) as fault:
            print(f"{name:44} FAILS {str(fault)[:200]}", flush=True)
            wrong += 1
            continue
        if error is None:
            print(f"{name:44} no reference: {said[:200]}", flush=True)
            continue
        bad = not error <= MOST
        print(f"{name:44} {error:.1e}{' WRONG' if bad else ''} {said}", flush=True)
        wrong += bad
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
