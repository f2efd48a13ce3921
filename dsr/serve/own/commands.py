"""Other commands of dsr, run in a process of their own: what they import and measure stays out of the server."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from dsr.serve.child import child_command, child_environment
from dsr.serve.http.errors import Refused

_PATIENCE = 120.0  # seconds; measuring a machine takes some
_STATUS = {2: 400, 3: 404, 5: 409, 6: 502, 7: 400}  # of exit codes; any other is a 500


async def command_json(*arguments: str) -> Any:
    """What `dsr ARGUMENTS --json` prints. Raises Refused with its error line."""
    process = await asyncio.create_subprocess_exec(
        *child_command("dsr", *arguments, "--json"),
        env=child_environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said, errors = await asyncio.wait_for(process.communicate(), _PATIENCE)
    except TimeoutError:
        raise Refused(504, f"dsr {arguments[0]} took more than {_PATIENCE:.0f} s") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
    if not said.strip():
        raise Refused(_STATUS.get(process.returncode or 1, 500), _error_line(errors) or f"dsr {arguments[0]} failed")
    return json.loads(said)


def _error_line(errors: bytes) -> str:
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    return " ".join(line.strip() for line in lines[-2:]).removeprefix("error: ")
