"""What a command in a box can do, and cannot do. Skipped where the system has no box."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from runtime.base.errors import Incompatible
from runtime.confined import box
from runtime.confined.box import HOME, BoxLimits, python_folders, run_boxed

needs_box = pytest.mark.skipif(box.why_not() is not None, reason=str(box.why_not()))
LIMITS = BoxLimits(seconds=20)


def python(code: str, limits: BoxLimits = LIMITS, **files: str) -> box.BoxEnd:
    return run_boxed([sys.executable, "try.py"], {"try.py": code, **files}, limits, python_folders())


@needs_box
def test_a_command_reads_its_files_and_tells_how_it_ended() -> None:
    assert python("import os; print(os.getcwd(), open('a.txt').read())", **{"a.txt": "five"}) == box.BoxEnd(
        0, f"{HOME} five\n"
    )
    assert python("raise SystemExit(3)").code == 3
    assert "ZeroDivisionError" in python("1 / 0").said


@needs_box
def test_a_command_reaches_no_network(tmp_path: Path) -> None:
    reached = """
import socket
for host in ("127.0.0.1", "192.0.2.1"):
    try:
        socket.create_connection((host, 9), 1)
    except ConnectionRefusedError:
        print("reached", host)  # somebody answered
    except OSError as error:
        print(error.strerror)
"""
    assert python(reached).said == "Network is unreachable\nNetwork is unreachable\n"


@needs_box
def test_a_command_sees_no_file_of_the_user_and_changes_none(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    tried = f"""
import os
for path in ({str(tmp_path / "secret")!r}, "/etc/passwd", "/proc/self/status", "/sys"):
    print(os.path.exists(path))
for path in ("/usr/new", "/usr/bin/env", os.path.join({sys.base_prefix!r}, "new")):
    try:
        open(path, "w")
    except OSError as error:
        print(error.strerror)
os.makedirs({str(tmp_path)!r})
open({str(tmp_path / "secret")!r}, "w").write("changed")
"""
    end = python(tried)
    assert end.said.split("\n") == [*["False"] * 4, *["Read-only file system"] * 3, ""] and end.code == 0
    assert (tmp_path / "secret").read_text() == "mine"


@needs_box
def test_a_command_cannot_leave_the_box() -> None:
    script = """
for tool in 'unshare --user true' 'unshare --map-root-user mount -t tmpfs x /usr' 'umount /usr' \
    'mount -o remount,bind,rw /usr' 'mount -t proc proc /box' 'chroot /box /usr/bin/true'; do
  if $tool 2>/dev/null; then echo "could: $tool"; fi
done
"""
    assert run_boxed(["/bin/sh", "-c", script], {}, LIMITS) == box.BoxEnd(0, "")


@needs_box
def test_limits_end_what_is_too_much() -> None:
    forever = "import subprocess, time\nsubprocess.Popen(['sleep', '60'])\nwhile True: pass"
    assert python(forever, BoxLimits(seconds=1)).code is None
    assert "MemoryError" in python("x = bytearray(2 << 30)", BoxLimits(seconds=20, memory=1 << 30)).said
    full = "for n in range(100): open(str(n), 'wb').write(bytes(1 << 20))"
    assert "No space left" in python(full, BoxLimits(seconds=20, files=4 << 20)).said


@needs_box
def test_long_output_is_cut_to_its_end() -> None:
    said = python("print('x' * 300_000)\nprint('the end')").said
    assert said.endswith("x\nthe end\n") and len(said) == 64 * 1024


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "", "a\0b"])
def test_a_file_outside_of_the_box_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box, "why_not", lambda: None)
    with pytest.raises(ValueError, match="is not the name of a file in the box"):
        run_boxed(["true"], {name: ""}, LIMITS)


def test_a_system_without_a_box_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box, "why_not", lambda: "mount (util-linux) is not installed")
    with pytest.raises(Incompatible) as raised:
        run_boxed(["true"], {}, LIMITS)
    assert raised.value.message == "there is no sandbox for untrusted commands: mount (util-linux) is not installed"


@pytest.mark.parametrize(
    ("platform", "missing", "reason"),
    [
        ("darwin", None, "it is made of Linux namespaces, and this is darwin"),
        ("linux", "prlimit", "prlimit (util-linux) is not installed"),
    ],
)
def test_why_there_is_no_box(platform: str, missing: str | None, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box.sys, "platform", platform)
    monkeypatch.setattr(box.shutil, "which", lambda name: None if name == missing else name)
    assert box.why_not.__wrapped__() == reason
