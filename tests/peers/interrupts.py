"""Press Ctrl-C in every long command, as a person does, and measure how long each takes to end.

    python tests/peers/interrupts.py MODEL [--original FOLDER] [--text FILE] [--only WORD ...]

MODEL is a GGUF file of some hundred MB, so that the work lasts long enough; FOLDER is an original checkpoint (for the
conversion). Each command runs in a terminal of its own (pty), with folders of its own. The script waits until the
command has worked for some seconds, types Ctrl-C, and measures until the process ends. It prints a table: seconds, exit
code, the last line, and the files that the command left. It exits with 1 if a command took more than a second, did not
exit with 130, or left a file under the name of its result.
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import select
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.gguf_writer import gguf, llama_metadata, llama_tensors
from tests.hub_server import HubServer

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 1.0  # seconds from Ctrl-C to the end
GIVEN_UP = 60.0
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")
_QUESTION = "Write a very long story about arithmetic and add up every number from 1 to 400."


@dataclass(frozen=True, slots=True)
class Case:
    """Words of a command, seconds before Ctrl-C, and the result that must not be there. `code`: of the exit."""

    name: str
    words: str
    wait: float = 4.0
    result: str = ""
    code: tuple[int, ...] = (130,)


def cases(model: str, original: str | None, text: str) -> list[Case]:
    """{w} is the folder for files."""
    quantize = f"quantize {model} {{w}}/out.gguf --allow-requantize"
    strategies = (
        "vote", "first-finish", "short-m", "no-think-vote", "deepconf", "bon", "soft", "budget", "rounds", "em", "phi",
        "tree", "value-guided", "verify", "auto",
    )  # fmt: skip
    found = [
        Case("first load", f'chat {model} "{_QUESTION}"', 3.0),
        Case("first load, to its end", f"chat {model} -n 1 Hello", 60.0),
        Case("pull, the server stalls", "pull org/stall", 6.0),
        Case("quantize", f"{quantize} --recipe q4_k_m", 3.0, "out.gguf"),
        Case("quantize --round best", f"{quantize} --recipe q4_k_m --round best", 14.0, "out.gguf"),
        Case("quantize --size", f"{quantize} --size 80MiB", 14.0, "out.gguf"),
        Case("quantize --measure", f"{quantize} --recipe q4_0 --measure {text}", 9.0),
        Case("imatrix", f"imatrix {model} --text {text} -o {{w}}/out.gguf", 10.0, "out.gguf"),
        Case("plan", f"plan {model}", 1.5),
        Case("list --catalog", "list --catalog", 0.6),
        Case("doctor", "doctor", 1.0),
        Case("bench speed", f"bench speed {model} -r 50"),
        Case("bench quality", f"bench quality {model} --against {model} --text {text}", 6.0),
        Case("bench reason", "bench reason nano"),
        Case("bench experts", "bench experts nano"),
        Case("bench all", "bench all nano"),
        Case("experts profile", "experts profile nano --limit 400"),
        Case("chat", f'chat {model} "{_QUESTION}"', 9.0),
        Case("chat, while it loads", f'chat {model} "{_QUESTION}"', 0.7),
        Case("chat, a long prompt", f'chat {model} -f {{w}}/long.txt "Sum up."', 8.0),
        Case("chat --batch", "chat nano --batch {w}/batch.jsonl -o {w}/answers.jsonl", 4.0, "answers.jsonl"),
        Case("serve", f"serve {model} --port 0", 4.0, code=(0, 130)),
        Case("node serve", "node serve --port 0", 3.0, code=(0, 130)),
    ]
    found += [
        Case(f"chat --strategy {each}", f'chat {model} --strategy {each} "{_QUESTION}"', 9.0) for each in strategies
    ]
    if original is not None:
        found.append(Case("convert", f"quantize {original} {{w}}/out.gguf --recipe f16", 2.0, "out.gguf"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--original")
    parser.add_argument("--text", default=str(ROOT / "docs" / "log.md"))
    parser.add_argument("--only", nargs="+", default=[])
    options = parser.parse_args()
    good = True
    print("| command | seconds | exit | last line | left |\n|---|---|---|---|---|")
    with HubServer() as hub, tempfile.TemporaryDirectory() as home:
        noise = gguf(llama_metadata(), llama_tensors()) + os.urandom(40 << 20)
        hub.add("org/stall", {"m-Q8_0.gguf": noise}, lfs={"m-Q8_0.gguf"})
        hub.faults.stall_after[:] = [8 << 20] * 8
        # The first load of a model tries it in a child and measures threads: that is a case of its own, "first load".
        for case in cases(options.model, options.original, options.text):
            if not options.only or any(each in case.name for each in options.only):
                good &= shown(case, hub.url, Path(home))
        hub.released.set()
    sys.exit(not good)


def shown(case: Case, endpoint: str, home: Path) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        batch = "".join(f'{{"prompt": "What is {each} + 586?"}}\n' for each in range(100, 900))
        (Path(folder) / "batch.jsonl").write_text(batch)
        (Path(folder) / "long.txt").write_text("Add the numbers of every line. " * 900)
        begun, seconds, code, last = interrupted(case, Path(folder), endpoint, home)
        found = sorted(str(each.relative_to(folder)) for each in Path(folder).rglob("*") if each.is_file())
        left = [each for each in found if each not in ("batch.jsonl", "long.txt")]
        half = bool(case.result) and case.result in found
    if not begun:
        print(f"| {case.name} | ended before Ctrl-C | {code} | {last} | |", flush=True)
        return True
    print(f"| {case.name} | {seconds:.2f} | {code} | {last} | {', '.join(left)} |", flush=True)
    return seconds <= LONGEST and code in case.code and not half


def interrupted(case: Case, folder: Path, endpoint: str, home: Path) -> tuple[bool, float, int, str]:
    """Whether it still ran at Ctrl-C; seconds from there to its end, the exit code, and the last line."""
    words = case.words.replace("{w}", str(folder))
    pid, terminal = pty.fork()
    if pid == 0:
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "DSR_HOME": str(home), "HF_HOME": str(folder / "hf"),
            "HF_ENDPOINT": endpoint, "NO_PROXY": "127.0.0.1", "COLUMNS": "200", "NO_COLOR": "1",
        }  # fmt: skip
        import shlex

        os.execve(sys.executable, [sys.executable, "-m", "dsr", *shlex.split(words)], environment)
    said, status = bytearray(), None
    end = time.monotonic() + case.wait
    while status is None and time.monotonic() < end:
        status = _ended(pid, terminal, said)
    begun = status is None
    typed = time.monotonic()
    if begun:
        os.write(terminal, b"\x03")
    while status is None and time.monotonic() - typed < GIVEN_UP:
        status = _ended(pid, terminal, said)
    seconds = time.monotonic() - typed
    if status is None:
        os.kill(pid, 9)
        _, status = os.waitpid(pid, 0)
    os.close(terminal)
    lines = [each.strip() for each in re.split(r"[\r\n]+", _CONTROL.sub("", said.decode("utf-8", "replace")))]
    last = next((each for each in reversed(lines) if each and each != "^C"), "")
    return begun, seconds, os.waitstatus_to_exitcode(status), last[:100].replace("|", "/")


def _ended(pid: int, terminal: int, said: bytearray) -> int | None:
    """The status of the process; None while it runs. Reads what it wrote."""
    ready, _, _ = select.select([terminal], [], [], 0.01)
    if ready:
        try:
            said += os.read(terminal, 1 << 16)
        except OSError:  # Linux: the other side is closed
            time.sleep(0.005)
    gone, status = os.waitpid(pid, os.WNOHANG)
    return status if gone else None


if __name__ == "__main__":
    main()
