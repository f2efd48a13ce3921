"""Vectors of texts, ours against those of `llama-server --embeddings`, for a tiny model of each kind and given files.

    python tests/peers/embeddings.py LLAMA_SERVER [FILE.gguf ...]

Both read the same file with the same pooling. Texts go to the server as strings, so that the tokens are compared, too.
Each text is read alone: in a batch the kernels of quantized weights round otherwise, on both sides, by up to 1e-3.
T5 has no answer here: llama-server reads it as a decoder.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runtime.base.run import Run
from runtime.gguf.reader import read_card
from runtime.llama import Embedder
from runtime.placement.embedding import EmbeddingPlan, plan_embedding
from tests.embedding_gguf import KINDS, write_embedder

NEAR = 1e-5  # of the cosine
WORDS = ["the", "cat", "sat", "on", "the", "mat", ".", "a", "dog", "runs", "far"]
TEXTS = (
    "the cat sat on the mat.",
    "a",
    "Größe, 日本語 and 🙂",
    "</s> the <s> dog [SEP] far",
    " the  dog\nruns ",
    " ".join(WORDS[n % 7] for n in range(100)),
    *(" ".join(WORDS[n:] + WORDS[:n]) for n in range(len(WORDS))),
)


@contextmanager
def served(server: str, path: Path, plan: EmbeddingPlan) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [server, "-m", str(path), "--embeddings", "--pooling", plan.form.pooling, "-t", "1", "-ngl", "0"]
    command += ["--host", "127.0.0.1", "--port", str(port), "-c", "4096", "-b", "1024", "-ub", "1024"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/health").close()
                break
            except (urllib.error.URLError, ConnectionError):
                if child.poll() is not None:
                    raise RuntimeError("the server refuses the file") from None
                time.sleep(0.1)
        yield address
    finally:
        child.kill()
        child.wait()


def theirs(address: str, text: str) -> list[float]:
    body = json.dumps({"input": text}).encode()
    asked = urllib.request.Request(f"{address}/v1/embeddings", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked) as answer:
        [found] = json.load(answer)["data"]
    return list(found["embedding"])


def compare(name: str, path: Path, server: str) -> bool:
    card = read_card(path)
    plan = plan_embedding(card, 1 << 40, min(card.context_length, 512))
    with Embedder(path, plan.options, Run(threads=1)) as embedder:
        texts = [embedder.tokenize(text) for text in TEXTS]
        ours, together = [embedder.embed([text])[0] for text in texts], embedder.embed(texts)
    with served(server, path, plan) as address:
        peers = [theirs(address, text) for text in TEXTS]
    worst, batched = farthest(ours, peers), farthest(ours, together)
    good = worst <= NEAR
    said = f"{len(TEXTS)} texts, {len(ours[0])} dimensions, farthest 1 - {worst:.1e}; ours in a batch 1 - {batched:.1e}"
    print(f"{name:24} {plan.form.pooling:5} {said}{'' if good else '  !'}", flush=True)
    return good


def farthest(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    """1 minus the least cosine of vectors of length 1."""
    return max(abs(1 - sum(a * b for a, b in zip(*pair, strict=True))) for pair in zip(one, other, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server")
    parser.add_argument("files", nargs="*", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kinds = [kind for kind in KINDS if kind not in ("reranker", "t5encoder")]
        tiny = [(kind, write_embedder(kind, Path(folder) / f"{kind}.gguf")) for kind in kinds]
        results = [
            compare(name, path, asked.server) for name, path in [*tiny, *((each.stem, each) for each in asked.files)]
        ]
    print(f"{sum(results)} of {len(results)} models give the same vectors")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
