"""The errors that dsr shows to a person as a sentence instead of a traceback.

    DsrError                 1    any other failure with a known cause
    ├── Busy                 1    the queue of requests is full
    ├── OutOfGrammar         1    an answer cannot go on in its grammar
    ├── UsageError           2    the request is not valid
    ├── NotFound             3    no such model, file, quantization or conversation
    │   └── Gated            3    it exists, but needs permission
    ├── VerificationFailed   4    a file does not have the expected content
    │   └── BadModelFile     4    a model file whose structure is broken or hostile
    ├── DoesNotFit           5    memory, disk or context is too small
    │   ├── NoRoom           5    the engine's KV cache is full
    │   └── TooLong          5    a prompt leaves no room for an answer
    ├── NetworkError         6    the hub cannot be reached or misbehaves
    ├── Incompatible         7    a sound file that this engine or this program cannot use
    │   └── EngineFailed     7    the engine refused or broke
    └── Aborted            130    the user stopped it
        └── Lost           130    something went away while the model computed, and the text so far was kept
            ├── NodeLost     6    a node
            └── WeightsLost  4    a model file that is read while the model runs: it was cut or overwritten
                └── DiskFailed 1  the same, because its disk failed

The number is the exit code of `dsr`. Any other exception is a bug and shows a traceback.
"""

from __future__ import annotations

from pathlib import Path

from runtime.base.quoted import quoted

_LONGEST_PROBLEM = 500
# Only where the structure proves it: the file ends too early, or its parts overlap.
PULL_AGAIN = "the file is damaged or incomplete: pull it again"
# The bytes are those of another file: a web page, a pointer, a file with a wrong name.
PULL_ITSELF = "pull the file itself"
# Each file is sound, and they contradict each other.
ONE_MODEL = "the weights and the files next to them must be those of one model"
# The file is whole, and what it says makes no sense.
PUBLISHED = "take the file that was published with the weights"


class DsrError(Exception):
    """`message` says in one line what happened and why; `hint` says what to do or type next."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Busy(DsrError):
    """The queue of requests is full; a later one may be taken."""


class OutOfGrammar(DsrError):
    """No token of the vocabulary continues an answer in its grammar, or finding one takes too much work."""


class UsageError(DsrError):
    exit_code = 2


class NotFound(DsrError):
    exit_code = 3


class Gated(NotFound):
    """The hub knows it but refuses without an accepted licence or a token (HTTP 401, 403)."""


class VerificationFailed(DsrError):
    exit_code = 4


class BadModelFile(VerificationFailed):
    """A model file whose structure is broken: names the file and the key, tensor or byte that is wrong.

    `problem` may have names as the file spells them; the message shows them in one line.
    """

    def __init__(self, path: Path, problem: str, *, hint: str | None = None) -> None:
        problem = quoted(problem, _LONGEST_PROBLEM)
        super().__init__(f"{path}: {problem}", hint=hint)
        self.path = path
        self.problem = problem


class DoesNotFit(DsrError):
    """`missing`: the bytes that are missing, 0 if unknown."""

    exit_code = 5

    def __init__(self, message: str, *, hint: str | None = None, missing: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.missing = missing


class NoRoom(DoesNotFit):
    """The KV cache has no free cell for this batch; its contents are unchanged and may be continued."""


class TooLong(DoesNotFit):
    """A prompt of `tokens`, where a prompt with its answer has at most `longest`."""

    def __init__(self, tokens: int, longest: int, *, hint: str) -> None:
        super().__init__(
            f"the prompt is {tokens} tokens long, and {longest} is the most for a prompt with its answer", hint=hint
        )
        self.tokens = tokens
        self.longest = longest


class NetworkError(DsrError):
    exit_code = 6


class Incompatible(DsrError):
    exit_code = 7


class EngineFailed(Incompatible):
    """The native engine returned an error, or the child process that tried the file died."""


class Aborted(DsrError):
    exit_code = 130

    def __init__(self, message: str = "stopped") -> None:
        super().__init__(message)


class Lost(Aborted):
    """Something that the model needs went away while it computed. Samples in progress end as after an abort."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        DsrError.__init__(self, message, hint=hint)


class NodeLost(Lost):
    """A node died, stalled or was disconnected."""

    exit_code = 6


class WeightsLost(Lost):
    """A file from which the weights are read was cut or overwritten. The model cannot be used any more."""

    exit_code = 4


class DiskFailed(WeightsLost):
    """The disk could not read a file of the model."""

    exit_code = 1
