"""The text of dsr and of llama-completion for the same sampling settings, seed and prompt, token by token of text.

    python tests/peers/sampling.py MODEL [--tokens 96]

Both use the same chain of samplers, so greedy and seeded texts must be equal. Where they part, the script prints how
many characters are the same. Both read the prompt in the same batches, because the last bits of logits depend on them.
"""

from __future__ import annotations

import argparse
import math
import subprocess
from pathlib import Path
from typing import Any

from common import opened, peer

from runtime.base.common_prefix import common_length
from runtime.base.types import SamplingParams
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.llama import LlamaBackend

PROMPT = (
    "A list of animals that live in the forest: the bear, the wolf, the fox, the deer, the owl. "
    "A list of animals that live in the sea: the whale, the seal, the crab,"
)
# The options of llama-completion and the fields of SamplingParams.
CASES: tuple[dict[str, Any], ...] = (
    {"temperature": 0},
    {"temperature": 0, "repeat_penalty": 1.1},
    {"temperature": 0, "repeat_penalty": 1.3, "penalty_last_n": 16},
    {"temperature": 0, "presence_penalty": 1.5, "frequency_penalty": 0.3},
    {"temperature": 0, "dry_multiplier": 0.8},
    {"temperature": 0, "dry_multiplier": 1.5, "dry_base": 2.5, "dry_allowed_length": 1, "dry_penalty_last_n": 32},
    {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05},
    {"temperature": 0.8, "presence_penalty": 1.5},
    {"temperature": 0.8, "repeat_penalty": 1.2, "penalty_last_n": 500},
    {"temperature": 1.0, "typical_p": 0.7},
    {"temperature": 1.0, "top_n_sigma": 1.0},
    {"temperature": 1.0, "xtc_probability": 0.5, "xtc_threshold": 0.1},
    {"temperature": 0.8, "dynatemp_range": 0.5, "dynatemp_exponent": 1.5},
    {
        "temperature": 0.9, "repeat_penalty": 1.1, "presence_penalty": 0.5, "dry_multiplier": 0.8, "top_n_sigma": 2.0,
        "typical_p": 0.9, "xtc_probability": 0.3, "dynatemp_range": 0.3,
    },
)  # fmt: skip
NAMES = {
    "temperature": "--temp",
    "penalty_last_n": "--repeat-last-n",
    "typical_p": "--typical",
    "dynatemp_exponent": "--dynatemp-exp",
}
SEED = 7


def theirs(program: str, model: Path, params: SamplingParams, case: dict[str, Any], tokens: int, batch: int) -> str:
    """`batch`: tokens of a batch. dsr reads a prompt without its last token first, and some logits depend on that."""
    settings = {"top_k": params.top_k, "top_p": params.top_p, "min_p": params.min_p, **case}
    command = [program, "-m", str(model), "-p", PROMPT, "-n", str(tokens), "-t", "1", "-c", "2048", "-s", str(SEED)]
    command += ["-no-cnv", "--no-display-prompt", "--no-warmup", "--ignore-eos", "--no-perf"]
    command += ["-b", str(batch), "-ub", str(batch)]
    for name, value in settings.items():
        command += [NAMES.get(name, "--" + name.replace("_", "-")), str(value)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return done.stdout.decode("utf-8", "replace")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=96)
    asked = parser.parse_args()
    program = peer("llama-completion")
    backend, engine = opened(asked.model, threads=1)
    with backend:
        prompt = Prompt(tuple(backend.tokenize(PROMPT, add_bos=True)))
        # As --ignore-eos does it (common/arg.cpp).
        ending = tuple((token, -math.inf) for token in range(backend.vocab_size) if LlamaBackend.ends(backend, token))
        equal = 0
        for case in CASES:
            plain = SamplingParams(seed=SEED, max_tokens=asked.tokens, logit_bias=ending, **case)
            [completion] = engine.generate([Request(prompt, plain, plain=True)])
            other = theirs(program, asked.model, plain, case, asked.tokens, len(prompt.tokens) - 1)
            other = other.rstrip("\n")
            same = common_length(completion.answer, other)
            whole = same == min(len(completion.answer.rstrip("\n")), len(other)) > 0
            equal += whole
            print(f"{f'equal, {same} characters' if whole else f'parts after {same} characters':30} {case}")
        print(f"{equal} of {len(CASES)} texts are equal")


if __name__ == "__main__":
    main()
