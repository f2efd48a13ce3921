"""What happens to `dsr` when a model that runs from the disk loses its file or its disk, and how fast Ctrl-C answers.

    python tests/peers/from_disk_faults.py FOLDER [--only chat,stop,memory,serve,peak] [--runs 20]

Linux, for root. Makes a mixture of 740 MB with random weights in FOLDER, and runs dsr with half of that as memory.
- chat: while `dsr chat` and a vote of 4 draw, the file is cut, overwritten or replaced, or its disk fails: the model
  then lies on a loop device whose backing file is cut.
- stop: Ctrl-C while the model loads, reads a prompt of 512 tokens and draws; at full speed, and at 20 MB/s.
- memory: with too little address space, and with too little memory of its own.
- serve: the same faults while `dsr serve` streams an answer in each API; then the file is whole again.
- peak: the largest memory of `--runs` runs, beside that of `dsr plan`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.peers.from_disk_group import Limits, limited, restore_on_signals
from tests.peers.from_disk_models import Mixture, write_model

ROOT = Path(__file__).resolve().parents[2]
MODEL = Mixture(layers=8, attention=0.3, experts_gain=0.8)
MEMORY = 420 << 20  # bytes of a group: about half of the file
SLOW = 20_000_000  # bytes per second
DSR = [sys.executable, "-m", "dsr"]
QUESTION = "Tell me a story."
SECONDS = 120  # no run may take longer
Fault = Callable[[Path], None]


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 3)


def overwritten(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        opened.write(bytes(1 << 20))


def replaced(file: Path) -> None:
    other = file.with_suffix(".new")
    other.write_bytes(bytes(1 << 20))
    other.rename(file)


FAULTS: dict[str, Fault] = {"cut": cut, "overwritten": overwritten, "replaced": replaced}


@dataclass(slots=True)
class Ran:
    """How a command ended. `after`: seconds from the event in the middle to the end; 0 if it did not come."""

    code: int = 0
    out: str = ""
    err: str = ""
    after: float = 0.0
    peak: int = 0

    @property
    def last(self) -> str:
        """The error, or the last line."""
        lines = [each for each in self.err.replace("\r", "\n").splitlines() if each.strip()]
        errors = [each for each in lines if each.startswith("error:") or "Traceback" in each]
        return (errors or lines or [""])[-1]


def run(
    words: list[str],
    file: Path,
    limits: Limits,
    home: Path,
    *,
    when: Callable[[str, str], bool] = lambda out, err: False,
    then: Callable[[subprocess.Popen[bytes]], None] = lambda process: None,
    before: Callable[[], None] | None = None,
) -> Ran:
    """Run dsr; as soon as `when` is true of its output, `then` happens, once."""
    env = {**os.environ, "DSR_HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with limited(file, limits) as (inside, peak):
        process = subprocess.Popen(
            inside([*DSR, *words]), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env,
            start_new_session=True, preexec_fn=before,
        )  # fmt: skip
        ran, seen, happened = Ran(), {"out": b"", "err": b""}, [0.0]

        def follow(name: str) -> None:
            stream = process.stdout if name == "out" else process.stderr
            assert stream is not None
            while piece := os.read(stream.fileno(), 4096):
                seen[name] += piece
                if not happened[0] and when(*(each.decode("utf-8", "replace") for each in seen.values())):
                    happened[0] = time.monotonic()
                    then(process)

        followers = [threading.Thread(target=follow, args=(name,)) for name in seen]
        for each in followers:
            each.start()
        try:
            ran.code = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            ran.code = process.wait()
        ran.after = time.monotonic() - happened[0] if happened[0] else 0.0
        for each in followers:
            each.join()
        ran.peak = peak()
    ran.out, ran.err = (each.decode("utf-8", "replace") for each in seen.values())
    return ran


def row(*cells: object) -> None:
    print("| " + " | ".join(str(each) for each in cells) + " |", flush=True)


def chat(file: Path, *more: str, tokens: int = 400) -> list[str]:
    return ["chat", str(file), *more, QUESTION, "-n", str(tokens), "-t", "1", "--temp", "0.5", "--seed", "1"]


def drew(out: str, err: str) -> bool:
    return len(out) > 20


def voted(out: str, err: str) -> bool:
    return "runs from the disk" in err  # a vote shows nothing before its end


@contextmanager
def failing_disk(file: Path, folder: Path) -> Iterator[tuple[Path, Callable[[Path], None]]]:
    """A copy of the file on a disk of its own, and a function that lets this disk fail."""
    image, mount = folder / "disk.img", folder / "disk"
    mount.mkdir(exist_ok=True)
    with image.open("wb") as opened:
        opened.truncate(file.stat().st_size + (96 << 20))
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    loop = subprocess.run(
        ["losetup", "-f", "--show", "--direct-io=on", str(image)], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        subprocess.run(["mount", loop, str(mount)], check=True)
        try:
            shutil.copy(file, mount)
            os.sync()
            yield mount / file.name, lambda _: os.truncate(image, 64 << 20)
        finally:
            subprocess.run(["umount", "-l", str(mount)], check=False)
    finally:
        subprocess.run(["losetup", "-d", loop], check=False)
        image.unlink()


def chat_faults(model: Path, folder: Path, home: Path) -> None:
    row("fault", "command", "exit code", "s to the end", "characters on stdout", "kept", "last line")
    row(*["---"] * 7)
    kinds: list[tuple[str, list[str], Callable[[str, str], bool], float]] = [
        ("chat", [], drew, 0.0),
        ("vote", ["--vote", "4"], voted, 8.0),
    ]
    for name, fault in [*FAULTS.items(), ("disk fails", None)]:
        for kind, more, when, later in kinds:
            with failing_disk(model, folder) if fault is None else copied(model, folder, fault) as (file, lose):

                def then(_: object, file: Path = file, lose: Fault = lose, later: float = later) -> None:
                    time.sleep(later)
                    lose(file)

                ran = run(
                    chat(file, *more, tokens=50 if more else 400), file, Limits(MEMORY), home, when=when, then=then
                )
            kept = subprocess.run(
                [*DSR, "history", "--json"], env={**os.environ, "DSR_HOME": str(home), "PYTHONPATH": str(ROOT)},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            rows = json.loads(kept.stdout or "{}").get("conversations", [])
            row(name, kind, ran.code, f"{ran.after:.1f}", len(ran.out), len(rows), ran.last)


@contextmanager
def copied(model: Path, folder: Path, fault: Fault) -> Iterator[tuple[Path, Fault]]:
    file = folder / "copy.gguf"
    shutil.copy(model, file)
    try:
        yield file, fault
    finally:
        file.unlink()


def stops(model: Path, folder: Path, home: Path) -> None:
    row("while", "disk", "exit code", "s from Ctrl-C to the end", "last line")
    row(*["---"] * 5)
    text = folder / "prompt.txt"
    text.write_text(" ".join(f"{number} and" for number in range(170)))

    def interrupt(seconds: float) -> Callable[[subprocess.Popen[bytes]], None]:
        def then(process: subprocess.Popen[bytes]) -> None:
            time.sleep(seconds)
            process.send_signal(signal.SIGINT)
            timed.append(time.monotonic())

        return then

    def opened(out: str, err: str) -> bool:
        return "runs from the disk" in err

    cases = (
        ("loading", chat(model), opened, 0.3, 0.6),
        ("prompt", chat(model, "-f", str(text)), opened, 4.0, 12.0),
        ("drawing", chat(model), drew, 1.0, 2.0),
    )
    for disk in (None, SLOW):
        for what, words, when, fast, slow in cases:
            timed: list[float] = []
            began = interrupt(fast if disk is None else slow)
            ran = run(words, model, Limits(MEMORY, disk), home, when=when, then=began)
            took = ran.after - (fast if disk is None else slow)
            row(what, "20 MB/s" if disk else "full speed", ran.code, f"{took:.2f}" if timed else "-", ran.last)


def memory(model: Path, home: Path) -> None:
    row("limit", "exit code", "last line")
    row(*["---"] * 3)
    for what, limit, size in (
        ("ulimit -v", resource.RLIMIT_AS, 1000 << 20),
        ("ulimit -v", resource.RLIMIT_AS, 700 << 20),
        ("ulimit -d", resource.RLIMIT_DATA, 600 << 20),
        ("ulimit -d", resource.RLIMIT_DATA, 300 << 20),
    ):
        ran = run(
            chat(model, tokens=5), model, Limits(MEMORY), home,
            before=lambda limit=limit, size=size: resource.setrlimit(limit, (size, size)),
        )  # fmt: skip
        row(f"{what} {size >> 10}", ran.code, ran.last)
    for size in (200, 260, 320):
        ran = run(chat(model, tokens=5), model, Limits(size << 20), home)
        row(f"group of {size} MiB", ran.code, ran.last)


APIS: dict[str, tuple[str, dict[str, object]]] = {
    "openai chat": ("/v1/chat/completions", {"stream": True, "max_tokens": 300}),
    "openai responses": ("/v1/responses", {"stream": True, "max_output_tokens": 300}),
    "anthropic": ("/v1/messages", {"stream": True, "max_tokens": 300}),
    "ollama": ("/api/chat", {"stream": True, "options": {"num_predict": 300}}),
    "llama-server": ("/completion", {"stream": True, "n_predict": 300}),
    "openai vote": ("/v1/chat/completions", {"stream": True, "max_tokens": 100, "dsr": {"strategy": "vote"}}),
}


def serve(model: Path, folder: Path, home: Path) -> None:
    row("fault", "API", "status", "last event", "alive", "answers again")
    row(*["---"] * 6)
    file = folder / "served.gguf"
    env = {**os.environ, "DSR_HOME": str(home), "PYTHONPATH": str(ROOT)}
    shutil.copy(model, file)
    with limited(file, Limits(MEMORY + (120 << 20))) as (inside, _):
        server = subprocess.Popen(
            inside([*DSR, "serve", str(file), "--port", "11999", "-t", "1", "--slots", "4", "-q"]), env=env,
            stdout=subprocess.DEVNULL, stderr=(folder / "serve.log").open("wb"), start_new_session=True,
        )  # fmt: skip
        try:
            for _ in range(100):
                with suppress(OSError):
                    urllib.request.urlopen("http://127.0.0.1:11999/health")
                    break
                time.sleep(0.2)
            for number, (api, (route, fields)) in enumerate(APIS.items()):
                name, fault = list(FAULTS.items())[number % 2]
                status, last = streamed(route, fields, file, fault)
                alive = server.poll() is None
                shutil.copy(model, file.with_suffix(".new"))
                file.with_suffix(".new").rename(file)
                time.sleep(3)
                again, _ = streamed("/v1/chat/completions", {"max_tokens": 3}, file, None)
                row(name, api, status, last, alive, again)
        finally:
            server.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                server.wait(15)
            server.kill()
    file.unlink()


def streamed(route: str, fields: dict[str, object], file: Path, fault: Fault | None) -> tuple[object, str]:
    """The status, and the last event of a stream in which the fault happens behind its first text."""
    asked = {"prompt": QUESTION} if route == "/completion" else {"messages": [{"role": "user", "content": QUESTION}]}
    if route == "/v1/responses":
        asked = {"input": QUESTION}
    body = json.dumps({"model": file.stem, **asked, **fields}).encode()
    made = urllib.request.Request(f"http://127.0.0.1:11999{route}", body, {"Content-Type": "application/json"})
    lines: list[str] = []
    try:
        with urllib.request.urlopen(made, timeout=SECONDS) as reply:
            for line in reply:
                lines.append(line.decode().strip())
                if fault is not None and len(lines) > 12:
                    fault(file)
                    fault = None
            status: object = reply.status
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()[:300]
    except OSError as error:
        return "-", str(error)
    said = [each for each in lines if each and each != "data: [DONE]"]
    return status, (said or [""])[-1][:300]


def peaks(model: Path, home: Path, runs: int) -> None:
    run(chat(model, tokens=1), model, Limits(MEMORY), home)  # its trial maps the file: pages that can go at any time
    found = [run(chat(model, tokens=12), model, Limits(MEMORY), home) for _ in range(runs)]
    largest = max(each.peak for each in found) / (1 << 20)
    codes = sorted({each.code for each in found})
    print(f"{runs} runs in {MEMORY >> 20} MiB: exit codes {codes}, largest peak {largest:.0f} MiB")
    print(next((line for line in found[-1].err.splitlines() if "runs from the disk" in line), ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="chat,stop,memory,serve,peak")
    parser.add_argument("--runs", type=int, default=20)
    given = parser.parse_args()
    restore_on_signals()
    given.folder.mkdir(parents=True, exist_ok=True)
    model = given.folder / "small.gguf"
    if not model.exists():
        write_model(model, "small", MODEL)
    wanted = given.only.split(",")
    with tempfile.TemporaryDirectory() as home:
        if "chat" in wanted:
            chat_faults(model, given.folder, Path(home))
        if "stop" in wanted:
            stops(model, given.folder, Path(home))
        if "memory" in wanted:
            memory(model, Path(home))
        if "serve" in wanted:
            serve(model, given.folder, Path(home))
        if "peak" in wanted:
            peaks(model, Path(home), given.runs)


if __name__ == "__main__":
    main()
