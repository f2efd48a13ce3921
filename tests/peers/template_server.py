"""A llama-server that holds the embedded model with a chat template, for the comparisons of templates and tools."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SECONDS = 60


class Refused(Exception):
    """The server refused, and says why."""


class Server:
    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(self._base + path, json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise Refused(error.read().decode()[:2000]) from None

    def rendered(self, messages: list[dict[str, str]], **options: Any) -> str:
        return str(self.post("/apply-template", {"messages": messages, **options})["prompt"])

    def reply(self, messages: list[dict[str, str]], text: str, **options: Any) -> tuple[str, str]:
        """Thought and answer of a reply that says exactly `text`."""
        grammar = f"root ::= {json.dumps(text, ensure_ascii=False)}"
        body = {"messages": messages, "grammar": grammar, "max_tokens": 512, "temperature": 0, **options}
        said = self.post("/v1/chat/completions", body)["choices"][0]["message"]
        return (said.get("reasoning_content") or "").strip(), (said.get("content") or "").strip()


@contextmanager
def serving(binary: Path, model: Path, template: Path, port: int) -> Iterator[Server]:
    """Raises Refused where the server does not start with the template."""
    command = [str(binary), "-m", str(model), "--jinja", "--chat-template-file", str(template), "--port", str(port)]
    command += ["--host", "127.0.0.1", "-t", "1", "-c", "4096", "-np", "1", "--no-webui", "--no-warmup"]
    command += ["--no-prefill-assistant"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        log: list[str] = []
        try:
            assert process.stdout is not None
            for line in process.stdout:
                log.append(line)
                if "listening" in line:
                    break
            else:
                raise Refused("".join(log[-8:]))
            yield Server(port)
        finally:
            process.kill()


def first_difference(mine: str, theirs: str) -> str:
    at = next((at for at, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs)))
    start = max(at - 20, 0)
    return f"dsr …{mine[start : at + 60]!r}, llama-server …{theirs[start : at + 60]!r}"
