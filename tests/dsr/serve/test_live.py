"""What only a real server shows: cells, processes, sockets and signals."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.dsr.serve.live_server import ROOT, Live, start_server, stop_server

CHAT = "/v1/chat/completions"
# At a high temperature hardly one of eight answers ends before its limit.
LONG = {
    "model": "nano", "messages": [{"role": "user", "content": "2+2?"}], "max_tokens": 900, "temperature": 5,
    "top_k": 0, "top_p": 1, "stream": True, "n": 8,
}  # fmt: skip


def until(true: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def numbers(live: Live) -> dict[str, float]:
    with live.client() as client:
        lines = client.get("/metrics").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def raw(live: Live, data: bytes) -> bytes:
    """All that the server answers until it closes."""
    with socket.create_connection(("127.0.0.1", live.port), timeout=30) as connection:
        connection.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                answer += piece
    return answer


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Live]:
    """A server that a test may end."""
    live = start_server(log=tmp_path / "log", home=tmp_path / "home")
    yield live
    stop_server(live)


def test_the_cells_of_a_client_that_leaves_are_free(live: Live) -> None:
    with live.client() as client, client.stream("POST", CHAT, json=LONG) as answer:
        lines = answer.iter_lines()
        next(lines)
        until(lambda: numbers(live)['dsr_model_held{model="nano"}'] > 0)
    until(lambda: numbers(live)['dsr_model_held{model="nano"}'] == 0)
    assert numbers(live)['dsr_model_drawing{model="nano"}'] == 0


def test_requests_sent_before_an_answer_are_not_answered(live: Live) -> None:
    one = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert raw(live, one * 5).count(b"HTTP/1.1 200") == 1


@pytest.mark.parametrize(
    "lines",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\nContent-Length: 6",
        "Transfer-Encoding: chunked, identity",
        "Content-Length: -1",
        "Content-Length: 0x5",
    ],
)
def test_a_body_whose_length_is_ambiguous_is_refused(live: Live, lines: str) -> None:
    answer = raw(live, f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n0\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400")


def test_long_headers_are_refused(live: Live) -> None:
    answer = raw(live, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 300_000)
    assert answer.startswith(b"HTTP/1.1 431")


def test_a_client_that_is_refused_reads_why_although_it_still_sends(live: Live) -> None:
    with live.client() as client:
        answer = client.post(CHAT, content=b" " * (12 << 20))
    assert answer.status_code == 413


def test_an_answer_ends_after_its_time(live: Live) -> None:
    with live.client() as client:
        answer = client.post(CHAT, json={**LONG, "stream": False, "dsr": {"timeout": 0.05}})
    assert answer.status_code == 504
    assert answer.json()["error"]["message"].startswith("the answer was not complete after 0.05 s")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_at_the_end_each_answer_ends_with_an_error_and_no_process_is_left(own: Live, number: int, code: int) -> None:
    with own.client() as client, client.stream("POST", CHAT, json=LONG) as answer:
        lines = answer.iter_lines()
        next(lines)
        engines = psutil.Process(own.process.pid).children()
        own.process.send_signal(number)
        data = [line for line in lines if line.startswith("data: ")]
    assert json.loads(data[-1][6:])["error"]["message"].startswith("dsr serve is ending")
    assert own.process.wait(20) == code
    assert len(engines) == 1 and not psutil.wait_procs(engines, timeout=15)[1]


def test_no_engine_process_outlives_a_server_that_is_killed(own: Live) -> None:
    with own.client() as client:
        assert client.post(CHAT, json={**LONG, "stream": False, "max_tokens": 2}).status_code == 200
    engines = psutil.Process(own.process.pid).children()
    own.process.kill()
    own.process.wait()
    assert len(engines) == 1 and not psutil.wait_procs(engines, timeout=15)[1]


def test_an_engine_process_that_is_killed_costs_its_answers_only(own: Live) -> None:
    with own.client() as client, client.stream("POST", CHAT, json=LONG) as answer:
        lines = answer.iter_lines()
        next(lines)
        (engine,) = psutil.Process(own.process.pid).children()
        engine.kill()
        data = [line for line in lines if line.startswith("data: ")]
        error = json.loads(data[-1][6:])["error"]["message"]
        assert error.startswith("the engine process of nano ended (SIGKILL, as when the system is out of memory)")
        assert client.post(CHAT, json={**LONG, "stream": False, "max_tokens": 2}).status_code == 200
    assert numbers(own)["dsr_engine_deaths_total"] == 1
    until(lambda: all(each.status() != psutil.STATUS_ZOMBIE for each in psutil.Process(own.process.pid).children()))


def said(*options: str, **env: str) -> tuple[int, str]:
    """The exit code and the messages of a `dsr serve` that cannot serve."""
    done = subprocess.run(
        [sys.executable, "-m", "dsr", "serve", *options],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **env}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stderr


def test_a_port_that_is_taken_is_told_in_one_line(live: Live) -> None:
    code, text = said("--port", str(live.port))
    assert code == 1
    assert text.splitlines()[0] == f"error: port {live.port} of 127.0.0.1 is taken"


def test_other_machines_need_a_key() -> None:
    code, text = said("--host", "0.0.0.0", "--port", "0")
    assert code == 2
    assert text.startswith("error: other machines can reach 0.0.0.0, so dsr serve needs a key\n")


def test_a_key_is_taken_from_the_variable_and_said_nowhere(tmp_path: Path) -> None:
    live = start_server(log=tmp_path / "log", home=tmp_path / "home", DSR_API_KEY="s3cret")
    try:
        with live.client() as client:
            assert client.get("/v1/models").status_code == 401
            assert client.get("/v1/models", headers={"x-api-key": "s3cret"}).status_code == 200
            assert client.get("/v1/models", headers={"x-api-key": "wr0ng"}).status_code == 401
    finally:
        stop_server(live)
    text = (tmp_path / "log").read_text()
    assert text.startswith(f"dsr serves 1 model at {live.url} until you press Ctrl-C\nmodels: nano\n")
    assert "s3cret" not in text and "wr0ng" not in text


def test_https(tmp_path: Path) -> None:
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"],
        capture_output=True,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("no openssl")
    tls = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    live = start_server(*tls, log=tmp_path / "log", home=tmp_path / "home", scheme="https")
    try:
        trusted = ssl.create_default_context(cafile=tmp_path / "cert.pem")
        assert httpx2.get(f"https://127.0.0.1:{live.port}/health", verify=trusted, trust_env=False).status_code == 200
    finally:
        stop_server(live)


def test_a_wrong_certificate_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    code, text = said("--tls-cert", str(tmp_path / "cert.pem"), "--port", "0")
    assert code == 1
    assert text.splitlines()[0].startswith(f"error: {tmp_path / 'cert.pem'}: not a certificate and its key")
    assert said("--tls-key", "key.pem")[0] == 2


def test_two_clients_are_answered_together(live: Live) -> None:
    answers: list[int] = []

    def ask() -> None:
        with live.client() as client:
            answers.append(client.post(CHAT, json={**LONG, "stream": False, "max_tokens": 20}).status_code)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert answers == [200] * 4


def test_a_form_that_cannot_be_used_names_the_field_that_has_it(live: Live) -> None:
    wrong = {"name": "a", "schema": {"type": "string", "pattern": "("}}
    chat: dict[str, Any] = {"model": "nano", "messages": [{"role": "user", "content": "2+2?"}]}
    with live.client() as client:
        answers = [
            client.post(CHAT, json={**chat, "response_format": {"type": "json_schema", "json_schema": wrong}}),
            client.post(CHAT, json={**chat, "grammar": "root ::= ("}),
            client.post(
                "/v1/responses",
                json={"model": "nano", "input": "2+2?", "text": {"format": {"type": "json_schema", **wrong}}},
            ),
        ]
    assert [each.status_code for each in answers] == [400, 400, 400]
    assert [each.json()["error"]["param"] for each in answers] == ["response_format", "grammar", "text.format"]


def test_an_effort_that_changes_nothing_is_told(live: Live) -> None:
    body = {**LONG, "max_tokens": 3, "n": 1, "reasoning_effort": "high", "dsr": {"events": True}}
    with live.client() as client:
        answer = client.post(CHAT, json=body)
    assert answer.status_code == 200
    told = "the chat template of nano knows no levels of effort, so high changes nothing"
    assert f': dsr {{"type":"notice","text":"{told}"}}' in answer.text.splitlines()


def test_errors_of_an_engine_process_do_not_tell_where_its_model_lies(tmp_path: Path, nano_path: Path) -> None:
    own_file = tmp_path / "folder" / "own.gguf"
    own_file.parent.mkdir()
    own_file.write_bytes(nano_path.read_bytes())
    live = start_server(log=tmp_path / "log", home=tmp_path / "home", models=(str(own_file),))
    try:
        body = {"messages": [{"role": "user", "content": "2+2?"}], "dsr": {"keep_thoughts": True}}
        with live.client() as client:
            refused = client.post(CHAT, json=body)
        assert refused.status_code == 400
        message = refused.json()["error"]["message"]
        assert message == "keeping thoughts: the chat template of own.gguf never writes earlier thoughts"
        own_file.rename(tmp_path / "elsewhere.gguf")
        body |= {"max_tokens": 1, "stream": True, "dsr": {"events": True}}
        with live.client() as client:
            noticed = client.post(CHAT, json=body).text
        assert '"text":"own.gguf was moved or deleted; answers go on with the file that was opened, ' in noticed
    finally:
        stop_server(live)


def test_texts_leave_the_cache_when_one_request_runs_alone_and_come_back(live: Live) -> None:
    def ask(word: str) -> tuple[int, int]:
        """Tokens of the prompt, and those of them that were cached."""
        body = {"model": "nano", "prompt": word + " 1" * 150, "max_tokens": 2, "temperature": 0}
        with live.client() as client:
            usage = client.post("/v1/completions", json=body).json()["usage"]
        return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]

    for word in ("a", "b", "c", "d"):
        ask(word)
    until(lambda: numbers(live)['dsr_model_moved{model="nano"}'] >= 250)
    length, cached = ask("a")
    assert cached == length - 1
