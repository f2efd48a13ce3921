"""The routes that llama-server has and no other API, and its shorter names of OpenAI's routes."""

from __future__ import annotations

from dsr.serve.http.routes import Api, Endpoint
from dsr.serve.llama_server.completion import completion
from dsr.serve.llama_server.embeddings import embedding
from dsr.serve.llama_server.props import infill, props, slots
from dsr.serve.llama_server.tokens import apply_template, detokenize, input_tokens, tokenize
from dsr.serve.openai.errors import error_body
from dsr.serve.openai.routes import API as OPENAI

# llama-server answers them with and without /v1. Its /completions is its own, not OpenAI's.
_SHORTER = ("/v1/chat/completions", "/v1/responses", "/v1/models")

API = Api(
    error_body,
    (
        Endpoint("POST", "/completion", completion),
        Endpoint("POST", "/completions", completion),
        Endpoint("POST", "/tokenize", tokenize),
        Endpoint("POST", "/detokenize", detokenize),
        Endpoint("POST", "/apply-template", apply_template),
        Endpoint("POST", "/v1/chat/completions/input_tokens", input_tokens),
        Endpoint("POST", "/chat/completions/input_tokens", input_tokens),
        Endpoint("POST", "/embedding", embedding),
        Endpoint("POST", "/embeddings", embedding),
        Endpoint("POST", "/infill", infill),
        Endpoint("GET", "/props", props),
        Endpoint("GET", "/slots", slots),
        *(
            Endpoint(each.method, each.path.removeprefix("/v1"), each.handler)
            for each in OPENAI.endpoints
            if each.path in _SHORTER
        ),
    ),
)
