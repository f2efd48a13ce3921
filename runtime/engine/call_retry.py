"""What to draw once more, from the mistake on, of a call whose arguments are no JSON."""

from __future__ import annotations

from dataclasses import dataclass, replace

from runtime.engine.call_syntax import JsonCalls, quoted
from runtime.engine.grammar import JSON_OBJECT, Grammar
from runtime.engine.markers import ThinkingMarkers
from runtime.engine.template import Prompt
from runtime.engine.thinking import ThinkingSplitter
from runtime.engine.tool_calls import Calling, call_reader


@dataclass(frozen=True, slots=True)
class Retry:
    """What to draw again: call number `index`, behind a prompt that ends in the valid beginning of its arguments.

    `prompt` is not tokenized. `arguments` are that beginning, which stays: what is drawn under `grammar` follows it.
    """

    index: int
    prompt: Prompt
    arguments: str
    grammar: Grammar = JSON_OBJECT


def retry_of(prompt: Prompt, reply: str, markers: ThinkingMarkers | None, calling: Calling) -> Retry | None:
    """The first call of a reply to `prompt` whose arguments are no JSON object; None if there is none.

    They have a mistake, or the reply ended before they did. `reply` is its whole text, marks included. Arguments in
    other notations than JSON are not drawn again: no grammar of arguments helps there.
    """
    splitter = ThinkingSplitter(
        markers, prompt.starts_in_thought, open_header=prompt.open_header, calls=calling.form.call_marks
    )
    if calling.begun_by(prompt.text):
        splitter.begin_calls()
    parts = splitter.feed(reply) + splitter.finish()
    called = "".join(text for part, text in parts if part == "calls")
    reader = call_reader(calling, lambda index, name: "", begun=calling.begun_by(prompt.text))
    reader.feed(called)
    reader.finish()
    broken = next((at for at, call in enumerate(reader.calls) if not call.done().complete), None)
    if broken is None or not calling.form.writes_json:
        return None
    call = reader.calls[broken]
    # Calls stand at the end of the reply, so this counts from there.
    text = prompt.text + reply[: len(reply) - len(called) + call.begins]
    syntax = calling.form.syntax
    if isinstance(syntax, JsonCalls) and syntax.name_key and not text.rstrip().endswith(":"):
        text += f", {quoted(syntax.arguments_key)}: "  # the reply ended behind the name
    text += call.arguments
    begun = replace(prompt, text=text, tokens=(), begun=call.arguments, starts_in_thought=False, open_header="")
    return Retry(broken, begun, call.arguments)
