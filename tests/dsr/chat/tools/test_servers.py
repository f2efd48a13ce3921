"""Servers that run: listed, called, cancelled, dying, hostile; and none is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dsr.chat.tools import local_process, servers
from dsr.chat.tools.config import LocalServer, RemoteServer, ServerConfig
from dsr.chat.tools.servers import Servers
from dsr.chat.tools.tool_servers import CallCancelled, CallResult, Listing
from runtime.base.errors import Aborted
from runtime.base.run import Stop

HERE = Path(__file__).parent


def a_server(name: str = "a") -> LocalServer:
    return LocalServer(name, sys.executable, (str(HERE / "a_server.py"),), (), HERE)


def hostile(mode: str, *args: str) -> LocalServer:
    return LocalServer("h", sys.executable, (str(HERE / "hostile_server.py"), mode, *args), (), HERE)


def called(
    running: Servers, server: ServerConfig, tool: str = "x", seconds: float = 60, **arguments: object
) -> CallResult:
    return running.call(server, tool, arguments, seconds, Stop())


def started(server: ServerConfig) -> Listing:
    with Servers([server]) as running:
        return running.start(Stop())[0]


class StopWhen(Stop):
    """Ctrl-C as soon as a file exists."""

    def __init__(self, marker: Path) -> None:
        super().__init__()
        self.marker = marker

    def take(self) -> bool:
        return self.marker.exists()


def test_tools_are_listed_and_called() -> None:
    server = a_server()
    with Servers([server]) as running:
        listing = running.start(Stop())[0]
        assert [tool.name for tool in listing.tools] == ["add", "parts", "fails", "waits", "dies"]
        assert listing.tools[0].description == "Add two numbers."
        assert set(listing.tools[0].schema["properties"]) == {"a", "b"}
        assert called(running, server, "add", a=2, b=3) == CallResult("5")
        assert called(running, server, "parts").text == (
            "a text [31mred[0m\n[image of type image/png, 3 B, not read]\nof a resource"
        )
        assert called(running, server, "fails") == CallResult("Error executing tool fails", failed=True)
        assert called(running, server, "nothing").failed


def test_ctrl_c_cancels_a_call_and_the_server_goes_on(tmp_path: Path) -> None:
    server = a_server()
    with Servers([server]) as running:
        running.start(Stop())
        marker = tmp_path / "called"
        with pytest.raises(CallCancelled):
            running.call(server, "waits", {"marker": str(marker)}, 60, StopWhen(marker))
        assert not running._connections[0].gone


def test_a_server_that_dies_in_a_call_tells_its_exit_code_and_last_words() -> None:
    server = a_server()
    with Servers([server]) as running:
        running.start(Stop())
        last = called(running, server, "dies")
        assert last == CallResult("it ended with exit code 7: out of [31mcheese", failed=True)
        again = called(running, server, "add", a=1, b=1)
        assert again == CallResult("the server a is gone: it ended with exit code 7: out of [31mcheese", failed=True)


def test_servers_that_do_not_start_are_lines_and_the_others_run() -> None:
    missing = LocalServer("m", "no-such-program", (), (), HERE)
    folder = LocalServer("f", sys.executable, (), (), HERE / "nowhere")
    dead = LocalServer("d", sys.executable, ("-c", "import sys; sys.exit('no\\x1b[2J key\\n')"), (), HERE)
    closed = RemoteServer("r", "http://127.0.0.1:9/mcp", ())
    with Servers([missing, folder, dead, closed, hostile("ok")]) as running:
        problems = [each.problem for each in running.start(Stop())]
    assert problems[0] == "no-such-program: no such program or folder"
    assert problems[1] == f"{HERE / 'nowhere'}: no such program or folder"
    assert problems[2] == "it ended with exit code 1: no[2J key"
    assert problems[3] and "\n" not in problems[3]
    assert problems[4] == ""


def test_a_server_that_hangs_is_a_line_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "START_SECONDS", 3.0)
    monkeypatch.setattr(local_process, "_TO_END", 0.1)
    assert started(hostile("silent")).problem == "it did not answer within 3 s: downloading the internet"


def test_ctrl_c_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_process, "_TO_END", 0.1)
    stop = Stop()
    stop.set()
    with Servers([hostile("silent")]) as running, pytest.raises(Aborted):
        running.start(stop)
    assert not running._thread.is_alive()


def test_a_message_that_cannot_be_read_is_a_line_at_once() -> None:
    problem = started(hostile("deep")).problem
    assert problem.startswith("it sent a message that cannot be read: ") and "recursion" in problem


def test_a_listing_without_an_end_is_cut() -> None:
    assert len(started(hostile("endless")).tools) == 64


def test_lines_that_are_no_messages_are_passed_over() -> None:
    assert [tool.name for tool in started(hostile("noisy")).tools] == ["x"]


def test_a_result_may_be_huge_and_a_line_without_an_end_ends_the_server() -> None:
    with Servers([huge := hostile("huge")]) as running:
        running.start(Stop())
        assert len(called(running, huge).text) == 5_000_000
    with Servers([endless := hostile("long line")]) as running:
        running.start(Stop())
        assert called(running, endless).text == "it sent a line of more than 16 MiB"


def test_a_call_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    server = a_server()
    with Servers([server]) as running:
        running.start(Stop())
        assert called(running, server, "waits", 0.5, marker=str(tmp_path / "m")).text == "no result within 0.5 s"


def test_no_expression_of_a_server_is_tried_on_its_result() -> None:
    """The expression would take longer than the universe has lasted."""
    with Servers([server := hostile("expression")]) as running:
        running.start(Stop())
        assert called(running, server).text == '{"x": "' + "a" * 60 + '!"}'


def test_a_server_cannot_ask_the_person_or_the_model() -> None:
    with Servers([server := hostile("asks")]) as running:
        running.start(Stop())
        assert called(running, server) == CallResult("ok")


def alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{number}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(sys.platform == "win32", reason="groups of processes")
def test_a_server_that_ignores_its_end_is_killed_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_process, "_TO_END", 0.1)
    monkeypatch.setattr(local_process, "_TO_TERMINATE", 0.1)
    with Servers([hostile("stays", str(tmp_path / "pids"))]) as running:
        assert running.start(Stop())[0].problem == ""
        numbers = [int(each) for each in (tmp_path / "pids").read_text().split()]
        assert all(map(alive, numbers))
    assert not any(map(alive, numbers))


@pytest.mark.skipif(sys.platform == "win32", reason="groups of processes")
def test_no_server_outlives_a_dsr_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from dsr.chat.tools.config import LocalServer\nfrom dsr.chat.tools.servers import Servers\n"
        "from runtime.base.run import Stop\n"
        f"server = LocalServer('h', sys.executable, ({str(HERE / 'hostile_server.py')!r}, 'stays',"
        f" {str(tmp_path / 'pids')!r}), (), Path('.'))\n"
        "with Servers([server]) as running:\n    running.start(Stop())\n"
        "    print('up', flush=True)\n    time.sleep(99)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=HERE.parents[3]) as dsr:
        assert dsr.stdout is not None
        assert dsr.stdout.readline() == b"up\n"
        numbers = [int(each) for each in (tmp_path / "pids").read_text().split()]
        dsr.send_signal(signal.SIGKILL)
    while any(map(alive, numbers)):  # the time limit of the test ends this if they stay
        time.sleep(0.05)


def test_a_remote_server_is_called_by_streamable_http() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = [sys.executable, str(HERE / "a_server.py"), str(port)]
    with subprocess.Popen(script, stderr=subprocess.DEVNULL) as process:
        try:
            while True:
                with socket.socket() as trying:
                    if trying.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            server = RemoteServer("r", f"http://127.0.0.1:{port}/mcp", (("X-Key", "k"),))
            with Servers([server]) as running:
                assert running.start(Stop())[0].problem == ""
                assert called(running, server, "add", a=2, b=3) == CallResult("5")
        finally:
            process.kill()
