"""The first names of the catalogue with the program itself: pull, show, plan and chat, from a hub on loopback.

    python tests/peers/top_names.py [--names N]

The hub has a tiny model under each name, with a template of the family's kind, whose reply the real engine draws with
the vendor's sampling. The table says for each name whether dsr told thought and answer apart, and which sampling dsr
used. Exit code 1 where a command fails or anything differs. Takes about ten seconds for each name.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dsr.models.catalog import CatalogEntry, load
from tests.hub_server import HubServer
from tests.talking_gguf import ANSWER, THOUGHT, kind_of

ROOT = Path(__file__).resolve().parents[2]


def dsr(home: Path, url: str, *arguments: str) -> dict[str, Any]:
    """The JSON object that a command prints. Raises SystemExit with its message where it fails."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DSR_", "HF_"))}
    environment = {**kept, "DSR_HOME": str(home), "HF_HOME": str(home / "hf"), "HF_ENDPOINT": url}
    done = subprocess.run(
        [sys.executable, "-m", "dsr", *arguments, "--json"], cwd=ROOT, env=environment, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"dsr {' '.join(arguments)}: exit code {done.returncode}: {done.stderr.strip()}")
    return dict(json.loads(done.stdout))


def faults(entry: CatalogEntry, home: Path, url: str) -> list[str]:
    """What differs from the catalogue."""
    name, found = entry.name, []
    before = dsr(home, url, "plan", name)
    dsr(home, url, "pull", name)
    after = dsr(home, url, "plan", name)
    if before["memory_bytes"] != after["memory_bytes"]:
        found.append(f"plan {before['memory_bytes']} before the pull, {after['memory_bytes']} after")
    shown = dsr(home, url, "show", name)
    sampling = shown["sampling"]
    told = {key: sampling.get(key) for key, value in entry.sampling.given.items() if sampling.get(key) != value}
    if told:
        found.append(f"sampling {told}")
    reply = dsr(home, url, "chat", name, "Two and two?", "--seed", "1", "-t", "1")
    # A chain of tokens cannot say a thought in channels with equal marks: see tests/talking_gguf.py.
    thought = THOUGHT if kind_of(entry).thinks and entry.family != "gpt-oss" else ""
    if (reply["thinking"].strip(), reply["answer"].strip()) != (thought, ANSWER):
        found.append(f"thought {reply['thinking']!r}, answer {reply['answer']!r}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--names", type=int, default=20)
    entries = load().entries[: parser.parse_args().names]
    wrong = 0
    with tempfile.TemporaryDirectory() as folder, HubServer() as server:
        for entry in entries:
            server.add(entry.gguf, {f"{entry.model}-Q4_K_M.gguf": kind_of(entry).model()})
            found = faults(entry, Path(folder), server.url)
            wrong += bool(found)
            given = ", ".join(f"{key} {value:g}" for key, value in entry.sampling.given.items())
            print(f"{entry.name:24} {'; '.join(found) or 'as told'}  ({given})", flush=True)
    print(f"{len(entries) - wrong} of {len(entries)} names")
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()
