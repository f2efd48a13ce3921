"""Quantize the same file with dsr and with `llama-quantize`: the same bytes, and how long both take.

    python tests/peers/quantize.py MODEL.gguf [--imatrix FILE] [--types q4_k_m,q8_0] [--pairs N] [--threads N]

Both run as processes of their own, in turns, and write to the same disk. A type that llama-quantize refuses without an
importance matrix is left out. Exits with 1 when a file differs in a single byte, metadata and order included.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runtime.base.run import Run

TYPES = (
    "q2_k,q3_k_s,q3_k_m,q3_k_l,q4_k_s,q4_k_m,q5_k_s,q5_k_m,q6_k,q8_0,iq4_xs,iq3_xxs,iq2_xxs,iq1_s,"
    "q4_0,q4_1,q5_0,q5_1,iq4_nl,iq3_xs,iq3_s,iq3_m,iq2_xs,iq2_s,iq2_m,iq1_m,f16,bf16,f32"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--imatrix", type=Path)
    parser.add_argument("--types", default=TYPES)
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--ours", metavar="OUT", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        quantize(options.model, options.ours, options.types, options.imatrix, options.threads)
        return
    differing = 0
    for name in options.types.split(","):
        differing += not compare(options, name)
    print(f"{differing} files differ")
    sys.exit(bool(differing))


def compare(options: argparse.Namespace, name: str) -> bool:
    """Whether both write the same file; prints the times of all pairs."""
    from tests.peers.common import peer, report  # it imports the engine, which would count as time of quantizing

    given = ["--imatrix", str(options.imatrix)] if options.imatrix else []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        theirs, ours = Path(folder) / "theirs.gguf", Path(folder) / "ours.gguf"
        their_command = [peer("llama-quantize"), "--allow-requantize", *given]
        their_command += [str(options.model), str(theirs), name, str(options.threads)]
        our_command = [sys.executable, __file__, str(options.model), "--ours", str(ours), "--types", name, *given]
        our_command += ["--threads", str(options.threads)]
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(options.pairs):
            ours.unlink(missing_ok=True)
            theirs.unlink(missing_ok=True)
            for command, seconds in zip((our_command, their_command), times, strict=True):
                started = time.perf_counter()
                done = subprocess.run(command, capture_output=True, text=True, errors="replace")
                seconds.append(time.perf_counter() - started)
                if done.returncode and command is their_command:
                    print(f"{name}: refused by llama-quantize (needs an importance matrix)")
                    return True
                if done.returncode and "needs an importance matrix" not in done.stderr:
                    sys.exit(done.stderr)
        same = filecmp.cmp(ours, theirs, shallow=False)
        print(f"{name}: {'identical' if same else 'DIFFERENT'}, {ours.stat().st_size:,} bytes")
        report(name, *times, "seconds")
        return same


def quantize(model: Path, out: Path, name: str, imatrix_file: Path | None, threads: int) -> None:
    from quant.measure import imatrix
    from quant.plan import imatrix_entries
    from quant.recipe.mixtures import standard
    from quant.sources.source import GgufSource
    from quant.write import execute

    with GgufSource(model) as opened:
        source = opened
        if imatrix_file:
            matrix = imatrix.read(imatrix_file)
            weights = {name: values for name in matrix.entries if (values := matrix.importance(name)) is not None}
            entries = imatrix_entries(str(imatrix_file), matrix.datasets, len(weights), matrix.chunk_count)
            source = opened.with_importance(weights, entries)
        execute.quantize(source, standard(name, source), out, Run(threads=threads), allow_requantize=True)


if __name__ == "__main__":
    main()
