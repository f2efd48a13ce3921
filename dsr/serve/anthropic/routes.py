"""The routes of Anthropic's API."""

from __future__ import annotations

from dsr.serve.anthropic.errors import error_body
from dsr.serve.anthropic.messages import count_tokens, messages
from dsr.serve.http.routes import Api, Endpoint

API = Api(
    error_body,
    (
        Endpoint("POST", "/v1/messages", messages),
        Endpoint("POST", "/v1/messages/count_tokens", count_tokens),
    ),
)
