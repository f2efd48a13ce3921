"""Clients that others wrote, unmodified, over a socket: `url` is a server with scripted engines, `live` a real one.

A client that is not installed skips its tests: `pip install --group clients` installs all of them.
"""

from __future__ import annotations

import gc
import socket
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from dsr.serve.http.app import make_app
from dsr.serve.http.server import Server

HERE = Path(__file__).parent
# What the embedded model is asked, and its greedy answer.
SUM = [{"role": "user", "content": "What is 12 + 30?"}]
SUM_ANSWER = "The answer is \\boxed{42}."


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What other people's packages warn of is theirs."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Connections that such a client leaves open are collected here, not in a test that counts their warning."""
    result = yield
    if HERE in item.path.parents:  # pytest calls this hook for the tests of other folders, too
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
    return result


def client_package(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    """The address of a server whose engines the test scripts (`engines`)."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # a client may come before the thread has begun
        running = uvicorn.Server(uvicorn.Config(make_app(server), log_config=None, access_log=False, lifespan="on"))
        thread = threading.Thread(target=running.run, args=([listener],), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        running.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
