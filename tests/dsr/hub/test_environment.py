"""The variables of the environment: each that huggingface_hub reads has a meaning for dsr, and a place in the docs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest

from dsr.hub.environment import HONOURED, UNUSED

# They name a variable at run time: those of the user's shell for a command of `hf`, and those that a list of
# programs on the hub names (for its user agent; dsr sends its own).
COMPUTED = {"cli/spaces.py", "cli/jobs.py", "inference/_mcp/cli.py", "utils/_dotenv.py", "utils/_detect_agent.py"}
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "settings.md"


def read_by_the_library() -> set[str]:
    """The names of all variables in the code of huggingface_hub."""
    root = Path(huggingface_hub.__file__).parent
    names = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            key: ast.expr | None = None
            if isinstance(node, ast.Call) and node.args:
                called = ast.unparse(node.func)
                key = node.args[0] if called.endswith("getenv") or "environ" in called else None
            elif isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("environ"):
                key = node.slice
            if isinstance(key, ast.Constant):
                names.add(str(key.value))
            elif key is not None:
                assert path.relative_to(root).as_posix() in COMPUTED, f"{path}: which variable is {ast.unparse(key)}?"
    return names


def test_each_variable_of_the_library_is_honoured_or_named_as_unused() -> None:
    found = read_by_the_library()
    assert {"HF_HOME", "HF_TOKEN", "HF_HUB_OFFLINE"} <= found
    known = {*HONOURED, *UNUSED}
    missing = {n for n in found if n not in known and not any(k[-1] == "*" and n.startswith(k[:-1]) for k in known)}
    assert missing == set()
    assert not HONOURED.keys() & UNUSED.keys()


def test_the_page_has_each_variable() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, meaning in {**HONOURED, **UNUSED}.items():
        assert f"| `{name}` | {meaning} |" in page


_READ = """
from dsr.hub import environment, http
from dsr.hub.client import from_environment
found = environment.read()
hub = from_environment()
print(found.endpoint, hub.policy.stall_seconds, hub.cache("a/b").symlinks)
print(http.new_client(hub.policy).headers["user-agent"])
"""


def run(**variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "XDG_"))}
    return subprocess.run(
        [sys.executable, "-c", _READ], env={**kept, "HF_HOME": "/h", **variables}, capture_output=True, text=True
    )


def test_the_library_says_nothing_on_its_own() -> None:
    done = run(HF_HUB_ENABLE_HF_TRANSFER="1", HF_HUB_VERBOSITY="loud", HF_DEBUG="1")
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "https://huggingface.co 10.0 True"),
        ({"HF_ENDPOINT": ""}, "https://huggingface.co 10.0 True"),
        ({"HF_ENDPOINT": "https://mirror:8443/a/b/"}, "https://mirror:8443/a/b 10.0 True"),
        ({"HF_HUB_DISABLE_SYMLINKS": "1"}, "https://huggingface.co 10.0 False"),
        ({"HF_HUB_DOWNLOAD_TIMEOUT": "0"}, "https://huggingface.co 10.0 True"),
        ({"HF_HUB_USER_AGENT_ORIGIN": "lab"}, "; origin/lab"),
    ],
)
def test_a_variable_has_its_meaning(variables: dict[str, str], said: str) -> None:
    done = run(**variables)
    assert said in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"HF_HUB_DOWNLOAD_TIMEOUT": "soon"}, "HF_HUB_DOWNLOAD_TIMEOUT must be a whole number of seconds"),
        ({"HF_HUB_DOWNLOAD_TIMEOUT": ""}, "HF_HUB_DOWNLOAD_TIMEOUT must be"),
        ({"HF_HUB_DOWNLOAD_TIMEOUT": "-1"}, "HF_HUB_DOWNLOAD_TIMEOUT must be"),
        ({"HF_HUB_ETAG_TIMEOUT": "9" * 30}, "HF_HUB_ETAG_TIMEOUT must be"),
        ({"HF_ENDPOINT": "mirror"}, "HF_ENDPOINT is not an address"),
        ({"HF_ENDPOINT": "ftp://mirror"}, "HF_ENDPOINT is not an address"),
        ({"HF_ENDPOINT": "https://[::1"}, "HF_ENDPOINT is not an address"),
        ({"HF_ENDPOINT": "https://me:secret@host:port"}, "HF_ENDPOINT is not an address"),
        ({"HF_ENDPOINT": "https://a b"}, "HF_ENDPOINT is not an address"),
        ({"HF_HUB_USER_AGENT_ORIGIN": "a\r\nb: c"}, "HF_HUB_USER_AGENT_ORIGIN has characters"),
        ({"HF_TOKEN": "hf_\u00e9"}, "your token has characters that no token has"),
        ({"HF_OIDC_RESOURCE": "x"}, "cannot get a token: HF_OIDC_RESOURCE is set but"),
        ({"ALL_PROXY": "socks5://127.0.0.1:9"}, "the proxy or the certificates of the environment cannot be used"),
        ({"HTTPS_PROXY": "gopher://127.0.0.1:9"}, "the proxy or the certificates of the environment cannot be used"),
        ({"SSL_CERT_FILE": "/nowhere"}, "the proxy or the certificates of the environment cannot be used"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_used_is_one_sentence(variables: dict[str, str], said: str) -> None:
    done = run(**variables)
    last = done.stderr.strip().rpartition("\n")[2]
    assert said in last and "secret" not in last and "runtime.base.errors." in last
