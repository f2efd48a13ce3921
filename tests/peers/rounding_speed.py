"""How long does rounding that corrects its errors take, and how much memory?

    python tests/peers/rounding_speed.py types [--columns 256,1024,4096] [--types Q3_K,Q4_K]
    python tests/peers/rounding_speed.py layers FOLDER [--threads N] [--recipe q3_k_m] [--collecting SECONDS]
    python tests/peers/rounding_speed.py files MODEL-F16.gguf FOLDER [--pairs N] [--threads N] [--recipe q3_k_m]

`types`: processor time per weight of the engine's quantizer with importance, and how many times as long quantizing and
rounding take, of one thread.
`layers`: two layers in the shape of Qwen2.5-7B, random F16 weights and random moments, are written to FOLDER (6 GB),
then quantized as whole processes. Their time counts 14 times; the output matrix and collecting are added: rounding a
matrix takes as long per weight as another with the same columns. `--collecting` is what `dsr imatrix --moments` took,
or was predicted to take, for all 28 layers.
`files`: whole processes in turns, on the same disk: llama-quantize, and dsr plain, fast and best, all with the same
importance. Moments are collected into FOLDER/moments before, and are not counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from quant.gguf.writer import f32, layout, text, u32
from quant.measure import imatrix
from quant.plan import EFFORTS, Effort
from quant.recipe.mixtures import standard
from quant.round.grids import TYPES, grid_of
from quant.round.moment import Moment
from quant.round.moments import Part, begin, read_complete, source_digest
from quant.round.plan import plan_rounding
from quant.round.rounding import round_rows
from quant.sources.source import GgufSource
from quant.write import execute
from runtime.base.files import write_stream
from runtime.base.run import Run
from runtime.llama import quantize_rows
from runtime.llama.blas import one_blas_thread
from tests.peers.common import peer
from tests.peers.from_disk_models import Tensor, _pieces

HIDDEN, INNER, KEYS, LAYERS, VOCABULARY = 3584, 18944, 512, 28, 152064
MEASURED = 2  # layers
INPUTS = 4096  # of each random moment; fewer than the columns of a wide matrix, as in a short text


def inputs_of(columns: int, count: int, seed: int) -> np.ndarray:
    """Random inputs whose variance falls as 1/k along random directions, and whose columns differ in size."""
    random = np.random.default_rng(seed)
    kept = min(columns, 1024)
    directions = random.standard_normal((kept, columns), dtype=np.float32) / np.sqrt(columns)
    strengths = (1 / np.sqrt(np.arange(1, kept + 1))).astype(np.float32)
    inputs = (random.standard_normal((count, kept), dtype=np.float32) * strengths) @ directions
    inputs += 0.1 * np.std(inputs) * random.standard_normal(inputs.shape, dtype=np.float32)
    return inputs * np.exp(0.5 * random.standard_normal(columns, dtype=np.float32))


def types(names: list[str], columns: list[int]) -> None:
    print("columns  type     factor  quantizer      fast           best")
    with one_blas_thread():
        for count in columns:
            inputs = inputs_of(count, 2 * count, 1)
            moment = Moment(inputs.T @ inputs, len(inputs))
            importance = np.ascontiguousarray(np.diagonal(moment.damped))
            for name in names:
                grid = grid_of(name)
                assert grid is not None
                if count % grid.kind.block:
                    continue
                rows = max((1 << 21) // count, 1024)
                weights = np.random.default_rng(2).standard_normal((rows, count), dtype=np.float32) * np.float32(0.02)
                begun = time.thread_time()
                moment.factor(grid.vector)
                factored = time.thread_time() - begun
                begun = time.thread_time()
                stored = quantize_rows(grid.kind.number, weights, importance)
                plain = time.thread_time() - begun
                found = []
                for effort in ("fast", "best"):
                    begun = time.thread_time()
                    round_rows(weights, stored, name, moment, effort)
                    spent = time.thread_time() - begun
                    found.append(f"{spent / weights.size * 1e9:5.0f} ns, {1 + spent / plain:4.1f} x")
                each = f"{plain / weights.size * 1e9:5.1f} ns"
                print(f"{count:7d}  {name:7s} {factored:6.2f} s  {each:9s}  {'  '.join(found)}", flush=True)


def layers(folder: Path, recipe: str, threads: int, collecting: float | None) -> None:
    folder.mkdir(exist_ok=True)
    model = folder / "two-layers.gguf"
    if not (folder / "moments" / "moments.json").exists():
        make_layers(model, folder / "moments")
    with one_blas_thread():
        output = output_seconds(recipe)
    for effort in EFFORTS:
        out = folder / f"{effort}.gguf"
        spent = measured([*own("--write", out), str(model), str(folder), "--effort", effort, *options(recipe, threads)])
        whole = spent.wall * LAYERS / MEASURED + output[effort] / threads + (collecting or 0)
        told = "collecting not counted" if collecting is None else f"{collecting:.0f} s of collecting counted"
        print(
            f"{recipe} {effort}, {threads} threads: two layers {spent.wall:.0f} s, "
            f"{spent.processor:.0f} s of processor time, peak {spent.peak / 2**30:.2f} GiB; "
            f"all {LAYERS} and the output {whole / 3600:.2f} h ({told})",
            flush=True,
        )
        out.unlink()


def make_layers(path: Path, moments: Path) -> None:
    """Write random weights and random moments of two layers."""
    random = np.random.default_rng(0)
    inputs = {"attn_q attn_k attn_v": HIDDEN, "attn_output": HIDDEN, "ffn_gate ffn_up": HIDDEN, "ffn_down": INNER}
    heights = {"attn_q": HIDDEN, "attn_k": KEYS, "attn_v": KEYS, "attn_output": HIDDEN, "ffn_gate": INNER}
    heights |= {"ffn_up": INNER, "ffn_down": HIDDEN}

    def matrix(columns: int, rows: int) -> Iterator[np.ndarray]:
        for first in range(0, rows, 1024):
            values = random.standard_normal((min(1024, rows - first), columns), dtype=np.float32)
            yield (values * np.float32(0.02)).astype(np.float16).view(np.uint8)

    def tensor(name: str, columns: int, rows: int) -> Tensor:
        return Tensor(name, (columns, rows), "F16", lambda: matrix(columns, rows))

    def norm(name: str) -> Tensor:
        return Tensor(name, (HIDDEN,), "F32", lambda: iter([np.ones(HIDDEN, np.float32).view(np.uint8)]))

    names = {f"blk.{layer}.{group}": (layer, group) for layer in range(MEASURED) for group in inputs}
    tensors = [tensor("token_embd.weight", HIDDEN, 256), norm("output_norm.weight")]
    for layer, group in names.values():
        columns = inputs[group]
        tensors += [tensor(f"blk.{layer}.{each}.weight", columns, heights[each]) for each in group.split()]
    tensors += [norm(f"blk.{layer}.{each}_norm.weight") for layer in range(MEASURED) for each in ("attn", "ffn")]
    entries = [
        text("general.architecture", "qwen2"),
        u32("qwen2.context_length", 4096),
        u32("qwen2.embedding_length", HIDDEN),
        u32("qwen2.block_count", MEASURED),
        u32("qwen2.feed_forward_length", INNER),
        u32("qwen2.attention.head_count", 28),
        u32("qwen2.attention.head_count_kv", 4),
        f32("qwen2.attention.layer_norm_rms_epsilon", 1e-6),
        u32("qwen2.vocab_size", 256),
        text("tokenizer.ggml.model", "no_vocab"),
    ]
    plan = layout(entries, tensors)
    write_stream(path, _pieces(plan, tensors))
    with GgufSource(path) as source:
        folder = begin(moments, source_digest(source), "random", INPUTS, ("random",))
    for number, (layer, group) in enumerate(names.values()):
        values = inputs_of(inputs[group], INPUTS, number)
        sums = np.empty((1, inputs[group], inputs[group]), np.float32)
        for first in range(0, inputs[group], 1024):  # OpenBLAS 0.3.31 crashes in the whole product of 18,944 columns
            sums[0, first : first + 1024] = values[:, first : first + 1024].T @ values
        weights = tuple(f"blk.{layer}.{each}.weight" for each in group.split())
        folder.add(Part(f"{number}.npy", weights, inputs[group], 0, (INPUTS,)), sums)
    folder.finish()


def output_seconds(recipe: str) -> dict[Effort, float]:
    """Processor time of the output matrix, which such a recipe stores in Q6_K: more rows of the same columns."""
    values = inputs_of(HIDDEN, 2 * HIDDEN, 7)
    moment = Moment(values.T @ values, len(values))
    weights = np.random.default_rng(8).standard_normal((1024, HIDDEN), dtype=np.float32)
    kind = grid_of("Q6_K")
    assert kind is not None
    moment.factor(1)
    found: dict[Effort, float] = {}
    for effort in EFFORTS:
        begun = time.thread_time()
        stored = quantize_rows(kind.kind.number, weights, np.ascontiguousarray(np.diagonal(moment.damped)))
        if effort != "off":
            round_rows(weights, stored, "Q6_K", moment, effort)
        found[effort] = (time.thread_time() - begun) * VOCABULARY / len(weights)
    return found


def files(model: Path, folder: Path, recipe: str, threads: int, pairs: int) -> None:
    from dsr.quantize.moments import collect, importance_of

    folder.mkdir(exist_ok=True)
    with GgufSource(model) as source:
        moments = collect(model, source_digest(source), (), None, folder / "moments", Run(threads=threads))
    matrix = folder / "imatrix.gguf"
    imatrix.write(matrix, importance_of(moments))
    theirs = folder / "theirs.gguf"
    commands = {"llama-quantize": [peer("llama-quantize"), "--imatrix", str(matrix), str(model), str(theirs)]}
    commands["llama-quantize"] += [recipe, str(threads)]
    for effort in EFFORTS:
        out = folder / f"{effort}.gguf"
        line = [*own("--write", out), str(model), str(folder), "--effort", effort, *options(recipe, threads)]
        commands["dsr, plain" if effort == "off" else f"dsr, {effort}"] = line
    spent: dict[str, list[Spent]] = {name: [] for name in commands}
    for _ in range(pairs):
        for name, command in commands.items():
            for old in (theirs, *(folder / f"{effort}.gguf" for effort in EFFORTS)):
                old.unlink(missing_ok=True)
            spent[name].append(measured(command))
    base = [each.wall for each in spent["llama-quantize"]]
    for name, runs in spent.items():
        ratios = [run.wall / other for run, other in zip(runs, base, strict=True)]
        wall, processor = (
            statistics.median(values) for values in zip(*((r.wall, r.processor) for r in runs), strict=True)
        )
        print(
            f"{recipe} {name}: {wall:.2f} s, {processor:.2f} s of processor time, peak "
            f"{max(run.peak for run in runs) / 2**20:.0f} MiB; {statistics.median(ratios):.3f} of llama-quantize's "
            f"({min(ratios):.3f} to {max(ratios):.3f})"
        )


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds, seconds of processor time, and the largest resident size in bytes (files that are mapped included)."""

    wall: float
    processor: float
    peak: int


