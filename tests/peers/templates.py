"""Chat templates as llama.cpp renders them, and its replies as it tells thought and answer apart.

    python tests/peers/templates.py LLAMA_CPP LLAMA_SERVER [--only TEXT] [--show] [--port N]

For each template in LLAMA_CPP/models/templates, LLAMA_SERVER holds the embedded model with that template. It renders a
question, a system prompt with a question, and three turns (`/apply-template`), with thinking as it comes and without.
dsr renders the same through `Model.chat_format`, as `dsr chat --template FILE` does.
Then the server draws a reply that a grammar dictates, with a thought in it, and says which part is `reasoning_content`;
dsr reads the same text. The thought is written as the template itself writes one for an earlier answer; where it writes
none, in `<think>` tags, if the template names them. Exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dsr.models import library
from dsr.models.model import ChatFormat
from runtime.base.errors import Incompatible
from runtime.base.types import Message
from runtime.engine.template import close_thought, open_thought
from runtime.engine.thinking import ThinkingSplitter

SYSTEM = Message("system", "Be kind: answer in “one” line.")
FIRST = Message("user", 'What is <b>2</b> & "2"?\n- in numbers\n- in words')
ANSWER = Message("assistant", "It is 4.\n\nIn words: four.")
SECOND = Message("user", "Und in Zürich?")
CASES: dict[str, list[Message]] = {
    "question": [FIRST],
    "system": [SYSTEM, FIRST],
    "three turns": [SYSTEM, FIRST, ANSWER, SECOND],
}
THOUGHT, SAID = "First I add. Then I look.", "The sum is four."
SECONDS = 60


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one template: the cells of the table, and the differences."""

    name: str
    cells: dict[str, str]
    differences: tuple[str, ...]


class Refused(Exception):
    """The server refused, and says why."""


