"""Kill quantizing at random moments, let it finish, and look at what is there after every kill.

    python tests/peers/killed_quantize.py MODEL.gguf [--type q4_k_m] [--round best] [--kills 50] [--split BYTES]
        [--tokens N] [--seed N]

A run that nobody disturbs gives the reference and its length. Then the same work is started again and again and ended
by SIGKILL after a random part of that length. After every kill nothing may stand under a final name but complete files
with the reference's bytes. A run that finishes before it is killed is compared, removed, and the next begins anew.
With `--round`, a run also collects the second moments of the built-in text (or of its first tokens), in a folder that
is removed with the finished files.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--type", default="q4_k_m")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--round", choices=("fast", "best"))
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--split", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--moments", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.out:
        quantize(options)
        return
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        (Path(folder) / "reference").mkdir()
        (Path(folder) / "killed").mkdir()
        moments = Path(folder) / "moments"
        started = time.perf_counter()
        if start(options, Path(folder) / "reference", moments).wait():
            sys.exit("the undisturbed run failed")
        length = time.perf_counter() - started
        shutil.rmtree(moments, ignore_errors=True)
        wanted = {path.name: path.read_bytes() for path in (Path(folder) / "reference").iterdir()}
        place = Path(folder) / "killed"
        kills = finished = resumed = wrong = collecting = 0
        while kills < options.kills:
            left = any(place.glob("*.journal"))
            child = start(options, place, moments)
            time.sleep(chance.uniform(0, length))
            over = child.poll() is not None
            child.kill()
            child.wait()
            kills += not over
            wrong += over and child.returncode != 0
            collecting += not over and bool(options.round) and not any(place.iterdir())
            there = {path.name: path.read_bytes() for path in place.iterdir()}
            files = {name: data for name, data in there.items() if name.endswith(".gguf")}
            wrong += any(wanted[name] != data for name, data in files.items())
            # Readers start from the first file, so it must not be there before the others.
            wrong += min(wanted) in files and files != wanted
            if there == wanted:
                finished += 1
                resumed += left
                for path in place.iterdir():
                    path.unlink()
                shutil.rmtree(moments, ignore_errors=True)
            else:
                wrong += over
        last = start(options, place, moments).wait()
        there = {path.name: path.read_bytes() for path in place.iterdir()}
        wrong += last != 0 or there != wanted
    print(
        f"seed {options.seed}: {kills} kills within {length:.1f} s each, {finished + 1} runs finished, "
        f"{resumed} of them after kills, {len(wanted)} files each"
        + (f"; {collecting} kills before a file was begun" if options.round else "")
        + f"; wrong: {wrong}"
    )
    sys.exit(bool(wrong))


def start(options: argparse.Namespace, folder: Path, moments: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, str(options.model), "--out", str(folder / "out.gguf"), "--type", options.type]
    if options.split:
        command += ["--split", str(options.split)]
    if options.round:
        command += ["--round", options.round, "--moments", str(moments)]
    if options.tokens:
        command += ["--tokens", str(options.tokens)]
    return subprocess.Popen(command)


def quantize(options: argparse.Namespace) -> None:
    from dsr.quantize.decide import weighted
    from dsr.quantize.moments import collect, importance_of
    from quant.recipe.mixtures import standard
    from quant.round.moments import source_digest
    from quant.round.plan import plan_rounding
    from quant.sources.source import GgufSource
    from quant.write import execute
    from runtime.base.run import Run

    run = Run(threads=2)
    with GgufSource(options.model) as opened:
        if not options.round:
            plan = standard(options.type, opened)
            execute.quantize(opened, plan, options.out, run, allow_requantize=True, split_max_size=options.split)
            return
        moments = collect(options.model, source_digest(opened), (), options.tokens, options.moments, run)
        source, _ = weighted(opened, importance_of(moments), moments.folder)
        plan = plan_rounding(standard(options.type, source), options.round, datasets=(), weights=moments.weights)
        job = execute.prepare(
            source, plan, options.out, allow_requantize=True, split_max_size=options.split, moments=moments
        )
        execute.write(job, run)


if __name__ == "__main__":
    main()
