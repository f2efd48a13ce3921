"""Whether a model finds a number anywhere in a long text: within its trained length, beyond it, and with YaRN.

Usage: passkey.py MODEL [--lengths 0.25,0.9,1.5,1.9] [--depths 0.1,0.3,0.5,0.7,0.9] [--factors 1.5,2] [--threads N]
       passkey.py MODEL --short [--factors 2,4] [--threads N]

A length is a multiple of the trained length, or a number of tokens. A text that is longer than the trained length must
be refused without YaRN, before the model is loaded, and is read with the smallest factor that covers it. The text is
the one of "Landmark Attention" (arXiv 2305.16300, section 4.2). `--short` prints the KL divergence from the model
without YaRN on 512 tokens of ordinary text: the cost of YaRN to a short prompt.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from pathlib import Path

import common  # noqa: F401 - puts the repository on the path
import numpy as np

from dsr.chat.conversation import Conversation
from dsr.loading.load import LoadedModel, load
from dsr.loading.options import LoadOptions, RopeRequest
from dsr.loading.reach import settled
from dsr.models import library
from dsr.models.reach import factor_for
from runtime.base.errors import DoesNotFit
from runtime.base.run import Run
from runtime.base.types import SamplingParams
from runtime.engine.backend import Batch
from runtime.engine.template import file_layout
from runtime.llama import LlamaBackend, OpenOptions

FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
ROOM = 96  # tokens for template, question and answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--lengths", default="0.25,0.9,1.5,1.9")
    parser.add_argument("--depths", default="0.1,0.3,0.5,0.7,0.9")
    parser.add_argument("--factors", help="factors of YaRN for each length, in place of the smallest that covers it")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    model = library.find(asked.model)
    trained = model.card.context_length
    factors = [float(each) for each in asked.factors.split(",")] if asked.factors else []
    if asked.short:
        print_cost(model.path, trained, factors or [1.5, 2.0, 4.0], asked.threads)
        return
    lengths = [int(float(each) * trained) if float(each) <= 64 else int(each) for each in asked.lengths.split(",")]
    depths = [float(each) for each in asked.depths.split(",")]
    for length in lengths:
        plain = LoadOptions(context=length)
        if length <= trained:
            ask(model, plain, length, depths, asked.threads, "without YaRN")
        else:
            try:
                settled(plain, model.card, model.entry)
            except DoesNotFit as error:
                print(f"{length:7} tokens  without YaRN: refused, exit code {error.exit_code}", flush=True)
            else:
                print(f"{length:7} tokens  without YaRN: NOT REFUSED", flush=True)
        for factor in factors or ([] if length <= trained else [factor_for(length, trained)]):
            options = LoadOptions(context=length, rope=RopeRequest(factor))
            ask(model, options, length, depths, asked.threads, f"YaRN {factor:g}")


def ask(model: library.Model, options: LoadOptions, length: int, depths: list[float], threads: int, how: str) -> None:
    started, results = time.perf_counter(), []
    with load(model, options, Run(threads=threads)) as loaded:
        for depth in depths:
            key = str(random.Random(f"{length} {depth}").randint(10000, 99999))
            talk = Conversation(loaded, SamplingParams(temperature=0, max_tokens=24))
            text = passkey_text(loaded, length - ROOM, depth, key)
            question = "What is the pass key in the file? Answer with the number."
            for _ in talk.ask(file_layout("notes.txt", text, question)):
                pass
            assert talk.last is not None
            answer, read = talk.last.completion.answer, talk.last.prompt_tokens
            results.append(f"{depth:g}: {'right' if key in answer else f'WRONG ({answer.strip()!r} for {key})'}")
    seconds = time.perf_counter() - started
    print(f"{length:7} tokens  {how}: {', '.join(results)}  ({read} read, {seconds:.0f} s in all)", flush=True)


def passkey_text(loaded: LoadedModel, tokens: int, depth: float, key: str) -> str:
    """A text of at most `tokens`, with the key at `depth` of it."""
    each = len(loaded.backend.tokenize(FILLER + "\n"))
    said = f"The pass key is {key}. Remember it. {key} is the pass key."
    lines = [FILLER] * ((tokens - len(loaded.backend.tokenize(said)) - 8) // each)
    lines.insert(round(depth * len(lines)), said)
    return "\n".join(lines)


def print_cost(path: Path, trained: int, factors: list[float], threads: int) -> None:
    from runtime.gguf.rope import Yarn

    text = (Path(__file__).resolve().parents[2] / "docs" / "architecture.md").read_text(encoding="utf-8")
    base = list(logprobs(path, OpenOptions(context=512, threads=threads), text))
    for factor in factors:
        options = OpenOptions(context=512, threads=threads, yarn=Yarn(factor, trained))
        rows = list(logprobs(path, options, text))
        each = [float(np.sum(np.exp(a) * (a - b))) for a, b in zip(base, rows, strict=True)]
        same = np.mean([a.argmax() == b.argmax() for a, b in zip(base, rows, strict=True)])
        error = float(np.std(each)) / len(each) ** 0.5
        print(f"YaRN {factor:g}: KL divergence {np.mean(each):.4f} ± {error:.4f} nats, same first choice {same:.0%}")


def logprobs(path: Path, options: OpenOptions, text: str) -> Iterator[np.ndarray]:
    with LlamaBackend(path, options) as backend:
        tokens = backend.tokenize(text, add_bos=True)[:512]
        for position, token in enumerate(tokens):
            batch = Batch()
            batch.add([token], position, 0, output=True)
            backend.decode(batch)
            row = backend._logits(0).astype(np.float64)
            yield row - (row.max() + np.log(np.exp(row - row.max()).sum()))


main()
