"""Real servers in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from runtime.nodes.server import free_port

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Live:
    """A server in a process of its own."""

    process: subprocess.Popen[bytes]
    port: int
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, **{"timeout": 60, **options})


def start_server(
    *options: str, log: Path, home: Path, models: Sequence[str] = ("nano",), scheme: str = "http", **env: str
) -> Live:
    """`dsr serve` with `models` on a free port, once it answers; `log` gets what it says. End it with `stop_server`."""
    port = free_port("127.0.0.1")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DSR_", "HF_"))}
    command = [sys.executable, "-m", "dsr", "serve", *models, "--port", str(port), "-t", "1", *options]
    with log.open("wb") as said:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**kept, "PYTHONPATH": str(ROOT), "DSR_HOME": str(home), "HF_HOME": str(home / "hf"), **env},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    live = Live(process, port, scheme)
    until = time.monotonic() + 60
    while True:
        try:
            httpx2.get(f"{live.url}/health", timeout=5, trust_env=False, verify=False)
        except httpx2.TransportError:
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        else:
            return live


def stop_server(live: Live) -> None:
    live.process.terminate()
    try:
        live.process.wait(30)
    finally:
        live.process.kill()
