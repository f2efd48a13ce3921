"""A report in a real browser, without a screen."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from dsr.bench.report.page import html
from dsr.bench.report.report import build_report
from tests.dsr.bench.report.rows import HOSTILE, ROWS, RUN, many


def browser() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


pytestmark = pytest.mark.skipif(browser() is None, reason="no chromium is installed")


def shown(file: Path) -> tuple[str, list[str]]:
    """The document as the browser understood it, and what it wrote to its console."""
    arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    arguments += ["--allow-file-access-from-files", "--enable-logging=stderr", "--window-size=1400,900"]
    arguments += [f"--user-data-dir={file.parent / 'profile'}", "--dump-dom", file.as_uri()]
    ran = subprocess.run([browser() or "", *arguments], capture_output=True, timeout=100, check=True)
    lines = ran.stderr.decode("utf-8", "replace").splitlines()
    return ran.stdout.decode(), [line for line in lines if "CONSOLE" in line]


def test_a_browser_finds_no_fault(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    page = html(build_report([*ROWS, replace(ROWS[0], model=HOSTILE, digest="h")], [RUN]))
    file.write_text(page, encoding="utf-8")
    document, said = shown(file)
    assert said == []
    assert document.count("</svg>") == 2 * 5
    # The page allows no script, so one in it is a fault: here it is seen that faults are found.
    file.write_text(page.replace("</main>", "<script>document.title = 'x'</script></main>"), encoding="utf-8")
    assert shown(file)[1] != []


# A page with two frames of the widths of a desktop and a phone tells what they hold.
FRAMES = """<!DOCTYPE html><body>
<iframe src="page.html" width="1280" height="800"></iframe><iframe src="page.html" width="390" height="800"></iframe>
<script>
onload = () => {
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument
    const seen = [...page.querySelectorAll(".files")].map(table => table.parentElement)
    const told = [frame.clientWidth, page.documentElement.scrollWidth - page.documentElement.clientWidth,
      Math.max(...seen.map(each => each.scrollWidth - each.clientWidth)),
      [...page.querySelectorAll("svg")].filter(each => each.getBoundingClientRect().width > 0).length]
    document.body.append(`<<${told.join(" ")}>>`)
  }
}
</script></body>"""


def test_a_page_of_many_files_is_not_wider_than_a_desktop_or_a_phone(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(html(build_report(many(), [RUN])), encoding="utf-8")
    (tmp_path / "frames.html").write_text(FRAMES, encoding="utf-8")
    document, said = shown(tmp_path / "frames.html")
    assert said == []
    desktop, phone = (
        [int(number) for number in told.split()] for told in re.findall(r"&lt;&lt;([\d -]+)&gt;&gt;", document)
    )
    # The window, by what the document is wider, by what the widest table is, and the pictures that are seen.
    assert desktop == [1280, 0, 0, 5]
    assert phone[:2] == [390, 0]
    assert phone[2] > 0
    assert phone[3] == 5