def measured(command: list[str]) -> Spent:
    begun = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert child.stderr is not None
    errors = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(errors.decode(errors="replace"))
    return Spent(time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def own(*arguments: object) -> list[str]:
    return [sys.executable, __file__, *map(str, arguments)]


def options(recipe: str, threads: int) -> list[str]:
    return ["--recipe", recipe, "--threads", str(threads)]


def write(model: Path, folder: Path, out: Path, recipe: str, effort: Effort, threads: int) -> None:
    """What a child does: quantize with the importance and, unless `effort` is "off", the moments in the folder."""
    from dsr.quantize.decide import weighted
    from dsr.quantize.moments import importance_of

    with GgufSource(model) as opened:
        if effort == "off" and (folder / "imatrix.gguf").exists():
            source, _ = weighted(opened, imatrix.read(folder / "imatrix.gguf"), folder)
            execute.quantize(source, standard(recipe, source), out, Run(threads=threads))
            return
        moments = read_complete(folder / "moments")
        source, _ = weighted(opened, importance_of(moments), folder)
        plan = plan_rounding(standard(recipe, source), effort, datasets=(), weights=moments.weights)
        execute.write(execute.prepare(source, plan, out, moments=moments), Run(threads=threads))


def main() -> None:
    if sys.argv[1] == "--write":
        parser = argparse.ArgumentParser()
        for name in ("out", "model", "folder"):
            parser.add_argument(name, type=Path)
        parser.add_argument("--effort", choices=EFFORTS)
        parser.add_argument("--recipe")
        parser.add_argument("--threads", type=int)
        asked = parser.parse_args(sys.argv[2:])
        write(asked.model, asked.folder, asked.out, asked.recipe, asked.effort, asked.threads)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    by_type = commands.add_parser("types")
    by_type.add_argument("--types", default=",".join(TYPES))
    by_type.add_argument("--columns", default="256,576,1024,2048,4096")
    of_layers, of_files = commands.add_parser("layers"), commands.add_parser("files")
    of_files.add_argument("model", type=Path)
    of_files.add_argument("--pairs", type=int, default=5)
    for each in (of_layers, of_files):
        each.add_argument("folder", type=Path)
        each.add_argument("--recipe", default="q3_k_m")
        each.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    of_layers.add_argument("--collecting", type=float)
    asked = parser.parse_args()
    if asked.command == "types":
        types(asked.types.split(","), [int(count) for count in asked.columns.split(",")])
    elif asked.command == "layers":
        layers(asked.folder, asked.recipe, asked.threads, asked.collecting)
    else:
        files(asked.model, asked.folder, asked.recipe, asked.threads, asked.pairs)


if __name__ == "__main__":
    main()
