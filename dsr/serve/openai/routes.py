"""The routes of OpenAI's API."""

from __future__ import annotations

from dsr.serve.http.routes import Api, Endpoint
from dsr.serve.openai.chat import chat_completions
from dsr.serve.openai.completions import completions
from dsr.serve.openai.embeddings import embeddings
from dsr.serve.openai.errors import error_body
from dsr.serve.openai.models import list_models, show_model
from dsr.serve.openai.responses import create_response, delete_response, show_response

API = Api(
    error_body,
    (
        Endpoint("POST", "/v1/chat/completions", chat_completions),
        Endpoint("POST", "/v1/completions", completions),
        Endpoint("POST", "/v1/responses", create_response),
        Endpoint("GET", "/v1/responses/{id}", show_response),
        Endpoint("DELETE", "/v1/responses/{id}", delete_response),
        Endpoint("POST", "/v1/embeddings", embeddings),
        Endpoint("GET", "/v1/models", list_models),
        Endpoint("GET", "/v1/models/{name:path}", show_model),
    ),
)
