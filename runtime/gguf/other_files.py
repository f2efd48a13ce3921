"""Names a file that is not GGUF by its first bytes, and says what to do with it."""

from __future__ import annotations

_CONVERSION = "use a GGUF conversion of the model"
_PICKLE_VERSIONS = (b"\x02", b"\x03", b"\x04", b"\x05")
_OLD_MAGICS = (b"tjgg", b"ggml", b"lmgg", b"fmgg")  # ggml, ggmf and ggjt, as little-endian numbers
_IMATRIX_ENTRY = b"blk."


def named_by_content(start: bytes, size: int) -> tuple[str, str]:
    """What a file of `size` bytes that begins with `start` (512 bytes are enough) is, and the next step."""
    text = start[:512].lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer (a few lines of text), not the model itself", "pull the file itself: dsr pull"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not a GGUF file", "download the file itself, not the page that shows it"
    if start.startswith(b"PK\x03\x04"):
        return "a zip archive (perhaps a PyTorch checkpoint), not a GGUF file", _CONVERSION
    if start[:1] == b"\x80" and start[1:2] in _PICKLE_VERSIONS:
        return "a Python pickle, which is never loaded", _CONVERSION
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < size:
        return "a safetensors checkpoint, not a GGUF file", "to make a GGUF file of its folder: dsr quantize FOLDER"
    if start[:4] in _OLD_MAGICS:
        return "an old GGML file, from before GGUF", _CONVERSION
    # A count, then the length and the name of the first tensor (tools/imatrix in llama.cpp).
    if start[8:12] == _IMATRIX_ENTRY:
        return "an importance matrix in the old format (.dat), not a model", "give the GGUF file of the model itself"
    for magic, what in ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"7z\xbc\xaf", "7z"), (b"Rar!", "rar")):
        if start.startswith(magic):
            return f"a compressed file ({what}), not a GGUF file", "unpack it first"
    if not start.strip(b"\0"):
        return "only zeros, not a GGUF file", "its download did not finish: pull it again"
    return f"not a GGUF file: it begins with {start[:4]!r}", "give the path of a .gguf file"
