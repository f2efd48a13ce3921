"""Errors in Anthropic's form (docs.anthropic.com, "Errors")."""

from __future__ import annotations

from typing import Any

from dsr.serve.http.errors import Fault

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def error_body(fault: Fault) -> dict[str, Any]:
    return {"type": "error", "error": {"type": _TYPES.get(fault.status, "api_error"), "message": fault.text}}
