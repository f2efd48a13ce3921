"""Compare `dsr pull` with `hf download` against a hub that limits each connection.

    python tests/peers/pull_speed.py HF [--mb 400] [--rate 5] [--rounds 3] [--files 1 8]

HF is the `hf` command of an environment with `huggingface_hub[hf_xet]`. The hub of tests/hub_server.py runs on loopback
in a process of its own and sends at most `--rate` MB/s over each connection. Both commands pull the same random bytes,
as one file and as several, in turns, each into an empty cache. A time is that of the whole command. The script prints
the times, the ratio of the medians, and the peak memory of dsr. It exits with 1 if dsr reaches less than 0.95 of the
speed of `hf`, or if a file is wrong. `hf` uses Xet only with Xet's own servers: here it downloads over HTTP, its other
transfer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.gguf_writer import gguf, llama_metadata, llama_tensors
from tests.hub_server import HubServer

ROOT = Path(__file__).resolve().parents[2]
LEAST = 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("hf", type=Path)
    parser.add_argument("--mb", type=int, default=400, help="of all files together")
    parser.add_argument("--rate", type=float, default=5.0, help="MB/s of one connection")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--serve", nargs=3, metavar=("MB", "RATE", "FILES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(int(options.serve[0]), float(options.serve[1]), int(options.serve[2]))
        return
    good = True
    for count in options.files:
        good &= compare(options.hf, options.mb, options.rate, count, options.rounds)
    sys.exit(not good)


def contents(megabytes: int, count: int) -> dict[str, bytes]:
    """`count` parts of a GGUF model, or one file, filled with random bytes."""
    size = megabytes * 1_000_000 // count

    def noise(seed: int) -> bytes:
        chance = random.Random(seed)
        return b"".join(chance.randbytes(min(1 << 20, size - at)) for at in range(0, size, 1 << 20))

    if count == 1:
        return {"m-Q8_0.gguf": gguf(llama_metadata(), llama_tensors()) + noise(0)}
    return {f"part-{number}.bin.gz": noise(number) for number in range(count)}


def serve(megabytes: int, rate: float, count: int) -> None:
    """Be the hub until stdin ends."""
    with HubServer() as hub:
        files = contents(megabytes, count)
        repo = hub.add("org/speed", files, lfs=set(files))
        hub.bytes_per_second = int(rate * 1_000_000)
        print(json.dumps([hub.url, {name: repo.etag(name) for name in files}]), flush=True)
        sys.stdin.read()


def compare(hf: Path, megabytes: int, rate: float, count: int, rounds: int) -> bool:
    serving = [sys.executable, __file__, "-", "--serve", str(megabytes), str(rate), str(count)]
    with subprocess.Popen(serving, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stdin is not None
        endpoint, expected = json.loads(server.stdout.readline())
        commands = {
            "dsr": [sys.executable, "-m", "dsr", "pull", "org/speed", "--include", "*", "--quiet"],
            "hf": [str(hf), "download", "org/speed", "--quiet"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        peak, right = 0, True
        for turn in range(rounds):
            for name in commands if turn % 2 == 0 else reversed(commands):
                seconds, memory, same = pull(commands[name], endpoint, expected)
                times[name].append(seconds)
                right &= same
                peak = max(peak, memory) if name == "dsr" else peak
                print(f"  {name:4} {seconds:6.2f} s, {megabytes / seconds:5.1f} MB/s{'' if same else ', WRONG BYTES'}")
        server.stdin.close()
    ours, theirs = (statistics.median(times[name]) for name in ("dsr", "hf"))
    ratio = theirs / ours
    print(
        f"{count} file{'s' * (count > 1)} of {megabytes} MB together, {rate:g} MB/s a connection: dsr {ours:.2f} s, "
        f"hf {theirs:.2f} s, {ratio:.2f} of its speed; dsr's peak memory {peak / 1024:.0f} MiB"
    )
    return right and ratio >= LEAST


def digest_of(path: Path) -> str:
    """Read in blocks: a child's peak memory begins with that of this process."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pull(command: list[str], endpoint: str, expected: dict[str, str]) -> tuple[float, int, bool]:
    """Seconds, peak memory in KiB, and whether all files are right."""
    with tempfile.TemporaryDirectory() as home:
        environment = {
            **os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": home, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1",
            "HF_HUB_DISABLE_TELEMETRY": "1", "DSR_HOME": str(Path(home) / "dsr"),
        }  # fmt: skip
        begun = time.monotonic()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begun
        found = {path.name: path for path in Path(home).glob("hub/models--org--speed/snapshots/*/*")}
        same = status == 0 and all(
            name in found and digest_of(found[name]) == digest for name, digest in expected.items()
        )
        return seconds, usage.ru_maxrss, same


if __name__ == "__main__":
    main()
