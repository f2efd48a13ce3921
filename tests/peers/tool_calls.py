"""Tools as llama.cpp renders them, and calls as it reads them from replies.

    python tests/peers/tool_calls.py LLAMA_CPP LLAMA_SERVER [--only TEXT] [--port N]

For each template in LLAMA_CPP/models/templates, LLAMA_SERVER holds the embedded model with that template. It renders a
question with two tools, and a conversation with a call and its result (`/apply-template`). dsr renders the same. Then
dsr reads a reply with one call and one with two, written as the template itself writes them. llama-server reads no
given reply: it refuses a grammar that dictates one while there are tools.

"same": the prompts are equal. "added": the template takes no tools or no calls, and dsr writes them into the contents.
"read": dsr reads the calls that were written. "none": the template writes no two calls. Exit code 1 where anything
else comes out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dsr.models import library
from dsr.models.model import ChatFormat
from runtime.base.common_prefix import common_length
from runtime.base.errors import Incompatible
from runtime.base.types import Message, Tool, ToolCall
from runtime.engine.chat_template import PLAIN_CALLS
from runtime.engine.template import build_prompt
from runtime.engine.template_variables import template_variables
from runtime.engine.thinking import ThinkingSplitter
from runtime.engine.tool_calls import Calling, call_reader, ids_of
from runtime.engine.tool_form import as_openai, tool_variables
from runtime.engine.tool_prompt import with_tools
from tests.peers.template_server import Refused, Server, first_difference, serving

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "Its name."}, "days": {"type": "integer"}},
    "required": ["city"],
}
TOOLS = (
    Tool("get_weather", "The weather of a city.", PARAMETERS),
    Tool("run", "Runs code.", {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]}),
)
ASKED = Message("user", "What is the weather in Zürich?")
CALLS = (
    ToolCall("abcdefgh1", "get_weather", '{"city": "Zürich", "days": 3}'),
    ToolCall("abcdefgh2", "run", json.dumps({"code": 'print("<b>")\nx = {1: 2}'})),
)
CALLED = Message("assistant", "", calls=CALLS[:1])
RESULT = Message("tool", "sunny", call_id="abcdefgh1", name="get_weather")
COLUMNS = ("tools", "result", "one call", "two calls")


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    cells: dict[str, str]
    differences: tuple[str, ...]


def spoken(message: Message) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "tool", "content": message.content, "tool_call_id": message.call_id, "name": message.name}
    calls = [
        {"id": each.id, "type": "function", "function": {"name": each.name, "arguments": each.arguments}}
        for each in message.calls
    ]
    return {"role": message.role, "content": message.content, **({"tool_calls": calls} if calls else {})}


def body(*messages: Message, **options: Any) -> dict[str, Any]:
    return {"messages": [*map(spoken, messages)], "tools": [*map(as_openai, TOOLS)], **options}


def rendered(ours: ChatFormat, server: Server, *messages: Message) -> tuple[str, str]:
    """The cell, and the difference or ""."""
    theirs = refusal = mine = error = None
    try:
        own = ours.template.render(messages[:1], variables=tool_variables(ours.tool_form.lists, TOOLS))
        switched = {
            value: ours.template.probe(messages[:1], {"enable_thinking": value}) == ours.template.probe(messages[:1])
            for value in (True, False)
        }
        default = next((value for value, same in switched.items() if same), None) if own else None
        kwargs = {"enable_thinking": default, "preserve_reasoning": None}
        theirs = str(server.post("/apply-template", body(*messages, chat_template_kwargs=kwargs))["prompt"])
    except (Refused, Incompatible) as refused:
        refusal = str(refused)
    try:
        form = ours.tool_form
        mine = build_prompt(ours.template, messages, ours.markers, None, "", tools=TOOLS, form=form).text
    except Incompatible as refused:
        error = refused.message
    if mine is None or theirs is None:
        if mine is None and theirs is None:
            return "both refuse", ""
        return ("dsr alone" if theirs is None else "differs"), f"{error or refusal}"[:300] if mine is None else ""
    bos = ours.template.bos
    mine, theirs = mine.removeprefix(bos), theirs.removeprefix(bos)
    if mine == theirs:
        return "same", ""
    if not ours.tool_form.lists or ours.tool_form.writes is None:
        return "added", ""
    return "differs", first_difference(mine, theirs)


def scripted(ours: ChatFormat, calls: tuple[ToolCall, ...]) -> str | None:
    """The calls as the template writes them, or as its syntax says."""
    form = ours.tool_form
    if len(calls) > 1 and not form.parallel:
        return None
    said, variables = with_tools((ASKED, Message("assistant", "", calls=calls)), TOOLS, form)
    if form.writes is None:
        return form.syntax.written(calls)
    everything = {**template_variables(ours.template).on, **variables}
    way = form.writes or PLAIN_CALLS
    whole = ours.template.render(said, variables=everything, add_generation_prompt=False, calls=way)
    answer = Message("assistant", "Qz")
    plain = ours.template.render((ASKED, answer), variables=everything, add_generation_prompt=False)
    marks = [mark for mark in (*form.begins, form.header, "{" if form.bare else "") if mark]
    behind = whole.rfind(ASKED.content) + len(ASKED.content)
    at = min((place for mark in marks if (place := whole.find(mark, behind)) >= 0), default=-1)
    if form.header:
        at -= 1  # the space before the recipient
    ending = common_length(whole[::-1], plain.partition("Qz")[2][::-1])
    return whole[at : len(whole) - ending] if at >= 0 else None


def read(ours: ChatFormat, prompt: str, text: str) -> list[tuple[str, Any]]:
    """The calls that dsr reads behind a prompt."""
    of = Calling(ours.tool_form, TOOLS)
    markers = ours.markers
    begun = markers is not None and prompt.rstrip().endswith(markers.open)
    header = markers.header.open_at_end(prompt) if markers and markers.header else ""
    splitter = ThinkingSplitter(markers, begun, open_header=header, calls=of.form.call_marks)
    reader = call_reader(of, ids_of("any", ()), begun=of.begun_by(prompt))
    if of.begun_by(prompt):
        splitter.begin_calls()
    parts = splitter.feed(text) + splitter.finish()
    for part, piece in parts:
        if part == "calls":
            reader.feed(piece)
    reader.finish()
    return [(call.name, call.done().values) for call in reader.calls if call.state == "complete"]


def called(ours: ChatFormat, calls: tuple[ToolCall, ...]) -> tuple[str, str]:
    try:
        reply = scripted(ours, calls)
        prompt = build_prompt(ours.template, (ASKED,), ours.markers, None, "", tools=TOOLS, form=ours.tool_form).text
    except Incompatible as error:
        return "refuses", error.message
    if reply is None:
        return "none", ""
    if Calling(ours.tool_form, TOOLS).begun_by(prompt):
        reply = reply.removeprefix(">>>")
    if ours.markers is not None and prompt.rstrip().endswith(ours.markers.open):
        reply = "hm" + ours.markers.forced_close + reply
    wanted = [(call.name, call.values) for call in calls]
    mine = read(ours, prompt, reply)
    return ("read", "") if mine == wanted else ("differs", f"reply {reply!r}: dsr reads {mine}")


def compare(template: Path, binary: Path, port: int) -> Row:
    model, source = library.find("nano"), template.read_text(encoding="utf-8")
    cells: dict[str, str] = {}
    differences: list[str] = []
    try:
        ours = model.chat_format(source)
        cells["one call"], one = called(ours, CALLS[:1])
        cells["two calls"], two = called(ours, CALLS)
        with serving(binary, model.path, template, port) as server:
            cells["tools"], tools = rendered(ours, server, ASKED)
            cells["result"], result = rendered(ours, server, ASKED, CALLED, RESULT)
        found = {"one call": one, "two calls": two, "tools": tools, "result": result}
        differences += [f"{column}: {text}" for column, text in found.items() if text]
    except (Incompatible, Refused) as error:
        differences.append(str(error)[:300])
    return Row(template.stem, cells, tuple(differences))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama_cpp", type=Path, help="the source of llama.cpp")
    parser.add_argument("llama_server", type=Path, help="its llama-server")
    parser.add_argument("--only", default="", help="templates with this text in their name")
    parser.add_argument("--port", type=int, default=18574)
    asked = parser.parse_args()
    templates = sorted((asked.llama_cpp / "models" / "templates").glob("*.jinja"))
    templates = [each for each in templates if asked.only.lower() in each.stem.lower()]
    if not templates:
        sys.exit(f"{asked.llama_cpp}: no chat templates there")
    print(f"{'template':52} " + " ".join(f"{each:11}" for each in COLUMNS))
    rows = []
    for template in templates:
        row = compare(template, asked.llama_server, asked.port)
        rows.append(row)
        print(f"{row.name:52} " + " ".join(f"{row.cells.get(each, '-'):11}" for each in COLUMNS), flush=True)
        for difference in row.differences:
            print(f"    {difference}", flush=True)
    for column in COLUMNS:
        counts = Counter(row.cells.get(column, "not tried") for row in rows)
        print(f"{column}: {', '.join(f'{count} {word}' for word, count in counts.most_common())}")
    sys.exit(1 if any(row.differences for row in rows) else 0)


main()
