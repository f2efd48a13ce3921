"""A server for tests of the page: dsr's routes with made-up answers, and faults on demand. Run it to look at the page:

python tests/page/mock_server.py [PORT] [KEY]
"""

from __future__ import annotations

import itertools
import json
import mimetypes
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

if __package__:
    from tests.page.answers import HOSTILE, LONG, MATHS, SAMPLES, SUM, THOUGHT
else:
    from answers import HOSTILE, LONG, MATHS, SAMPLES, SUM, THOUGHT

PAGE = Path(__file__).resolve().parents[2] / "dsr" / "serve" / "page" / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
GIB = 1 << 30


def model(
    name: str, quant: str, size: float, state: str = "closed", efforts: tuple[str, ...] = (), thinks: bool = True
) -> dict[str, Any]:
    """A row of /api/dsr/models."""
    thinking = {
        "switch": thinks and not efforts,
        "default_thinking": "on",
        "efforts": list(efforts),
        "default_effort": None,
    }
    return {
        "reference": name,
        "name": name,
        "quant": quant,
        "size": int(size * GIB),
        "context": 4096,
        "thinks": thinks,
        "thinking": thinking,
        "problem": None,
        "state": state,
        "memory": 0 if state == "closed" else int(1.2 * size * GIB),
        "answering": 0,
    }


def planned(name: str, quant: str, memory: float, what: str, parameters: int, speed: float) -> dict[str, Any]:
    """A row of /api/dsr/plan."""
    return {
        "name": name,
        "quant": quant,
        "parameters": parameters,
        "what": what,
        "memory_bytes": int(memory * GIB),
        "tokens_per_second": speed,
        "larger_quants": [],
        "estimated": True,
    }


def library() -> list[dict[str, Any]]:
    return [
        model("nano", "Q8_0", 0.012, state="open"),
        model("deepseek-r1:7b", "Q4_K_M", 4.4),
        model("gpt-oss:20b", "MXFP4", 11.3, efforts=("low", "medium", "high")),
        model("smollm2:135m", "Q4_1", 0.1, thinks=False),
    ]


HERE = [
    planned("nano", "Q8_0", 0.09, "A demonstration model: arithmetic, words, dates, simple logic", 12_239_152, 538.0),
    planned("deepseek-r1:7b", "Q4_K_M", 5.2, "DeepSeek-R1-Distill-Qwen-7B (7.6B parameters)", 7_600_000_000, 9.2),
    planned("gpt-oss:20b", "MXFP4", 12.4, "gpt-oss-20b (20.9B parameters, 3.6B active)", 20_900_000_000, 11.5),
    planned("smollm2:135m", "Q4_1", 0.3, "SmolLM2-135M-Instruct", 135_000_000, 210.0),
]


def catalogue() -> list[dict[str, Any]]:
    return [
        planned("qwen3:8b", "Q4_K_M", 6.1, "Qwen3-8B (8.2B parameters)", 8_200_000_000, 7.9),
        planned("qwen3:4b", "Q4_K_M", 3.4, "Qwen3-4B (4B parameters)", 4_000_000_000, 14.0),
        planned("gemma3:1b", "Q8_0", 1.6, "gemma-3-1b-it (1B parameters)", 1_000_000_000, 38.0),
    ]


def strategy(name: str, summary: str, draws: str, **settings: str) -> dict[str, Any]:
    return {"name": name, "summary": summary, "draws": draws, "settings": settings}


STRATEGIES = [
    strategy("direct", "one sample, taken as it comes", "one"),
    strategy(
        "vote",
        "the answer most samples agree on, stopped when it is clear",
        "together",
        n="8",
        weights="none",
        stop="beta",
        window="5",
    ),
    strategy("first-finish", "the first sample that finishes", "together", n="8", k="1"),
    strategy(
        "deepconf",
        "a vote in which unsure samples are cut",
        "together",
        n="16",
        warmup="8",
        keep="90",
        window="0",
        share="0.95",
    ),
    strategy("budget", "one sample with a short or a prolonged thought", "one", tokens="0", extensions="1"),
]


@dataclass
class State:
    """What outlives a restart of the server, as files do. `pace` are the seconds between two pieces of text."""

    pace: float = 0.004
    key: str = ""
    models: list[dict[str, Any]] = field(default_factory=library)
    catalogue: list[dict[str, Any]] = field(default_factory=catalogue)
    conversations: dict[int, dict[str, Any]] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    pulled: list[dict[str, Any]] = field(default_factory=list)
    full: bool = False  # no conversation can be kept
    left: int = 0  # answers whose client went away
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))


