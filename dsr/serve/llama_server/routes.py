"""The routes of llama-server that are no other API's."""

from __future__ import annotations

from dsr.serve.http.routes import Api, Endpoint
from dsr.serve.llama_server.embeddings import embedding
from dsr.serve.openai.errors import error_body

API = Api(
    error_body,
    (
        Endpoint("POST", "/embedding", embedding),
        Endpoint("POST", "/embeddings", embedding),
    ),
)
