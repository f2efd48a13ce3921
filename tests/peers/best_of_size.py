"""How much less does a measured plan lose than llama.cpp's mixtures of the same size?

    python tests/peers/best_of_size.py MODEL TEXT... [--mixtures Q2_K Q3_K_M Q4_K_M] [--work FOLDER] [--groups N]
        [--chunks N] [--threads N] [--marker TEXT] [--without TYPE...] [--problems FILE --first N]

Each text is cut in three: the importance matrix is made from the first third, the sensitivity is measured on the
second, and the files are compared on the last, so that no figure is from text which decided anything. Texts are cut
at `--marker`, and taken in turns. For each mixture llama-quantize makes its file with the same importance matrix, and
dsr the best file that is no larger. `--problems`: greedy accuracy, too, of the file at the first mixture's size.
What is found in `--work` already is used again. `--without`: types that dsr may not take, where they would flatter it,
as Q4_1 does when the source was itself made from a Q4_1 file.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path

from common import Engine, peer

from dsr.loading.load import load
from dsr.loading.options import LoadOptions
from dsr.models import library
from quant.measure import imatrix
from quant.measure.calibrate import collect
from quant.measure.chunks import ChunkOptions, Text
from quant.measure.divergence import Base
from quant.sources.source import GgufSource
from quant.to_a_size.allocate import plan_of_size
from quant.to_a_size.sensitivity import measure
from quant.to_a_size.type_errors import measure_errors
from quant.write.execute import quantize
from runtime.base.events import Event, Progress
from runtime.base.run import Run
from runtime.base.types import Message, SamplingParams
from runtime.llama import Scorer


def thirds(files: Sequence[Path], marker: str) -> tuple[Text, Text, Text]:
    parts: tuple[list[list[str]], ...] = ([], [], [])
    for file in sorted(files):
        pieces = [marker + piece for piece in file.read_text(encoding="utf-8").split(marker) if piece.strip()]
        for number, part in enumerate(parts):
            part.append(pieces[len(pieces) * number // 3 : len(pieces) * (number + 1) // 3])
    first, second, third = ("".join(chain(*zip_longest(*part, fillvalue=""))) for part in parts)
    return Text("first third", first), Text("second third", second), Text("last third", third)


def accuracy(model: Path, problems: Sequence[dict[str, str]]) -> float:
    with load(library.find(str(model)), LoadOptions(slots=8)) as model_open:
        params = SamplingParams(temperature=0, max_tokens=400)
        prompts = [[Message("user", problem["question"])] for problem in problems]
        requests = [replace(model_open.request(each, params), sample=n) for n, each in enumerate(prompts)]
        answers = [completion.answer for completion in Engine(model_open.backend).generate(requests)]
    found = (re.findall(r"\\boxed\{([^}]*)\}", answer) for answer in answers)
    right = sum(bool(f) and f[-1].strip() == p["answer"] for f, p in zip(found, problems, strict=True))
    return 100 * right / len(problems)


def tell(event: Event) -> None:
    if isinstance(event, Progress) and event.unit == "steps":
        print(f"  {event.job} {event.item}: {event.done} of {event.total}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path, nargs="+")
    parser.add_argument("--mixtures", nargs="+", default=["Q2_K", "Q3_K_M", "Q4_K_M"])
    parser.add_argument("--work", type=Path)
    parser.add_argument("--groups", type=int, default=64)
    parser.add_argument("--chunks", type=int, default=10)
    parser.add_argument("--calibration-chunks", type=int)
    parser.add_argument("--evaluation-chunks", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--marker", default="\n\n")
    parser.add_argument("--without", nargs="*", default=[], metavar="TYPE")
    parser.add_argument("--problems", type=Path)
    parser.add_argument("--first", type=int, default=200)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = asked.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        compare(asked, work)


def compare(asked: argparse.Namespace, work: Path) -> None:
    calibration, sensitive, held_out = thirds(asked.text, asked.marker)
    run = Run(listen=tell, run=Run(threads=asked.threads))
    matrix = work / "imatrix.gguf"
    if not matrix.exists():
        found = collect(asked.model, [calibration], ChunkOptions(limit=asked.calibration_chunks), run)
        imatrix.write(matrix, found)
    read = imatrix.read(matrix)
    pairs = []
    with GgufSource(asked.model) as opened:
        source = opened.with_importance(
            {t.name: v for t in opened.tensors if (v := read.importance(t.name)) is not None}
        )
        started = time.perf_counter()
        errors = measure_errors(source, run)
        tried = time.perf_counter()
        sensitivity = measure(
            source, errors, [sensitive], work / "sensitivity", ChunkOptions(limit=asked.chunks), run,
            most_groups=asked.groups,
        )  # fmt: skip
        print(f"errors {tried - started:.0f} s, sensitivity of {len(sensitivity.groups)} groups "
              f"{time.perf_counter() - tried:.0f} s")  # fmt: skip
        allowed = {
            name: {kind: error for kind, error in each.items() if kind not in asked.without}
            for name, each in errors.items()
        }
        for name in asked.mixtures:
            theirs, ours = work / f"llama-{name}.gguf", work / f"dsr-{name}.gguf"
            command = [peer("llama-quantize"), "--imatrix", str(matrix), str(asked.model), str(theirs), name]
            subprocess.run([*command, str(asked.threads)], check=True, capture_output=True)
            started = time.perf_counter()
            fitted = plan_of_size(source, theirs.stat().st_size, allowed, sensitivity)
            took = time.perf_counter() - started
            quantize(source, fitted.plan, ours, Run(run=Run(threads=asked.threads)), force=True)
            pairs.append((name, theirs, ours, fitted, took))
    with Base() as base:
        with Scorer(asked.model, window=512, run=Run(threads=asked.threads)) as model:
            base.record(model, [held_out], ChunkOptions(limit=asked.evaluation_chunks))
        for name, theirs, ours, fitted, took in pairs:
            reports = []
            for path in (theirs, ours):
                with Scorer(path, window=512, run=Run(threads=asked.threads)) as model:
                    reports.append(base.compare(model))
            a, b = reports
            print(
                f"{name}: {theirs.stat().st_size} and {ours.stat().st_size} bytes; KLD llama.cpp {a.kld}, dsr {b.kld}"
            )
            print(
                f"  ratio {b.kld.value / a.kld.value:.3f}; predicted {fitted.predicted_kld:.4f}, gap {fitted.gap:.1e}"
            )
            print(f"  planned in {took:.3f} s; same top token {a.same_top} and {b.same_top}")
    if asked.problems:
        lines = asked.problems.read_text(encoding="utf-8").splitlines()[: asked.first]
        problems = [json.loads(line) for line in lines]
        name, theirs, ours, *_ = pairs[0]
        print(f"{len(problems)} problems, greedy, at the size of {name}:")
        for path in (theirs, ours, asked.model):
            print(f"  {path.name} {accuracy(path, problems):.1f} %", flush=True)


main()
