"""Kill quantizing at random moments, let it finish, and look at what is there after every kill.

    python tests/peers/killed_quantize.py MODEL.gguf [--type q4_k_m] [--kills 50] [--split BYTES] [--seed N]

A run that nobody disturbs gives the reference and its length. Then the same work is started again and again and ended
by SIGKILL after a random part of that length. After every kill nothing may stand under a final name but complete files
with the reference's bytes. A run that finishes before it is killed is compared, removed, and the next begins anew.
"""

from __future__ import annotations

import argparse
import random
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
    parser.add_argument("--split", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.out:
        quantize(options.model, options.out, options.type, options.split)
        return
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        (Path(folder) / "reference").mkdir()
        (Path(folder) / "killed").mkdir()
        started = time.perf_counter()
        if start(options, Path(folder) / "reference").wait():
            sys.exit("the undisturbed run failed")
        length = time.perf_counter() - started
        wanted = {path.name: path.read_bytes() for path in (Path(folder) / "reference").iterdir()}
        place = Path(folder) / "killed"
        kills = finished = resumed = wrong = 0
        while kills < options.kills:
            left = any(place.glob("*.journal"))
            child = start(options, place)
            time.sleep(chance.uniform(0, length))
            over = child.poll() is not None
            child.kill()
            child.wait()
            kills += not over
            wrong += over and child.returncode != 0
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
            else:
                wrong += over
        last = start(options, place).wait()
        there = {path.name: path.read_bytes() for path in place.iterdir()}
        wrong += last != 0 or there != wanted
    print(
        f"seed {options.seed}: {kills} kills within {length:.1f} s each, {finished + 1} runs finished, "
        f"{resumed} of them after kills, {len(wanted)} files each; wrong: {wrong}"
    )
    sys.exit(bool(wrong))


def start(options: argparse.Namespace, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, str(options.model), "--out", str(folder / "out.gguf"), "--type", options.type]
    return subprocess.Popen([*command, *(["--split", str(options.split)] if options.split else [])])


def quantize(model: Path, out: Path, name: str, split: int | None) -> None:
    from quant.recipe.mixtures import standard
    from quant.sources.source import GgufSource
    from quant.write import execute
    from runtime.base.run import Run

    with GgufSource(model) as source:
        plan = standard(name, source)
        execute.quantize(source, plan, out, Run(threads=2), allow_requantize=True, split_max_size=split)


if __name__ == "__main__":
    main()
