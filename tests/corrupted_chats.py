"""Corrupted models through the whole of `dsr chat`: which copies, and what may come of them.

    python -m tests.corrupted_chats FOLDER COUNT

runs each copy, and a third as many absurd models, in a fork of one process that has imported everything, and prints one
JSON list of outcomes.
`tests/peers/corrupted.py` runs each in a process of its own, as a person would.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime.base.errors import DsrError
from runtime.base.types import ByteCount
from runtime.gguf.engine_lists import check_answers
from runtime.gguf.reader import card_from_headers, parse_header
from runtime.placement.trial import check_alignment, limits_of
from tests.corruption import absurd_models, corrupted_copies
from tests.gguf_writer import gguf, llama_metadata, llama_tensors, moe_metadata, moe_tensors

NANO = Path(__file__).resolve().parents[1] / "dsr" / "data" / "nano.gguf"
ARGUMENTS = ("hi", "-n", "4", "--no-log")
# Answered, broken, too large by its header, refused by the engine or without a usable template.
ALLOWED = (0, 4, 5, 7)

# Four tokens may all be thought: then there is no answer, and exit code 1.
_NO_ANSWER = "gave no answer\n"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`code` is the exit code, or minus the number of the signal."""

    what: str
    code: int
    stderr: str

    @property
    def problem(self) -> str | None:
        """What is wrong with how it ended."""
        if self.code == 1 and self.stderr.endswith(_NO_ANSWER):
            return None
        if self.code not in ALLOWED:
            return f"ended with {self.code}"
        if "Traceback" in self.stderr:
            return "a traceback"
        starts = [line.partition(": ")[0] for line in self.stderr.splitlines()]
        if self.code and starts not in (["error"], ["error", "hint"]):
            return "not one error line and at most one hint"
        return None


def header_problem(data: bytes, available: ByteCount) -> str | None:
    """What is wrong with how our own checks end for a file of these bytes, without any native code.

    They end with an error of ours, or with the limits of a trial where a model may take `available` bytes.
    """
    path = Path("copy.gguf")
    try:
        card = card_from_headers([path], [parse_header(data, len(data), path)])
        check_answers(card)
        check_alignment(card)
        limits_of(card, available)
    except DsrError as error:
        lines = f"{error.message}{error.hint or ''}".splitlines()
        if error.exit_code not in ALLOWED or len(lines) != 1 or not error.message.startswith("copy.gguf: "):
            return f"{error.exit_code}: {error.message!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def headers(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` files for `header_problem`: half of them damaged, half sound but absurd."""
    yield from copies(count // 2, seed)
    yield from absurd_models(seed, count - count // 2)


def copies(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` copies: a third each of the embedded model, a small llama and a small mixture of experts.

    Damage is done where the structure is; what the rest of a file holds is just numbers.
    """
    sources = {
        "nano": NANO.read_bytes(),
        "llama": gguf(llama_metadata(), llama_tensors()),
        "experts": gguf(moe_metadata(), moe_tensors()),
    }
    each = -(-count // len(sources))
    for name, data in sources.items():
        header = parse_header(data, len(data), Path(name)).data_offset
        for what, copy in corrupted_copies(data, seed, each, header):
            yield f"{name} {what}", copy


def _run_in_fork(function: Callable[[], object], folder: Path) -> tuple[int, bytes, bytes]:
    """The exit code of a function run in a fork, and what it wrote to stderr and, as a short text, to stdout.

    Its stdin stays open as long as this process lives.
    """
    errors = folder / f"stderr-{os.getpid()}"
    said, say = os.pipe()
    waiting, _ = pipe = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        code = 99
        try:
            sys.stdin = open(os.devnull)  # noqa: SIM115
            os.dup2(waiting, 0)
            os.dup2(say, 1)
            os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            function()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(say)
    _, status = os.waitpid(child, 0)
    answer = os.read(said, 1 << 16)
    for each in (said, *pipe):
        os.close(each)
    return os.waitstatus_to_exitcode(status), errors.read_bytes(), answer


def _refused(folder: Path) -> Path:
    path = folder / "refused.gguf"
    path.write_bytes(b"GGUF")
    return path


def main() -> None:
    from dsr.cli import app
    from runtime.llama import limited_child, trial_process

    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    # What a command imports when it runs is imported here once, before the forks.
    importlib.import_module("runtime.llama")
    with suppress(SystemExit):
        app(["chat", str(_refused(folder)), *ARGUMENTS], prog_name="dsr")

    def forked_trial(command: list[str], asked: dict[str, object], *_: object, **__: object) -> limited_child.End:
        sys.argv = [sys.executable, json.dumps(asked)]
        code, _, answer = _run_in_fork(trial_process.main, folder)
        return limited_child.End(code, answer)

    trial_process.run_child = forked_trial  # type: ignore[assignment]
    path = folder / "copy.gguf"
    outcomes = []
    for what, copy in (*copies(count, seed=11), *absurd_models(seed=11, count=count // 3)):
        path.write_bytes(copy)
        arguments = ["chat", str(path), *ARGUMENTS, "-t", "1"]
        code, errors, _ = _run_in_fork(lambda given=arguments: app(given, prog_name="dsr"), folder)  # type: ignore[misc]
        outcomes.append(asdict(Outcome(what, code, errors.decode("utf-8", "replace"))))
    sys.stdout.write(json.dumps(outcomes))


if __name__ == "__main__":
    main()
