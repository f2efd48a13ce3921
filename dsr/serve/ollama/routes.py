"""The routes of Ollama's API."""

from __future__ import annotations

from dsr.serve.http.routes import Api, Endpoint
from dsr.serve.ollama.chat import chat, generate
from dsr.serve.ollama.embed import embed_prompt, embed_texts
from dsr.serve.ollama.errors import error_body
from dsr.serve.ollama.models import ps, show, tags, version

API = Api(
    error_body,
    (
        Endpoint("POST", "/api/chat", chat),
        Endpoint("POST", "/api/generate", generate),
        Endpoint("POST", "/api/embed", embed_texts),
        Endpoint("POST", "/api/embeddings", embed_prompt),
        Endpoint("GET", "/api/tags", tags),
        Endpoint("GET", "/api/ps", ps),
        Endpoint("GET", "/api/version", version),
        Endpoint("POST", "/api/show", show),
    ),
)
