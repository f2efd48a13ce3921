"""dsr's own routes. Errors have OpenAI's form."""

from __future__ import annotations

from dsr.serve.http.routes import Api, Endpoint
from dsr.serve.openai.errors import error_body
from dsr.serve.own import conversations, models

_CONVERSATIONS = "/api/dsr/conversations"

API = Api(
    error_body,
    (
        Endpoint("GET", "/api/dsr/models", models.models),
        Endpoint("POST", "/api/dsr/models/load", models.load),
        Endpoint("POST", "/api/dsr/models/unload", models.unload),
        Endpoint("GET", "/api/dsr/catalog", models.catalog),
        Endpoint("GET", "/api/dsr/plan", models.plan),
        Endpoint("GET", "/api/dsr/pull", models.pull_plan),
        Endpoint("POST", "/api/dsr/pull", models.pull),
        Endpoint("GET", "/api/dsr/strategies", models.strategies),
        Endpoint("GET", "/api/dsr/history", models.history),
        Endpoint("GET", _CONVERSATIONS, conversations.listed),
        Endpoint("POST", _CONVERSATIONS, conversations.create),
        Endpoint("GET", _CONVERSATIONS + "/{id}", conversations.show),
        Endpoint("POST", _CONVERSATIONS + "/{id}/turns", conversations.append),
        Endpoint("PUT", _CONVERSATIONS + "/{id}", conversations.replace),
        Endpoint("PATCH", _CONVERSATIONS + "/{id}", conversations.rename),
        Endpoint("DELETE", _CONVERSATIONS + "/{id}", conversations.delete),
        Endpoint("GET", _CONVERSATIONS + "/{id}/export", conversations.export),
    ),
)
