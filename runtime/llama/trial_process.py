"""The first opening of a file, in a process that may die, grow or hang.

A structure that passes every check in `runtime.gguf.reader` can still make native code abort. The child opens the file
as dsr will, with the same parameters, but on the CPU alone and with a short context. It maps the weights, or reads
experts that have no room from the disk, decodes one token, a batch, and tokens of several sequences at once, and tells
its result as one JSON document.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from runtime.base.errors import DoesNotFit, DsrError, EngineFailed, Incompatible
from runtime.base.quoted import quoted
from runtime.base.run import Run
from runtime.base.types import ByteCount, listed
from runtime.engine.backend import Batch
from runtime.engine.embedding import EmbedOptions
from runtime.from_disk.units import FromDisk
from runtime.gguf.adapter import Adapter
from runtime.gguf.header import ANOTHER_FILE
from runtime.gguf.reader import read_header
from runtime.llama import address_space
from runtime.llama.backend import LlamaBackend
from runtime.llama.defaults import LOAD_NONE
from runtime.llama.embedder import Embedder
from runtime.llama.graph import GraphNode, check_layout
from runtime.llama.limited_child import End, Limits, answer_of, end_with_parent, restrict, run_child
from runtime.llama.load_model import MORE_MEMORY
from runtime.llama.open_options import OpenOptions
from runtime.llama.streamed_backend import StreamedBackend
from runtime.llama.tokenizer import TRIAL_TEXT

CONTEXT = 512  # tokens; as many as one pass through the graph takes
SLOTS = 2
DRAFTED = 4

_BATCH = 48  # tokens: enough for the kernels that multiply many columns at once
_FEW = 2  # of a model whose experts come from the disk: each token may read some percent of the file
_JOB = "trying"


def try_in_child(
    path: Path, options: OpenOptions, limits: Limits, run: Run | None = None, *, weights: bool = True
) -> None:
    """Open `path` in a child with the threads, the type of the KV cache and the layers of `options`. Without `weights`
    the child checks names and shapes of tensors, the vocabulary and the graph, and neither reads nor multiplies them.

    Raises EngineFailed with the engine's reason, or where the child died, grew beyond `limits` or hung; DoesNotFit if
    the system ended it for lack of memory; Aborted.
    """
    run = run or Run()
    asked = {
        "path": str(path.absolute()),
        "memory": limits.memory,
        "repack": limits.repack,
        "threads": options.threads,
        "kv_type": options.kv_type,
        "kv_full": options.kv_full,
        "mtp": options.mtp,
        "weights": weights,
        "from_disk": options.from_disk.memory if options.from_disk is not None else 0,
        "address_space": limits.address_space,
        "adapters": [(str(each.path.absolute()), each.scale, each.digest, each.size) for each in options.adapters],
    }
    command = [sys.executable, "-c", "from runtime.llama.trial_process import main; main()"]
    end = run_child(command, asked, path, limits, run, job=_JOB)
    _judge(path, end, limits)


def try_embedder(path: Path, options: EmbedOptions, limits: Limits, threads: int, run: Run | None = None) -> None:
    """Open `path` in a child as an embedder, and let it embed a few texts. Raises as `try_in_child` does."""
    asked = {
        "path": str(path.absolute()),
        "memory": limits.memory,
        "repack": limits.repack,
        "threads": threads,
        "embeds": asdict(options),
    }
    command = [sys.executable, "-c", "from runtime.llama.trial_process import main; main()"]
    _judge(path, run_child(command, asked, path, limits, run or Run(), job=_JOB), limits)


def _judge(path: Path, end: End, limits: Limits) -> None:
    if end.broke == "time":
        raise EngineFailed(
            f"{path}: its trial did not end within {limits.seconds:.0f} s",
            hint=f"close other programs and try again; {ANOTHER_FILE}",
        )
    if end.broke == "memory":
        raise _grew(path, limits)
    if end.code == -signal.SIGKILL:
        raise DoesNotFit(
            f"{path}: the system killed its trial, probably because memory ran out",
            hint="choose a smaller model, or close other programs",
        )
    if end.code < 0:
        raise EngineFailed(f"{path}: it crashes the engine ({_signal_name(-end.code)})", hint=ANOTHER_FILE)
    answer = answer_of(end.said)
    if answer is None:
        raise EngineFailed(f"{path}: its trial ended with code {end.code} and no answer", hint=ANOTHER_FILE)
    if "passed" in answer and end.code == 0:
        return
    if answer.get("failed") == "memory":
        raise _grew(path, limits)
    # The child's own words name the file; whatever else they quote stays behind that.
    said, hint = answer.get("message"), answer.get("hint")
    reason = said.removeprefix(f"{path.absolute()}: ") if isinstance(said, str) else "it failed"
    raise EngineFailed(f"{path}: {quoted(reason, 500)}", hint=hint if isinstance(hint, str) else ANOTHER_FILE)


def _grew(path: Path, limits: Limits) -> DsrError:
    if (most := address_space.limit()) is not None:
        return DoesNotFit(f"{path}: {ByteCount(most)} of address space are too little to open it", hint=MORE_MEMORY)
    return EngineFailed(
        f"{path}: the engine takes more than {limits.memory} of memory to open it, which its header does not explain",
        hint=ANOTHER_FILE,
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no name
        return f"signal {number}"


def main() -> None:
    """The child."""
    # What native code prints must not mix with the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    threading.Thread(target=end_with_parent, daemon=True).start()
    asked = json.loads(sys.argv[1])
    try:
        restrict(asked["memory"] + asked.get("address_space", 0), asked["threads"])
        (_embed if "embeds" in asked else _open)(Path(asked["path"]), asked)
        result: dict[str, Any] = {"passed": True}
    except (DoesNotFit, MemoryError):
        result = {"failed": "memory"}
    except DsrError as error:
        result = {"failed": "engine", "message": error.message, "hint": error.hint}
    os.write(answer, json.dumps(result).encode())


class _Tried(LlamaBackend):
    """A backend that may leave out the copies of weights in another order.

    It notes which tensors of LoRA adapters take part in the graph: some architectures use weights without them.
    """

    def __init__(self, path: Path, options: OpenOptions, *, repack: bool, weights: bool) -> None:
        self._repack = repack
        self._weights = weights
        self._used: set[str] = set()
        self._visit = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_bool, ctypes.c_void_p)(self._note)
        super().__init__(path, options)

    def _note(self, address: int, asking: bool, _: object) -> bool:
        node = GraphNode(address)
        if asking and node.operation in ("MUL_MAT", "MUL_MAT_ID", "GET_ROWS"):
            self._used.add(node.source(0).name)
        return not asking  # no values are wanted

    def _context_params(self) -> Any:
        params = super()._context_params()
        if self._options.adapters:
            check_layout()
            params.cb_eval = ctypes.cast(self._visit, type(params.cb_eval))
        return params

    def check_adapters(self) -> None:
        """Raise EngineFailed for an adapter that the engine does not use as a whole."""
        for adapter in self._options.adapters:
            names = [tensor.name for tensor in read_header(adapter.path).tensors if tensor.name.endswith(".lora_a")]
            unused = [name.removesuffix(".lora_a") for name in names if name not in self._used]
            if unused and adapter.scale:
                raise EngineFailed(
                    f"{adapter.path}: the engine does not apply this adapter to {listed(unused, most=3)}",
                    hint="merge the adapter into the original weights, and convert the result with dsr quantize",
                )

    def _model_params(self, **given: Any) -> Any:
        if not self._weights:
            given |= {"no_alloc": True, "load_mode": LOAD_NONE}
        return super()._model_params(**given, use_extra_bufts=self._repack)


class _TriedEmbedder(Embedder):
    """An embedder that may leave out the copies of weights in another order."""

    def __init__(self, path: Path, options: EmbedOptions, run: Run, *, repack: bool) -> None:
        self._repack = repack
        super().__init__(path, options, run)

    def _model_params(self, **given: Any) -> Any:
        # The trial computes on the CPU alone, as `_open` does.
        return super()._model_params(**given, use_extra_bufts=self._repack, n_gpu_layers=0)


def _embed(path: Path, asked: dict[str, Any]) -> None:
    options, run = EmbedOptions(**asked["embeds"]), Run(threads=asked["threads"])
    with _TriedEmbedder(path, options, run, repack=asked["repack"]) as embedder:
        tokens = embedder.tokenize(TRIAL_TEXT)
        read = [*tokens, *(embedder.tokenizer.read_every_byte() if embedder.tokenizer.spells_bytes else ())]
        _check_read(path, read, embedder.vocab_size)
        one, many = embedder.tokenize("a")[: options.longest], embedder.shorten([*tokens, *tokens])
        full = [number % embedder.vocab_size for number in range(options.longest)]
        for vector in embedder.embed([one, many[:_BATCH], one, many, full]):
            if not np.isfinite(vector).all() or not any(vector):
                raise EngineFailed(f"{path}: its weights give no vector of finite numbers", hint=ANOTHER_FILE)


def _check_read(path: Path, tokens: list[int], vocab_size: int) -> None:
    if vocab_size < 1:
        raise Incompatible(f"{path}: the model has no vocabulary")
    if min(tokens, default=0) < 0:
        raise EngineFailed(f"{path}: its vocabulary lacks tokens for some bytes", hint=ANOTHER_FILE)


def _open(path: Path, asked: dict[str, Any]) -> None:
    on_disk = FromDisk(asked["from_disk"]) if asked["from_disk"] else None
    options = OpenOptions(
        context=CONTEXT,
        slots=SLOTS,
        threads=asked["threads"],
        kv_type=asked["kv_type"],
        kv_full=asked["kv_full"],
        drafted=DRAFTED,
        mtp=asked["mtp"],
        gpus=(),
        adapters=tuple(Adapter(Path(path), scale, *rest) for path, scale, *rest in asked["adapters"]),
        from_disk=on_disk,
    )
    tried = _Tried(path, options, repack=asked["repack"], weights=asked["weights"]) if on_disk is None else None
    with tried or StreamedBackend(path, options) as backend:
        tokens = backend.tokenize(TRIAL_TEXT, add_bos=True)
        read = [*tokens, *backend._tokenizer.read_every_byte()]
        _check_read(path, read, backend.vocab_size)
        for token in read:
            backend.piece(token)
        if not asked["weights"]:
            return
        one = tokens[:1] or [0]
        many = [*tokens, *(number % backend.vocab_size for number in range(_BATCH))]
        many = many[: _BATCH if on_disk is None else _FEW]
        _decode(path, backend, _batch((one, 0, 0)))
        _decode(path, backend, _batch((many, 1, 0)))
        end = 1 + len(many)
        for slot in range(1, SLOTS + 1):
            backend.fork(0, slot)
        _decode(path, backend, _batch(*((one, end, slot) for slot in range(SLOTS + 1))))
        if tried is not None:
            tried.check_adapters()
        if backend.mtp is not None:
            backend.mtp.guess(one[0], end + 1, DRAFTED)
        for slot in range(SLOTS + 1):
            backend.trim(slot, 0)


def _batch(*parts: tuple[list[int], int, int]) -> Batch:
    batch = Batch()
    for tokens, position, slot in parts:
        batch.add(tokens, position, slot, output=True)
    return batch


def _decode(path: Path, backend: LlamaBackend, batch: Batch) -> None:
    backend.decode(batch)
    for row in batch.outputs:
        if not np.isfinite(backend._logits(row).max()):  # some models rule tokens out with -inf
            raise EngineFailed(f"{path}: its weights give results that are not finite numbers", hint=ANOTHER_FILE)
