"""Kill a node in the middle of an answer, twenty times, and count how often the answer came out the same.

    python tests/peers/killed_node.py [--seed N] [--kills N] [--stops N]

`dsr chat --nodes A,B --retry` with the embedded model, one worker of ours (`dsr node serve` runs the same) and one of
llama.cpp's own `ggml-rpc-server`, each behind a relay of 2 ms. In turn one of the two ends by SIGKILL at a random place
of the thought; in `--stops` further runs it is halted by SIGSTOP. Exits with 1 when an answer differs from the one
that a single process gives, or when the node was not named.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests import node_servers
from tests.peers.common import peer

ROOT = Path(__file__).resolve().parents[2]
QUESTION = "What is 347 + 586?"
LONGEST = 90  # characters of the thought, which has about a hundred


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--stops", type=int, default=2)
    options = parser.parse_args()
    theirs = [peer("ggml-rpc-server"), "-H", "{host}", "-p", "{port}", "-t", "1"]
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "DSR_HOME": home, "PYTHONPATH": str(ROOT)}
        undisturbed, _ = start([], environment).communicate()
        survived = {"SIGKILL": 0, "SIGSTOP": 0}
        numbers = {"SIGKILL": options.kills, "SIGSTOP": options.stops}
        for attempt in range(options.kills + options.stops):
            how = signal.SIGKILL if attempt < options.kills else signal.SIGSTOP
            same, said, seconds = disturbed(
                theirs, attempt % 2, how, chance.randint(1, LONGEST), undisturbed, environment
            )
            survived[how.name] += same
            print(
                f"  {attempt + 1:2}: {how.name} of {('ours', 'ggml-rpc-server')[attempt % 2]}, {seconds:.1f} s: {said}"
            )
    for name, count in survived.items():
        print(f"seed {options.seed}: {name}: {count} of {numbers[name]} answers the same as undisturbed")
    if survived != numbers:
        sys.exit(1)


def disturbed(
    theirs: list[str], which: int, how: signal.Signals, place: int, undisturbed: bytes, environment: dict[str, str]
) -> tuple[bool, str, float]:
    """Whether the answer was the same and the node was named, what was said, and the seconds after the kill."""
    with ExitStack() as stack:
        workers = [stack.enter_context(node_servers.worker()), stack.enter_context(node_servers.worker(theirs))]
        ways = [stack.enter_context(node_servers.relay(address, delay=0.002)) for _, address in workers]
        chat = start(["--nodes", ",".join(f"{way}=2" for way in ways), "--retry"], environment)
        assert chat.stderr is not None
        said = b""
        while len(said.partition(b"Add by")[2]) < place and (more := os.read(chat.stderr.fileno(), 64)):
            said += more
        started = time.monotonic()
        os.kill(workers[which][0].pid, how)
        answer, rest = chat.communicate()
        lines = [line for line in (said + rest).decode().splitlines() if "continuing without this node" in line]
        same = chat.returncode == 0 and answer == undisturbed and len(lines) == 1 and str(ways[which]) in lines[0]
        return same, "; ".join(lines) or "nothing was said", time.monotonic() - started


def start(more: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dsr", "chat", "--temp", "0", "--no-log", "--threads", "1", *more, QUESTION]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


if __name__ == "__main__":
    main()
