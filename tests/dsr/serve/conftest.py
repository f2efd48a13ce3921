"""A server over engines that a test scripts (`engines`, `client`), and a real one with the embedded model (`live`)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from dsr.models import library
from dsr.serve.http.app import make_app
from dsr.serve.http.server import Server
from dsr.serve.names import Names
from dsr.serve.pool.pool import Pool, PoolOptions
from dsr.serve.pool.room import Memory
from tests.dsr.serve.fake_engine import FakeEngines
from tests.dsr.serve.live_server import Live, start_server, stop_server


@pytest.fixture
def engines() -> FakeEngines:
    """The engines that `client` reaches."""
    return FakeEngines()


@pytest.fixture
def server(engines: FakeEngines) -> Server:
    """A server that has the embedded model, and plenty of memory."""
    pool = Pool(PoolOptions(), lambda: Memory(1 << 40, 1 << 40), make=engines)
    return Server(Names([library.find("nano")]), pool)


@pytest.fixture
def client(server: Server) -> Iterator[TestClient]:
    """Speaks to the routes of `server`, as a program on this machine does."""
    with TestClient(make_app(server), base_url="http://127.0.0.1:11500", client=("127.0.0.1", 50000)) as client:
        yield client


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A real server with the embedded model and one thread, for what only it can show. Tests share it."""
    folder = tmp_path_factory.mktemp("live")
    live = start_server(log=folder / "log", home=folder / "home")
    yield live
    stop_server(live)