class Server:
    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(self._base + path, json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise Refused(error.read().decode()[:2000]) from None

    def rendered(self, messages: list[dict[str, str]], **options: Any) -> str:
        return str(self.post("/apply-template", {"messages": messages, **options})["prompt"])

    def reply(self, messages: list[dict[str, str]], text: str) -> tuple[str, str]:
        """Thought and answer of a reply that says exactly `text`."""
        grammar = f"root ::= {json.dumps(text, ensure_ascii=False)}"
        body = {"messages": messages, "grammar": grammar, "max_tokens": 512, "temperature": 0}
        said = self.post("/v1/chat/completions", body)["choices"][0]["message"]
        return (said.get("reasoning_content") or "").strip(), (said.get("content") or "").strip()


@contextmanager
def serving(binary: Path, model: Path, template: Path, port: int) -> Iterator[Server]:
    """Raises Refused where the server does not start with the template."""
    command = [str(binary), "-m", str(model), "--jinja", "--chat-template-file", str(template), "--port", str(port)]
    command += ["--host", "127.0.0.1", "-t", "1", "-c", "4096", "-np", "1", "--no-webui", "--no-warmup"]
    command += ["--no-prefill-assistant"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        log: list[str] = []
        try:
            assert process.stdout is not None
            for line in process.stdout:
                log.append(line)
                if "listening" in line:
                    break
            else:
                raise Refused("".join(log[-8:]))
            yield Server(port)
        finally:
            process.kill()


def spoken(messages: list[Message]) -> list[dict[str, str]]:
    return [{"role": each.role, "content": each.content} for each in messages]


def switches(ours: ChatFormat, messages: list[Message]) -> list[tuple[str, bool | None, bool | None]]:
    """What to compare: its name, and the thinking that dsr and the server are asked for.

    The server always gives the template an `enable_thinking`, and dsr only on request. So the template's own default is
    compared with the value that renders the same.
    """
    try:
        own, on, off = (ours.template.render(messages, enable_thinking=each) for each in (None, True, False))
    except Incompatible:
        return [("default", None, None)]
    if on == off:
        return [("default", None, None)]
    default = next((value for value, text in ((True, on), (False, off)) if text == own), None)
    return [("default", None, default), ("thinking on", True, True), ("thinking off", False, False)]


def compared(ours: ChatFormat, server: Server, messages: list[Message]) -> Iterator[str]:
    """The differences; none where both render the same, or both refuse."""
    bos = ours.template.bos
    for how, thinking, asked in switches(ours, messages):
        options = {} if asked is None else {"chat_template_kwargs": {"enable_thinking": asked}}
        theirs = refusal = mine = error = None
        try:
            theirs = server.rendered(spoken(messages), **options).removeprefix(bos)
        except Refused as refused:
            refusal = str(refused)
        try:
            mine = ours.prompt(messages, thinking).text.removeprefix(bos)
        except Incompatible as refused:
            error = refused.message
        if mine is None and theirs is None:
            continue
        # dsr begins or closes a thought where it was asked to, and the template does not.
        forced = ours.markers is not None and thinking is not None and mine is not None and theirs is not None
        if mine == theirs or (forced and mine in (open_thought(theirs, ours.markers), closed(theirs, ours))):
            continue
        if mine is None or theirs is None:
            yield f"{how}: {'dsr' if mine is None else 'llama-server'} refuses: {error or refusal}"
        else:
            yield f"{how}: {first_difference(mine, theirs)}"


def closed(prompt: str, ours: ChatFormat) -> str:
    assert ours.markers is not None
    return close_thought(prompt, ours.markers, "")


def first_difference(mine: str, theirs: str) -> str:
    at = next((at for at, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs)))
    start = max(at - 20, 0)
    return f"dsr …{mine[start : at + 60]!r}, llama-server …{theirs[start : at + 60]!r}"


def scripted(server: Server, source: str) -> str | None:
    """A reply with a thought as this template writes one; None where nothing says how."""
    turn = [{**spoken([ANSWER])[0], "content": SAID, "reasoning_content": THOUGHT}]
    try:
        begun = server.rendered(spoken([FIRST]))
        whole = server.rendered(spoken([FIRST]) + turn, add_generation_prompt=False)
    except Refused:
        begun = whole = ""
    if THOUGHT in whole and SAID in whole:
        length = next((n for n, (a, b) in enumerate(zip(begun, whole, strict=False)) if a != b), len(begun))
        reply = whole[length:]
        if THOUGHT in reply:
            return reply[: reply.index(SAID) + len(SAID)]
    if "<think>" not in source and "</think>" not in source:
        return None
    opened = begun.rstrip().endswith("<think>")
    return f"{'' if opened else '<think>'}\n{THOUGHT}\n</think>\n\n{SAID}"


def told_apart(ours: ChatFormat, text: str) -> tuple[str, str]:
    """Thought and answer as dsr shows them."""
    splitter = ThinkingSplitter(ours.markers, ours.prompt([FIRST]).starts_in_thought)
    parts = [*splitter.feed(text), *splitter.finish(complete=True)]
    thought, answer = ("".join(said for part, said in parts if part == which) for which in ("thinking", "answer"))
    return thought[: splitter.thought_end].strip(), answer.strip()


def compare(template: Path, binary: Path, port: int, *, show: bool) -> Row:
    model, source = library.find("nano"), template.read_text(encoding="utf-8")
    name, cells, differences = template.stem, {}, []
    try:
        ours, fault = model.chat_format(source), ""
    except Incompatible as error:
        ours, fault = None, error.message
    try:
        with serving(binary, model.path, template, port) as server:
            if ours is None:
                return Row(name, dict.fromkeys(CASES, "differs"), (f"dsr refuses: {fault}",))
            for case, messages in CASES.items():
                found = list(compared(ours, server, messages))
                cells[case] = "differs" if found else "same"
                differences += [f"{case}, {each}" for each in found]
            reply = scripted(server, source)
            cells["thought"] = "none"
            if reply is not None:
                mine, theirs = told_apart(ours, reply), server.reply(spoken([FIRST]), reply)
                cells["thought"] = "same" if mine == theirs else "differs"
                if mine != theirs:
                    differences.append(f"reply {reply!r}: dsr {mine}, llama-server {theirs}")
                elif show:
                    print(f"  {reply!r} -> {mine}")
    except Refused as error:
        if ours is None:
            return Row(name, dict.fromkeys(CASES, "both refuse"), ())
        differences.append(f"llama-server: {error}")
    return Row(name, cells, tuple(differences))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama_cpp", type=Path, help="the source of llama.cpp")
    parser.add_argument("llama_server", type=Path, help="its llama-server")
    parser.add_argument("--only", default="", help="templates with this text in their name")
    parser.add_argument("--port", type=int, default=18573)
    parser.add_argument("--show", action="store_true", help="print the scripted replies too")
    asked = parser.parse_args()
    templates = sorted((asked.llama_cpp / "models" / "templates").glob("*.jinja"))
    templates = [each for each in templates if asked.only.lower() in each.stem.lower()]
    if not templates:
        sys.exit(f"{asked.llama_cpp}: no chat templates there")
    columns = (*CASES, "thought")
    print(f"{'template':52} " + " ".join(f"{each:11}" for each in columns))
    rows = []
    for template in templates:
        row = compare(template, asked.llama_server, asked.port, show=asked.show)
        rows.append(row)
        print(f"{row.name:52} " + " ".join(f"{row.cells.get(each, '-'):11}" for each in columns), flush=True)
        for difference in row.differences:
            print(f"    {difference}", flush=True)
    for column in columns:
        counts = {word: sum(row.cells.get(column) == word for row in rows) for word in ("same", "differs", "none")}
        print(f"{column}: {', '.join(f'{count} {word}' for word, count in counts.items() if count)}")
    sys.exit(1 if any(row.differences for row in rows) else 0)


main()
