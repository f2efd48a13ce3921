"""Chat templates as llama.cpp renders them, and its replies as it tells thought and answer apart.

    python tests/peers/templates.py LLAMA_CPP LLAMA_SERVER [--only TEXT] [--port N]

For each template in LLAMA_CPP/models/templates, LLAMA_SERVER holds the embedded model with that template. It renders a
question, a system prompt with a question, and three turns (`/apply-template`): with thinking as it comes, on and off;
with each level of effort; and with earlier thoughts kept. dsr renders the same as `dsr chat --template FILE` does.
Then the server draws a reply that a grammar dictates, with a thought in it, and says which part is `reasoning_content`;
dsr reads the same text. The thought is written as the template itself writes one for an earlier answer; where it writes
none, as in `WRITTEN`. "dsr alone": llama-server leaves this thought in the answer, or loses an earlier thought or the
answer behind it, since it knows one field for thoughts. Exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dsr.models import library
from dsr.models.model import ChatFormat
from runtime.base.errors import Incompatible
from runtime.base.types import Message
from runtime.engine.template import (
    Prompt,
    build_prompt,
    close_thought,
    open_thought,
    prompt_is_thinking,
)
from runtime.engine.template_facts import template_facts
from runtime.engine.template_variables import KEEP_THOUGHTS, template_variables
from runtime.engine.thinking import ThinkingSplitter
from tests.peers.template_server import Refused, Server, first_difference, serving

SYSTEM = Message("system", "Be kind: answer in “one” line.")
FIRST = Message("user", 'What is <b>2</b> & "2"?\n- in numbers\n- in words')
ANSWER = Message("assistant", "It is 4.\n\nIn words: four.")
SECOND = Message("user", "Und in Zürich?")
CASES: dict[str, list[Message]] = {
    "question": [FIRST],
    "system": [SYSTEM, FIRST],
    "three turns": [SYSTEM, FIRST, ANSWER, SECOND],
}
KEPT = [SYSTEM, FIRST, replace(ANSWER, thinking="Two and two."), SECOND]
THOUGHT, SAID = "First I add. Then I look.", "The sum is four."
# Replies of models whose template writes no thought of the last turn, by a text of the template: as it writes one in
# other places (Gemma 4, Solar Open, Apertus: of content parts, of `reasoning`; Command R7B: before a tool call).
WRITTEN = {
    "<|channel>thought": f"<|channel>thought\n{THOUGHT}\n<channel|>{SAID}",
    "<|begin|>assistant<|think|>": f"<|think|>{THOUGHT}<|end|><|begin|>assistant<|content|>{SAID}",
    "<|inner_prefix|>": f"<|inner_prefix|>{THOUGHT}<|inner_suffix|>{SAID}",
    "<|START_THINKING|>": f"<|START_THINKING|>{THOUGHT}<|END_THINKING|><|START_RESPONSE|>{SAID}<|END_RESPONSE|>",
    "[BEGIN FINAL RESPONSE]": (
        f"Here are my reasoning steps:\n{THOUGHT}\n[BEGIN FINAL RESPONSE]\n{SAID}\n[END FINAL RESPONSE]"
    ),
    "</think>": f"<think>\n{THOUGHT}\n</think>\n\n{SAID}",
}


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one template: the cells of the table, and the differences."""

    name: str
    cells: dict[str, str]
    differences: tuple[str, ...]


def spoken(messages: list[Message]) -> list[dict[str, str]]:
    said = [{"role": each.role, "content": each.content} for each in messages]
    for message, fields in zip(messages, said, strict=True):
        if message.thinking:
            fields["reasoning_content"] = message.thinking
    return said


def switches(ours: ChatFormat, messages: list[Message]) -> list[tuple[str, bool | None, dict[str, Any]]]:
    """What to compare: its name, the thinking that dsr is asked for, and the variables that the server gets.

    The server always gives the template an `enable_thinking`, and dsr only on request. So the template's own default is
    compared with the value that renders the same, or with null.
    """
    try:
        own, on, off = (
            ours.template.render(messages, variables={} if each is None else {"enable_thinking": each})
            for each in (None, True, False)
        )
    except Incompatible:
        return [("default", None, {"enable_thinking": None})]
    default = next((value for value, text in ((True, on), (False, off)) if text == own), None)
    known = template_variables(ours.template)
    found: list[tuple[str, bool | None, dict[str, Any]]] = [("default", None, {"enable_thinking": default})]
    if known.on:
        found += [
            ("thinking on", True, {"enable_thinking": None, **known.on}),
            ("thinking off", False, {"enable_thinking": None, **known.off}),
        ]
    return found


def compared(ours: ChatFormat, server: Server, messages: list[Message]) -> Iterator[str]:
    """The differences; none where both render the same, or both refuse."""
    for how, thinking, asked in switches(ours, messages):
        yield from both(how, ours, server, messages, asked, thinking=thinking)
    if messages is not CASES["question"]:
        return
    facts = template_facts(ours.template, ours.markers)
    for level in facts.efforts:
        variables = {"enable_thinking": None, **template_variables(ours.template).asked(None, level)}
        yield from both(f"effort {level}", ours, server, messages, variables, effort=level)


