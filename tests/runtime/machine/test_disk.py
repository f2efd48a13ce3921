"""Reading a file past the system's cache: a speed, or zero where there is none to tell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from runtime.machine.disk import network_file_system, read_speed

DIRECT = getattr(os, "O_DIRECT", 0)


def test_a_file_has_a_speed(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(bytes((5 << 20) + 17))
    assert read_speed(file) > 0


def test_too_little_to_tell(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(bytes(1000))
    assert read_speed(file) == 0
    assert read_speed(tmp_path / "missing") == 0
    assert read_speed(tmp_path) == 0


@pytest.mark.skipif(not DIRECT, reason="no direct reads on this system")
def test_a_file_system_without_direct_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model"
    file.write_bytes(bytes(2 << 20))
    opened = os.open

    def without_direct(path: Any, flags: int) -> int:
        if flags & DIRECT:
            raise OSError(22, "Invalid argument")
        return opened(path, flags)

    monkeypatch.setattr(os, "open", without_direct)
    assert read_speed(file) > 0


MOUNTS = """22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:50 / /mnt rw - nfs4 server:/models rw,vers=4.2
31 30 254:1 / /mnt/fast\\040disk rw shared:1 - xfs /dev/nvme0n1 rw
32 22 0:51 / /srv rw - ext4 /dev/vdb rw
33 22 0:52 / /srv rw - fuse.sshfs me@host:/srv rw
a broken line
"""


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("/home/me/m.gguf", ""),
        ("/mnt/m.gguf", "nfs4"),
        ("/mnt/fast disk/m.gguf", ""),
        ("/mnt/fastest/m.gguf", "nfs4"),
        ("/srv/m.gguf", "fuse.sshfs"),
    ],
)
def test_a_network_file_system_is_known_by_the_mount_that_leads_to_the_file(
    tmp_path: Path, file: str, kind: str
) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    assert network_file_system(Path(file), tmp_path / "mountinfo") == kind
    assert network_file_system(Path(file), tmp_path / "missing") == ""
