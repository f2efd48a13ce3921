"""Does our importance matrix equal llama-imatrix's over the same text and chunks, and how long does each take?

    python tests/peers/imatrix.py MODEL TEXT [--chunks N] [--ctx N] [--threads N] [--rounds N]
    python tests/peers/imatrix.py --write        the reference of tests/quant/measure/test_calibrate.py

Both must choose the same experts for the same tokens, so counts must be equal. Sums are also compared with sums of the
same activations in float64: llama-imatrix adds row after row in float32, so its own error grows with the text, and at
some ten thousand tokens it is what is left of the difference. Time: user and system time of whole processes, in turns,
because a busy machine changes the time on the clock more than what is compared. llama-imatrix runs with -b of one chunk
(at most 512), so that both put the same rows through the graph together, and without its perplexity.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import peer, report

from quant.measure.calibrate import Collector
from quant.measure.chunks import ChunkOptions, Text, chunks
from quant.measure.imatrix import Imatrix, read
from runtime.llama import GraphNode, Observer

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "tests" / "quant" / "imatrix_reference.json"


class Exact(Collector):
    """Sums dense weights in float64 as well."""

    def __init__(self) -> None:
        super().__init__()
        self.exact: dict[str, np.ndarray] = {}

    def sees(self, node: GraphNode) -> bool:
        if node.operation == "MUL_MAT":
            weight, x = node.source(0), node.source(1).values().astype(np.float64)
            batches, heads, _, length = x.shape
            depth, width = weight.shape[2], weight.shape[3]
            each = np.square(x).sum(axis=2).reshape(batches // width, width, heads // depth, depth, length)
            self.exact[weight.name] = self.exact.get(weight.name, 0) + each.sum(axis=(0, 2)).ravel()
        return super().sees(node)


def theirs(model: Path, text: Path, out: Path, context: int, most: int, threads: int) -> list[str]:
    shape = ["-c", str(context), "-b", str(min(context, 512)), "--chunks", str(most), "-t", str(threads)]
    return [
        peer("llama-imatrix"),
        "-m",
        str(model),
        "-f",
        str(text),
        *shape,
        "--parse-special",
        "--no-ppl",
        "-o",
        str(out),
    ]


def ours(model: Path, text: Path, out: Path, context: int, most: int, threads: int) -> list[str]:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from dsr.models.library import find; from dsr.quantize.imatrix import *\n"
        "model, text, out, context, most, threads = sys.argv[1:]\n"
        "make(find(model), ImatrixRequest(Path(out), (Path(text),), int(most), int(context), int(threads), force=True))"
    )
    return [sys.executable, "-c", code, str(model), str(text), str(out), str(context), str(most), str(threads)]


def seconds(command: list[str]) -> float:
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed with status {status}")
    return usage.ru_utime + usage.ru_stime


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    wanted = wanted.ravel().astype(np.float64)
    return float(np.linalg.norm(found.ravel() - wanted) / np.linalg.norm(wanted))


def exact_sums(model: Path, text: Path, context: int, most: int, threads: int) -> dict[str, np.ndarray]:
    collector = Exact()
    content = text.read_text(encoding="utf-8").removesuffix("\n")
    with Observer(model, collector.wants, collector.sees, window=context) as observer:
        observer.set_threads(threads, threads)
        for part in chunks(observer, [Text("", content)], ChunkOptions(context, most)):
            for _ in observer.observe(part):
                collector.finish_pass()
    return collector.exact


def compare(a: Imatrix, b: Imatrix, exact: dict[str, np.ndarray]) -> None:
    print(f"entries: {len(a.entries)} and {len(b.entries)}, differing names: {sorted(set(a.entries) ^ set(b.entries))}")
    counts = [name for name in b.entries if not np.array_equal(a.entries[name].counts, b.entries[name].counts)]
    print(f"weights with differing counts: {counts or 'none'}")
    worst = max(b.entries, key=lambda name: error(a.entries[name].sums, b.entries[name].sums))
    print(f"largest relative error of a weight: {error(a.entries[worst].sums, b.entries[worst].sums):.2e} ({worst})")
    for who, matrix in (("dsr", a), ("llama-imatrix", b)):
        print(f"  against float64 sums, {who}: {max(error(matrix.entries[n].sums, exact[n]) for n in exact):.2e}")


def write_reference() -> None:
    model, text, context, most = (
        ROOT / "dsr/data/nano.gguf",
        ROOT / "quant/measure/texts/calibration/problems.txt",
        256,
        3,
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "reference.gguf"
        seconds(theirs(model, text, out, context, most, 1))
        found = read(out)
    entries = {
        name: [float(f"{entry.sums.sum(dtype=np.float64):.7g}"), entry.counts.tolist()]
        for name, entry in sorted(found.entries.items())
    }
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items())
    REFERENCE.write_text(f'{{"context": {context}, "chunks": {most}, "entries": {{\n{lines}\n}}}}\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("text", type=Path, nargs="?")
    parser.add_argument("--chunks", type=int, default=10)
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    if asked.write:
        write_reference()
        return
    if asked.text is None:
        parser.error("MODEL and TEXT are needed")
    model, text = asked.model.absolute(), asked.text.absolute()
    shape = (asked.ctx, asked.chunks, asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        a, b = Path(folder) / "ours.gguf", Path(folder) / "theirs.gguf"
        pairs = [
            (seconds(ours(model, text, a, *shape)), seconds(theirs(model, text, b, *shape)))
            for _ in range(asked.rounds)
        ]
        report(f"{model.name}, {asked.chunks} chunks", [x for x, _ in pairs], [y for _, y in pairs], "CPU seconds")
        compare(read(a), read(b), exact_sums(model, text, *shape))


main()
