"""Tiny models that call tools, in the words of a test, through the real engine; see `tests.talking_gguf`.

Behind a question, each gives its own reply. Behind the results of tools, all say `SEEN`. `WORLD` and `ADD` are tools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.talking_gguf import talking

WORLD = {
    "name": "time",
    "description": "The time of a zone.",
    "parameters": {
        "type": "object",
        "properties": {"zone": {"type": "string", "enum": ["UTC", "CET"]}},
        "required": ["zone"],
    },
}
ADD = {
    "name": "add",
    "description": "Adds.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
}
THOUGHT, SEEN = "I ask.", "I see."
TIME, SUM = '{"zone": "UTC"}', '{"a": 2, "b": 2}'

_END = "<|im_end|>"
_MARKS, _THINKS = ("<|im_start|>", _END), ("<think>", "</think>")
_LISTED = "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}"
# Results are followed by another byte than questions, so that a reply to them is another one.
_TEMPLATE = """
{%- for m in messages -%}
<|im_start|>{{ m.role }}
{{ m.content or "" }}
{%- for c in m.tool_calls or [] %}{{ "\\n" }}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant{{ "\\t" if messages[-1].role == "tool" else "\\n" }}
"""
_OPEN, _THINKING = "{%- endif -%}", "{%- if messages[-1].role != 'tool' %}<think>{% endif %}{% endif -%}"
_PLAIN = """
{%- for m in messages -%}
<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
"""


@dataclass(frozen=True)
class Calling:
    """A model: its template, and its reply as a chain of tokens."""

    template: str
    chain: Sequence[str]
    after: str = "\n"
    more: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def model(self, name: str) -> bytes:
        """The bytes of its GGUF file."""
        # SentencePiece writes a space as U+2581.
        spelled = {after: [word.replace(" ", "▁") for word in chain] for after, chain in self.more.items()}
        chain = [word.replace(" ", "▁") for word in self.chain]
        metadata = {"general.name": name}
        special = (*_MARKS, *_THINKS) if self.after in _THINKS else _MARKS
        return talking(self.template, special, self.after, chain, _END, metadata, more=spelled)


_TOOLS = (_LISTED + _TEMPLATE).strip() + _OPEN
_CALL_TIME = ('<tool_call>\n{"name": "time", "arguments": {', '"zone": "', 'UTC"}}\n</tool_call>')
_CALL_ADD = ('\n<tool_call>\n{"name": "add", "arguments": ', '{"a": 2, ', '"b": 2}}\n</tool_call>')
_ANSWERS = {"\t": (SEEN, _END)}

MODELS = {
    # If it must call `add`, it gets to the arguments by single bytes.
    "caller": Calling(_TOOLS, (*_CALL_TIME, *_CALL_ADD, _END), more={**_ANSWERS, " ": _CALL_ADD[1:2]}),
    "thinker": Calling(
        (_LISTED + _TEMPLATE).strip() + _THINKING,
        ("I ", "ask.", "</think>", *_CALL_TIME, _END),
        after="<think>",
        more=_ANSWERS,
    ),
    # Behind the colon no JSON has a bare word. A second try begins behind the colon, as one byte.
    "breaker": Calling(
        _TOOLS,
        ('<tool_call>\n{"name": "time", "arguments": {"zone":', "UTC}}\n</tool_call>", *_CALL_ADD, _END),
        more={**_ANSWERS, ":": ('"UTC"', "}")},
    ),
    # It ends its reply behind the colon.
    "quitter": Calling(
        _TOOLS,
        ("Now. ", '<tool_call>\n{"name": "time", "arguments": {"zone":', _END),
        more={**_ANSWERS, ":": ('"UTC"', "}")},
    ),
    "simple": Calling(_PLAIN, ('<tool_call>\n{"name": "time", ', '"arguments": {"zone": "UTC"}}\n</tool_call>', _END)),
}  # fmt: skip