class MockServer:
    """A running server. `stop` cuts all connections, as a killed process does; `start` begins again at the port."""

    def __init__(self, state: State | None = None, port: int = 0) -> None:
        self.state = state or State()
        self.port = port
        self.start()

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), _Handler, self.state)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._server.cut()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], state: State) -> None:
        self.state = state
        self.open: set[socket.socket] = set()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        self.open.discard(request)
        super().close_request(request)

    def cut(self) -> None:
        for each in list(self.open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # clients that go away are part of the tests
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    # Answers

    def reply(self, status: int, body: Any = None, kind: str = "application/json", **headers: str) -> None:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            "Cache-Control": "no-cache",
            **headers,
        }.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status: int, message: str) -> None:
        self.reply(
            status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": status}}
        )

    def stream(self, pieces: Iterator[str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for piece in pieces:
                data = piece.encode()
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.server.state.left += 1
            self.close_connection = True

    # Routes

    def do_GET(self) -> None:
        self.route("GET")

    def do_POST(self) -> None:
        self.route("POST")

    def do_PATCH(self) -> None:
        self.route("PATCH")

    def do_PUT(self) -> None:
        self.route("PUT")

    def do_DELETE(self) -> None:
        self.route("DELETE")

    def route(self, method: str) -> None:
        state = self.server.state
        address = urlsplit(self.path)
        path = unquote(address.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        if method == "GET" and (path == "/" or path.startswith("/page/")):
            return self.static("index.html" if path == "/" else path.removeprefix("/page/"))
        if path == "/health":
            return self.reply(200, {"status": "ok"})
        if state.key and self.headers.get("Authorization") != f"Bearer {state.key}":
            return self.refuse(401, "the API key is missing or wrong")
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        for pattern, verb, handler in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and verb == method:
                return handler(self, body, query, *found.groups())
        return self.refuse(404, f"there is no {path}")

    def static(self, name: str) -> None:
        file = (PAGE / name).resolve()
        if not file.is_file() or PAGE not in file.parents:
            return self.refuse(404, f"there is no {name}")
        kind = (
            "text/javascript"
            if file.suffix == ".js"
            else mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        )
        self.reply(200, file.read_bytes(), kind, Content_Security_Policy=POLICY, X_Content_Type_Options="nosniff")

    def models(self, body: Any, query: dict[str, str]) -> None:
        state = self.server.state
        used = sum(each["memory"] for each in state.models)
        self.reply(
            200, {"models": state.models, "default": "nano", "memory": {"total": 16 * GIB, "available": 9 * GIB - used}}
        )

    def change(self, body: Any, query: dict[str, str], action: str) -> None:
        for each in self.server.state.models:
            if each["reference"] == body["model"]:
                time.sleep(20 * self.server.state.pace)
                each["state"] = "open" if action == "load" else "closed"
                each["memory"] = int(1.2 * each["size"]) if action == "load" else 0
                return self.reply(200, {})
        self.refuse(404, f"there is no model {body['model']}")

    def plan(self, body: Any, query: dict[str, str]) -> None:
        here = HERE + self.server.state.pulled
        names = {each["name"] for each in here}
        self.reply(
            200,
            {"here": here, "catalogue": [each for each in self.server.state.catalogue if each["name"] not in names]},
        )

    def pull_plan(self, body: Any, query: dict[str, str]) -> None:
        found = self.find(query["model"])
        if found is not None:
            size = int(0.8 * found["memory_bytes"])
            self.reply(
                200,
                {"repo": "org/repo-GGUF", "quant": found["quant"], "size": size, "to_fetch": size, "free": 80 * GIB},
            )

    def find(self, name: str) -> dict[str, Any] | None:
        for each in self.server.state.catalogue:
            if each["name"] == name:
                return each
        self.refuse(404, f"there is no model {name} in the catalogue")
        return None

    def pull(self, body: Any, query: dict[str, str]) -> None:
        state = self.server.state
        found = self.find(body["model"])
        if found is None:
            return
        size = int(0.8 * found["memory_bytes"])

        def told() -> Iterator[str]:
            for step in range(41):
                yield data(
                    {
                        "type": "progress",
                        "job": "pulling",
                        "item": found["name"],
                        "done": size * step // 40,
                        "total": size,
                        "unit": "bytes",
                    }
                )
                time.sleep(10 * state.pace)
            state.pulled.append(found)
            state.models.append(model(found["name"], found["quant"], size / GIB))
            yield data({"type": "pulled", "path": "model.gguf", "size": size})

        self.stream(told())

    def strategies(self, body: Any, query: dict[str, str]) -> None:
        self.reply(200, {"schema": "dsr.chat.strategies/1", "strategies": STRATEGIES})

    def conversations(self, body: Any, query: dict[str, str]) -> None:
        wanted = query.get("search", "").casefold()
        found = [
            each
            for each in self.server.state.conversations.values()
            if wanted in json.dumps(each["messages"]).casefold()
        ]
        found.sort(key=lambda each: each["updated"], reverse=True)
        rows = [
            {
                "id": each["id"],
                "started": each["started"],
                "model": each["model"],
                "title": each["title"],
                "turns": len(each["messages"]),
            }
            for each in found
        ]
        self.reply(200, {"conversations": rows})

    def begin(self, body: Any, query: dict[str, str]) -> None:
        if self.server.state.full:
            return self.refuse(507, "the disk is full.")
        id = next(self.server.state.numbers)
        self.server.state.conversations[id] = {
            "system": "",
            "title": "",
            **body,
            "id": id,
            "started": now(),
            "updated": now(),
        }
        self.reply(200, {"id": id})

    def conversation(self, body: Any, query: dict[str, str], number: str) -> None:
        kept = self.server.state.conversations.get(int(number))
        if kept is None:
            return self.refuse(404, f"there is no conversation {number}")
        if self.command == "DELETE":
            del self.server.state.conversations[int(number)]
            return self.reply(200, {})
        if self.command in ("PATCH", "PUT"):
            kept.update(body, updated=now())
        return self.reply(200, kept)

    def export(self, body: Any, query: dict[str, str], number: str) -> None:
        kept = self.server.state.conversations[int(number)]
        if query.get("format") == "markdown":
            text = "\n\n".join(f"**{turn['role']}**\n\n{turn['content']}" for turn in kept["messages"])
            return self.reply(200, text.encode(), "text/markdown; charset=utf-8")
        return self.reply(200, kept)

    def chat(self, body: Any, query: dict[str, str]) -> None:
        state = self.server.state
        state.requests.append(body)
        last = body["messages"][-1]
        question = next(each["content"] for each in reversed(body["messages"]) if each["role"] == "user")
        if "refuse" in question:
            return self.refuse(400, "the prompt has 5,000 tokens, and the context holds 4,096; ask a shorter question")
        strategy = (body.get("dsr") or {}).get("strategy")
        pieces = self.vote(body) if strategy else self.single(body, question, last)
        return self.stream(pieces)

    def single(self, body: Any, question: str, last: dict[str, Any]) -> Iterator[str]:
        state = self.server.state
        yield chunk({"role": "assistant", "content": ""}) + own(type="begun", prompt_tokens=31, sampling={}, seed=7)
        if "load" in question:
            for step in range(1, 11):
                yield own(type="progress", job="loading", item="nano.gguf", done=step, total=10, unit="percent")
                time.sleep(10 * state.pace)
        answer = (
            MATHS if "series" in question else HOSTILE if "hostile" in question else LONG if "long" in question else SUM
        )
        if "history" in question:
            answer = (
                "You asked " + ", ".join(each["content"] for each in body["messages"] if each["role"] == "user") + "."
            )
        count = 0
        if last["role"] == "assistant":
            answer = answer[len(last["content"]) :]
        elif body.get("reasoning_effort") != "none":
            for piece in pieces_of(THOUGHT):
                count += 1
                yield own(type="text", sample=0, part="thinking", text=piece) + chunk({"reasoning_content": piece})
                time.sleep(state.pace)
            yield own(type="thought_ended", sample=0)
        thought = count
        for number, piece in enumerate(pieces_of(answer)):
            if "cut" in question and number == 12 and last["role"] != "assistant":
                yield own(
                    type="ended", sample=0, finish_reason="length", tokens=count, thinking_tokens=thought, seconds=1.0
                ) + chunk({}, "length")
                break
            if "fail" in question and number == 12:
                yield data(
                    {
                        "error": {
                            "message": "the engine process ended; ask again",
                            "type": "server_error",
                            "param": None,
                            "code": 503,
                        }
                    }
                )
                return
            count += 1
            yield own(type="text", sample=0, part="answer", text=piece) + chunk({"content": piece})
            time.sleep(state.pace)
        else:
            yield own(
                type="ended", sample=0, finish_reason="stop", tokens=count, thinking_tokens=thought, seconds=1.0
            ) + chunk({}, "stop")
        yield usage(count, thought)

    def vote(self, body: Any) -> Iterator[str]:
        state = self.server.state
        wanted = int(body["dsr"].get("set", {}).get("n", 8))
        samples = SAMPLES[:wanted]
        yield chunk({"role": "assistant", "content": ""}) + own(type="begun", prompt_tokens=18, sampling={}, seed=7)
        texts = [
            [("thinking", piece) for piece in pieces_of(thought)] + [("answer", piece) for piece in pieces_of(answer)]
            for thought, answer, _, _ in samples
        ]
        votes: dict[str, int] = {}
        without = 0
        spent = [0] * len(samples)
        done: set[int] = set()
        for step in range(max(map(len, texts))):
            told = []
            for number, text in enumerate(texts):
                if number in done:
                    continue
                if step < len(text):
                    part, piece = text[step]
                    spent[number] += 1
                    told.append(own(type="text", sample=number, part=part, text=piece))
                elif samples[number][3] == "stop":
                    key = samples[number][2]
                    done.add(number)
                    if key:
                        votes[key] = votes.get(key, 0) + 1
                    else:
                        without += 1
                    told.append(
                        own(
                            type="tally",
                            sample=number,
                            answer=key,
                            votes=[list(each) for each in votes.items()],
                            without=without,
                        )
                    )
                    told.append(
                        own(
                            type="ended",
                            sample=number,
                            finish_reason="stop",
                            tokens=spent[number],
                            thinking_tokens=9,
                            seconds=0.1,
                        )
                    )
            yield "".join(told) or ": keep-alive\n\n"
            time.sleep(3 * state.pace)
            if sum(votes.values()) >= 5 and votes.get("933", 0) >= 4:
                break
        for number in set(range(len(samples))) - done:
            yield own(type="noted", sample=number, text="stopped: the leader cannot be caught")
            yield own(
                type="ended",
                sample=number,
                finish_reason="cancelled",
                tokens=spent[number],
                thinking_tokens=9,
                seconds=0.1,
            )
        tally = [
            {"answer": key, "votes": count, "weight": float(count)}
            for key, count in sorted(votes.items(), key=lambda each: -each[1])
        ]
        drawn = [
            {
                "answer": key if number in done else None,
                "tokens": spent[number],
                "finish_reason": end if number not in done else "stop",
                "seconds": 0.1,
                "confidence": 0.9 if number in done else None,
                "weight": 1.0,
                "note": "" if number in done else "stopped: the leader cannot be caught",
                "seed": 7 + number,
            }
            for number, (_, _, key, end) in enumerate(samples)
        ]
        verdict = {
            "strategy": body["dsr"]["strategy"],
            "winner": tally[0]["answer"] if tally else None,
            "confidence": 0.8,
            "tally": tally,
            "abstained": without,
            "tied": False,
            "rule": "majority of 6, the leader cannot be caught, 4 against 1",
            "samples": drawn,
            "tokens": {"spent": sum(spent), "saved": 61, "sequential": 31},
        }
        yield own(type="verdict", verdict=verdict, chosen=0)
        yield chunk({"reasoning_content": samples[0][0]}) + chunk({"content": samples[0][1]}) + chunk({}, "stop")
        yield usage(sum(spent), 60)


def pieces_of(text: str) -> list[str]:
    """The text in pieces as long as tokens are."""
    return re.findall(r"\s?\S{1,5}|\s", text)


def data(value: Any) -> str:
    return f"data: {json.dumps(value)}\n\n"


def own(**event: Any) -> str:
    return f": dsr {json.dumps(event)}\n\n"


def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
    return data({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def usage(drawn: int, thought: int) -> str:
    told = {
        "prompt_tokens": 31,
        "completion_tokens": drawn,
        "total_tokens": 31 + drawn,
        "completion_tokens_details": {"reasoning_tokens": thought},
    }
    return data({"choices": [], "usage": told}) + "data: [DONE]\n\n"


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() % 10**9 // 1000:06d}+00:00"


_CONVERSATION = r"/api/dsr/conversations/(\d+)"
_ROUTES: list[tuple[str, str, Any]] = [
    ("/v1/chat/completions", "POST", _Handler.chat),
    ("/api/dsr/models", "GET", _Handler.models),
    ("/api/dsr/models/(load|unload)", "POST", _Handler.change),
    ("/api/dsr/plan", "GET", _Handler.plan),
    ("/api/dsr/pull", "GET", _Handler.pull_plan),
    ("/api/dsr/pull", "POST", _Handler.pull),
    ("/api/dsr/strategies", "GET", _Handler.strategies),
    ("/api/dsr/conversations", "GET", _Handler.conversations),
    ("/api/dsr/conversations", "POST", _Handler.begin),
    (f"{_CONVERSATION}/export", "GET", _Handler.export),
    (_CONVERSATION, "GET", _Handler.conversation),
    (_CONVERSATION, "PATCH", _Handler.conversation),
    (_CONVERSATION, "PUT", _Handler.conversation),
    (_CONVERSATION, "DELETE", _Handler.conversation),
]

if __name__ == "__main__":
    running = MockServer(
        State(pace=0.02, key=sys.argv[2] if len(sys.argv) > 2 else ""), int(sys.argv[1]) if len(sys.argv) > 1 else 11599
    )
    print(running.url)
    threading.Event().wait()
