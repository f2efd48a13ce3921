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
    429: "rate_limit_error",
    503: "unavailable_error",
}


def error_body(fault: Fault) -> dict[str, Any]:
    code = "model_not_found" if fault.status == 404 and fault.kind == "NotFound" else fault.status
    kind = _TYPES.get(fault.status, "server_error")
    return {"error": {"message": fault.text, "type": kind, "param": fault.place or None, "code": code}}
