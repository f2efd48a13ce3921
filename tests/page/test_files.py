"""The files of the page as they are served: nothing from elsewhere, nothing inline, libraries with licence and hash."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess

import pytest
from starlette.testclient import TestClient

from dsr.serve.page.routes import POLICY, page_files
from tests.dsr.serve.conftest import client, engines, server  # noqa: F401
from tests.page import mock_server

STATIC = mock_server.PAGE
OWN = {name: path for name, path in page_files().items() if not name.startswith("vendored/")}
ROW = re.compile(r"^\| (\S+) \| (\S+) \| (\S+) \| (.+) \| `([0-9a-f]{64})` \|$", re.MULTILINE)


def test_all_files_together_stay_under_two_megabytes() -> None:
    assert sum(path.stat().st_size for path in page_files().values()) < 2_000_000


def test_each_vendored_file_is_the_one_that_the_list_names() -> None:
    listed = {row[0]: row[4] for row in ROW.findall((STATIC / "vendored/README.md").read_text(encoding="utf-8"))}
    found = {
        name.removeprefix("vendored/"): path for name, path in page_files().items() if name.startswith("vendored/")
    }
    code = {name: path for name, path in found.items() if not name.endswith(("LICENSE", "README.md"))}
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in code.items()} == listed
    assert {name.partition("/")[0] for name in code} == {name.partition("/")[0] for name in found if "LICENSE" in name}


def test_the_page_names_no_address_elsewhere() -> None:
    addresses = {
        address
        for name, path in OWN.items()
        if name.endswith((".js", ".css", ".html"))
        for address in re.findall(r"https?://[\w.-]+[^\s\"'`)\\]*", path.read_text(encoding="utf-8"))
    }
    assert addresses == {"http://www.w3.org/2000/svg"}


def test_the_html_has_nothing_inline_that_the_policy_forbids() -> None:
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"\sstyle=|<style|\son\w+=|<script(?![^>]*\ssrc=)", html) == []


def test_every_module_parses() -> None:
    if (node := shutil.which("node")) is None:
        pytest.skip("there is no node on this machine")
    for name, path in OWN.items():
        if name.endswith(".js"):
            command = [node, "--input-type=module", "--check"]
            done = subprocess.run(command, input=path.read_bytes(), capture_output=True, check=False)
            assert done.returncode == 0, done.stderr.decode()


def test_every_module_has_less_than_350_lines() -> None:
    long = {name for name, path in OWN.items() if name.endswith(".js") and len(path.read_text().splitlines()) >= 350}
    assert long == set()


def test_files_are_served_with_their_type_and_the_policy(client: TestClient) -> None:  # noqa: F811
    told = {path: client.get(path) for path in ("/", "/page/main.js", "/page/css/base.css")}
    types = ["text/html; charset=utf-8", "text/javascript; charset=utf-8", "text/css; charset=utf-8"]
    assert [each.headers["content-type"] for each in told.values()] == types
    assert {each.headers["content-security-policy"] for each in told.values()} == {POLICY}
    assert {each.headers["x-content-type-options"] for each in told.values()} == {"nosniff"}
    font = client.get("/page/vendored/inter/inter-latin-wght-normal.woff2")
    assert font.headers["content-type"] == "font/woff2"


def test_a_file_that_did_not_change_is_not_sent_again(client: TestClient) -> None:  # noqa: F811
    tag = client.get("/page/main.js").headers["etag"]
    again = client.get("/page/main.js", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "name", ["../routes.py", "..%2froutes.py", "/etc/passwd", "%2e%2e/__init__.py", "css", "none.js"]
)
def test_only_files_of_the_page_are_served(client: TestClient, name: str) -> None:  # noqa: F811
    assert client.get(f"/page/{name}").status_code == 404


def test_the_mock_has_the_policy_of_the_server() -> None:
    assert mock_server.POLICY == POLICY
