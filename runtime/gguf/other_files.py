"""What to say of a file that is not GGUF, and what to do next."""

from __future__ import annotations

from runtime.base import file_kind as kinds
from runtime.base.file_kind import file_kind

_CONVERSION = "use a GGUF conversion of the model"
_NEXT = {
    kinds.EMPTY: "its download did not finish: pull it again",
    kinds.ZEROS: "its download did not finish: pull it again",
    kinds.LFS_POINTER: "pull the file itself: dsr pull",
    kinds.WEB_PAGE: "download the file itself, not the page that shows it",
    kinds.ARCHIVE: _CONVERSION,
    kinds.PICKLE: _CONVERSION,
    kinds.OLD_GGML: _CONVERSION,
    kinds.SAFETENSORS: "to make a GGUF file of its folder: dsr quantize FOLDER OUT",
    kinds.OLD_IMATRIX: "give the GGUF file of the model itself",
}


def not_gguf(start: bytes, size: int) -> tuple[str, str]:
    """What a file of `size` bytes that begins with `start` is instead of a GGUF file, and the next step."""
    kind = file_kind(start, size)
    if not kind:
        return f"not a GGUF file: it begins with {start[:4]!r}", "give the path of a .gguf file"
    following = "unpack it first" if kinds.is_compressed(kind) else _NEXT.get(kind, "give the path of a .gguf file")
    return f"{kind}, not a GGUF file", following
