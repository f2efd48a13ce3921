"""Errors in OpenAI's form."""

from __future__ import annotations

from typing import Any

from dsr.serve.http.errors import Fault

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    501: "not_supported_error",
    429: "rate_limit_error",
    503: "unavailable_error",
}


def error_body(fault: Fault) -> dict[str, Any]:
    if fault.kind == "TooLong":
        return {"error": _too_long(fault)}
    code = "model_not_found" if fault.status == 404 and fault.kind == "NotFound" else fault.status
    kind = _TYPES.get(fault.status, "server_error")
    return {"error": {"message": fault.text, "type": kind, "param": fault.place or None, "code": code}}


def _too_long(fault: Fault) -> dict[str, Any]:
    """OpenAI's code, and llama-server's type and numbers (server-context.cpp): clients look for either."""
    return {
        "message": fault.text,
        "type": "exceed_context_size_error",
        "param": None,
        "code": "context_length_exceeded",
        "n_prompt_tokens": fault.tokens,
        "n_ctx": fault.longest,
    }
