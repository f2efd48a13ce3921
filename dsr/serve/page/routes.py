"""GET / and /page/...: the files of the page, which nobody needs a key for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from dsr.serve.http.errors import Refused
from dsr.serve.http.routes import Api, Endpoint
from dsr.serve.http.server import Server
from dsr.serve.openai.errors import error_body

_FILES = Path(__file__).parent / "static"
# Told here, since the operating system's own table may call a module plain text.
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".md": "text/plain",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
# Nothing from elsewhere, nothing inline: the page sets styles through the CSSOM, also those of mathematics.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked again each time, and answered with 304 while the file is the same
}


@cache
def page_files() -> Mapping[str, Path]:
    """The files by their path in the address. A request only looks names up, so it cannot leave the folder."""
    found = (path for path in _FILES.rglob("*") if path.is_file())
    return {path.relative_to(_FILES).as_posix(): path for path in found}


async def _index(request: Request, server: Server) -> Response:
    return _file(request, "index.html")


async def _page(request: Request, server: Server) -> Response:
    return _file(request, request.path_params["name"])


def _file(request: Request, name: str) -> Response:
    path = page_files().get(name)
    if path is None:
        raise Refused(404, "the page has no such file")
    stat = path.stat()
    tag = f'"{stat.st_size:x}-{stat.st_mtime_ns:x}"'
    headers = {**_HEADERS, "ETag": tag}
    if request.headers.get("If-None-Match") == tag:
        return Response(status_code=304, headers=headers)
    return FileResponse(path, media_type=_TYPES.get(path.suffix, "text/plain"), headers=headers, stat_result=stat)


API = Api(error_body, (Endpoint("GET", "/", _index), Endpoint("GET", "/page/{name:path}", _page)))
