"""Errors in Ollama's form: one sentence."""

from __future__ import annotations

from typing import Any

from dsr.serve.http.errors import Fault


def error_body(fault: Fault) -> dict[str, Any]:
    return {"error": fault.text}
