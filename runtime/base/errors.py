"""Every error that dsr shows to a person as a sentence instead of a traceback.

    DsrError                 1    something failed that we can name
    ├── UsageError           2    the request itself makes no sense
    ├── NotFound             3    no such model, file, quantization or conversation
    │   └── Gated            3    it exists, but needs permission
    ├── VerificationFailed   4    bytes are not what they should be
    │   └── BadModelFile     4    a model file whose structure is broken or hostile
    ├── DoesNotFit           5    memory, disk or context is too small
    │   └── NoRoom           5    the engine's KV cache is full
    ├── NetworkError         6    the hub cannot be reached or misbehaves
    ├── Incompatible         7    a sound file that this engine or this program cannot use
    │   └── EngineFailed     7    the engine refused or broke
    └── Aborted            130    the user stopped it
        └── NodeLost         6    a node went away, and the text so far was kept

The number is the exit code of `dsr`. Anything that is not a DsrError is a bug and looks like one.
"""

from __future__ import annotations

from pathlib import Path


class DsrError(Exception):
    """What happened and why, in one line; `hint` is the one command or step that helps."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(DsrError):
    exit_code = 2


class NotFound(DsrError):
    exit_code = 3


class Gated(NotFound):
    """The hub knows it but refuses without an accepted licence or a token (HTTP 401, 403)."""


class VerificationFailed(DsrError):
    exit_code = 4


class BadModelFile(VerificationFailed):
    """A model file whose structure is broken: names the file and the key, tensor or byte that is wrong."""

    def __init__(self, path: Path, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"{path}: {problem}", hint=hint)
        self.path = path
        self.problem = problem


class DoesNotFit(DsrError):
    """`missing`: by how many bytes, 0 where that is not known."""

    exit_code = 5

    def __init__(self, message: str, *, hint: str | None = None, missing: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.missing = missing


class NoRoom(DoesNotFit):
    """The KV cache has no free cell for this batch; its contents are unchanged and may be continued."""


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


class NodeLost(Aborted):
    """A node died, stalled or was cut off while it computed. Ends what was being drawn as an abort does."""

    exit_code = 6

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        DsrError.__init__(self, message, hint=hint)
