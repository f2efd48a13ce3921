"""Kill `dsr pull` ten times at random moments, let it finish, and count what that cost.

    python tests/peers/killed_pull.py FILE.gguf [--seed N] [--kills N] [--keep FOLDER]

The real command pulls a real file from the hub of tests/hub_server.py on loopback, slowed down so that the file takes
48 seconds over one connection, and is ended by SIGKILL between its start and six seconds later. Exits with 1 when the
pull does not complete, when its bytes are not those of the file, or when a kill made more than a tenth of it come
twice.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.hub_server import HubServer

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 48  # over one connection; dsr uses up to eight
LONGEST_LIFE = 6.0
REFERENCE = "org/killed-GGUF:Q4_1"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--keep", type=Path, help="an HF_HOME to pull into, instead of a temporary one")
    options = parser.parse_args()
    data = options.file.read_bytes()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary, HubServer() as hub:
        home = options.keep or Path(temporary)
        hub.add("org/killed-GGUF", {"killed-Q4_1.gguf": data})
        hub.bytes_per_second = len(data) // SECONDS
        environment = {
            **os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"
        }  # fmt: skip
        killed = 0
        for attempt in range(1, options.kills + 1):
            before, life = hub.served, chance.uniform(0, LONGEST_LIFE)
            pull = start(environment)
            time.sleep(life)
            finished = pull.poll() is not None
            pull.kill()
            pull.wait()
            killed += not finished
            print(
                f"  {attempt:2}: {'finished before' if finished else 'killed after'} {life:.2f} s,"
                f" {hub.served - before:,} bytes came, {kept(home):,} are kept"
            )
        hub.bytes_per_second = None
        last = start(environment)
        printed, _ = last.communicate()
        place = Path(printed.decode().strip() or home)
        same = place.is_file() and hashlib.sha256(place.read_bytes()).digest() == hashlib.sha256(data).digest()
        print(
            f"seed {options.seed}: {killed} of {options.kills} killed, then exit code {last.returncode};"
            f" {hub.served:,} bytes served for a file of {len(data):,} ({hub.served / len(data):.3f} times);"
            f" SHA-256 {'ok' if same else 'WRONG'}; left over: {leftovers(home) or 'nothing'}"
        )
    if last.returncode or not same or hub.served > 1.1 * len(data):
        sys.exit(1)


def start(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "dsr", "pull", REFERENCE, "--quiet"], env=environment, stdout=subprocess.PIPE
    )


def kept(home: Path) -> int:
    """Bytes in the cache, of a partial or of the whole file."""
    return sum(blob.stat().st_blocks * 512 for blob in home.glob("hub/models--*/blobs/*"))


def leftovers(home: Path) -> list[str]:
    """What should not be there after a pull: anything but one blob, its link and the note of its revision."""
    files = [path for path in home.glob("hub/models--*/**/*") if path.is_file() or path.is_symlink()]
    expected = ("blobs/", "snapshots/", "refs/main")
    names = [str(path.relative_to(home / "hub" / "models--org--killed-GGUF")) for path in files]
    return [name for name in names if not name.startswith(expected) or "incomplete" in name or "/." in name]


if __name__ == "__main__":
    main()