def both(
    how: str, ours: ChatFormat, server: Server, messages: list[Message], variables: dict[str, Any], **asked: Any
) -> Iterator[str]:
    """The difference between two renderings, if there is one."""
    bos = ours.template.bos
    theirs = refusal = mine = error = None
    try:
        kwargs = {"preserve_reasoning": None, **variables}
        theirs = server.rendered(spoken(messages), chat_template_kwargs=kwargs).removeprefix(bos)
    except Refused as refused:
        refusal = str(refused)
    try:
        mine = prompt_of(ours, messages, **asked).text.removeprefix(bos)
    except Incompatible as refused:
        error = refused.message
    if mine == theirs:
        return
    if mine is None or theirs is None:
        yield f"{how}: {'dsr' if mine is None else 'llama-server'} refuses: {error or refusal}"
        return
    # dsr begins or closes a thought where it was asked to, and the template does not.
    markers, thinking = ours.markers, asked.get("thinking")
    forced = thinking is not None and markers is not None
    if not forced or mine not in (open_thought(theirs, markers), close_thought(theirs, markers, "")):
        yield f"{how}: {first_difference(mine, theirs)}"


def prompt_of(ours: ChatFormat, messages: list[Message], thinking: bool | None = None, **asked: Any) -> Prompt:
    return build_prompt(ours.template, messages, ours.markers, thinking, "", **asked)


def kept(ours: ChatFormat, server: Server) -> tuple[str, list[str]]:
    """The cell for earlier thoughts that are asked for, and the difference where dsr writes less than llama-server."""
    variables = {**switches(ours, KEPT)[0][2], **KEEP_THOUGHTS}
    found = list(both("kept thoughts", ours, server, KEPT, variables, keep_thoughts=True))
    if not found:
        return template_facts(ours.template, ours.markers).keeps_thoughts, []
    theirs = server.rendered(spoken(KEPT), chat_template_kwargs={"preserve_reasoning": None, **variables})
    mine = prompt_of(ours, KEPT, keep_thoughts=True).text
    lost = [text for text in (KEPT[2].thinking, ANSWER.content) if text in mine and text not in theirs]
    return ("dsr alone", []) if lost else ("differs", found)


def scripted(server: Server, source: str, **options: Any) -> str | None:
    """A reply with a thought as this template writes one; None where nothing says how."""
    turn = [{**spoken([ANSWER])[0], "content": SAID, "reasoning_content": THOUGHT}]
    try:
        begun = server.rendered(spoken([FIRST]), **options)
        whole = server.rendered(spoken([FIRST]) + turn, add_generation_prompt=False, **options)
    except Refused:
        begun = whole = ""
    if THOUGHT in whole and SAID in whole:
        length = next((n for n, (a, b) in enumerate(zip(begun, whole, strict=False)) if a != b), len(begun))
        reply = whole[length:]
        if THOUGHT in reply:
            return reply[: reply.index(SAID) + len(SAID)]
    written = next((reply for text, reply in WRITTEN.items() if text in source), None)
    return written.removeprefix("<think>") if written and begun.rstrip().endswith("<think>") else written


def told_apart(ours: ChatFormat, prompt: str, text: str) -> tuple[str, str]:
    """Thought and answer as dsr shows them, behind the same prompt."""
    begun = ours.markers is not None and prompt_is_thinking(prompt, ours.markers)
    header = ours.markers.header.open_at_end(prompt) if ours.markers and ours.markers.header else ""
    splitter = ThinkingSplitter(ours.markers, begun, open_header=header)
    parts = [*splitter.feed(text), *splitter.finish(complete=True)]
    thought, answer = ("".join(said for part, said in parts if part == which) for which in ("thinking", "answer"))
    return thought[: splitter.thought_end].strip(), answer.strip()


def split(ours: ChatFormat, server: Server, source: str) -> tuple[str, str]:
    """The cell for a scripted reply, and the difference or ""."""
    asked = {"chat_template_kwargs": dict(template_variables(ours.template).on)}
    reply = scripted(server, source, **asked)
    if reply is None:
        return "none", ""
    theirs = server.reply(spoken([FIRST]), reply, **asked)
    theirs = (theirs[0], theirs[1].removesuffix(ours.template.eos).strip())
    mine = told_apart(ours, server.rendered(spoken([FIRST]), **asked), reply)
    # llama-server counts words that the prompt ends in, such as Apriel's, as thought.
    if mine == theirs or (ours.markers and (f"{ours.markers.open}\n{mine[0]}", mine[1]) == theirs):
        return "same", ""
    if mine == (THOUGHT, SAID) and not theirs[0]:
        return "dsr alone", ""  # llama.cpp knows no thought of this template
    return "differs", f"reply {reply!r}: dsr {mine}, llama-server {theirs}"


def compare(template: Path, binary: Path, port: int) -> Row:
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
            cells["kept"], found = kept(ours, server)
            differences += found
            cells["thought"], difference = split(ours, server, source)
            differences += [difference] if difference else []
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
    asked = parser.parse_args()
    templates = sorted((asked.llama_cpp / "models" / "templates").glob("*.jinja"))
    templates = [each for each in templates if asked.only.lower() in each.stem.lower()]
    if not templates:
        sys.exit(f"{asked.llama_cpp}: no chat templates there")
    columns = (*CASES, "kept", "thought")
    print(f"{'template':52} " + " ".join(f"{each:11}" for each in columns))
    rows = []
    for template in templates:
        row = compare(template, asked.llama_server, asked.port)
        rows.append(row)
        print(f"{row.name:52} " + " ".join(f"{row.cells.get(each, '-'):11}" for each in columns), flush=True)
        for difference in row.differences:
            print(f"    {difference}", flush=True)
    for column in columns:
        counts = Counter(row.cells.get(column, "not tried") for row in rows)
        print(f"{column}: {', '.join(f'{count} {word}' for word, count in counts.most_common())}")
    sys.exit(1 if any(row.differences for row in rows) else 0)


main()
