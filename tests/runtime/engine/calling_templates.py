"""Chat templates of our own, one for each way in which models write calls of tools."""

from __future__ import annotations

from runtime.engine.chat_template import ChatTemplate


def written(call: str, *, before: str = "", after: str = "", between: str = "", lists: bool = True) -> str:
    """A template that writes `call` for each call `c`, `before` and `after` all of them, `between` two of them."""
    listed = "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}" if lists else ""
    calls = f"{{% for c in m.tool_calls %}}{call}{{% if not loop.last %}}{between}{{% endif %}}{{% endfor %}}"
    return (
        f"{listed}{{% for m in messages %}}<|{{{{ m.role }}}}|>{{{{ m.content or '' }}}}"
        f"{{% if m.tool_calls %}}{before}{calls}{after}{{% endif %}}<|end|>\n{{% endfor %}}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )


_ARGUMENTS = "{{ c.function.arguments | tojson }}"
_NAME = "{{ c.function.name }}"
_OBJECT = '{"name": "' + _NAME + '", "arguments": ' + _ARGUMENTS + "}"
_ID = "{{ c.id }}"


def _each(argument: str) -> str:
    return "{% for key, value in c.function.arguments.items() %}" + argument + "{% endfor %}"


_VALUE = "{{ value if value is string else value | tojson }}"
_NINE = "{% if c.id | length != 9 %}{{ raise_exception('nine') }}{% endif %}"
_WORD = "{{ 'true' if value is string else 'false' }}"

TEMPLATES = {
    "objects": written("\n<tool_call>\n" + _OBJECT + "\n</tool_call>"),
    "list": written(_OBJECT, before="[TOOLS][", after="]", between=", "),
    "list with ids": written(
        _NINE + '{"name": "' + _NAME + '", "arguments": ' + _ARGUMENTS + ', "id": "' + _ID + '"}',
        before="[TOOL_CALLS][",
        after="]",
        between=", ",
    ),
    "lines": written(_OBJECT, before="<calls>\n", after="\n</calls>", between="\n"),
    "names as keys": written(
        '{"' + _NAME + '": ' + _ARGUMENTS + "}", before="<|calls|>[", after="]<|/calls|>", between=", "
    ),
    "bare": written(
        "{% if m.tool_calls | length > 1 %}{{ raise_exception('one') }}{% endif %}"
        '{"name": "' + _NAME + '", "parameters": ' + _ARGUMENTS + "}"
    ),
    "marks": written("[CALL]" + _NAME + "[ARGS]" + _ARGUMENTS),
    "marks with ids": written(
        "<|call|>" + _ID + "<|name|>" + _NAME + "<|args|>" + _ARGUMENTS + "<|/call|>",
        before="<|calls:begin|>",
        after="<|calls:end|>",
    ),
    "numbered": written(
        "<|call|>functions." + _NAME + ":{{ loop.index0 }}<|args|>" + _ARGUMENTS + "<|/call|>",
        before="<|calls|>",
        after="<|/calls|>",
    ),
    "parameters": written(
        "<tool_call>\n<function="
        + _NAME
        + ">\n"
        + _each("<parameter={{ key }}>\n" + _VALUE + "\n</parameter>\n")
        + "</function>\n</tool_call>",
        between="\n",
    ),
    "keys and values": written(
        "<tool_call>" + _NAME + _each("<key>{{ key }}</key><value>" + _VALUE + "</value>") + "</tool_call>"
    ),
    "typed": written(
        '<invoke name="'
        + _NAME
        + '">'
        + _each('<p name="{{ key }}" text="' + _WORD + '">' + _VALUE + "</p>")
        + "</invoke>",
        before="<calls>",
        after="</calls>",
    ),
    "keys as tags": written(
        '<call name="' + _NAME + '">' + _each("<#{{ key }}>" + _VALUE + "</#{{ key }}>") + "</call>",
    ),
    "python": written(
        _NAME
        + "({% for key, value in c.function.arguments.items() %}{{ key }}="
        + "{% if value is string %}'{{ value }}'{% else %}{{ value | tojson }}{% endif %}"
        + "{% if not loop.last %}, {% endif %}{% endfor %})",
        before="<|calls|>[",
        after="]<|/calls|>",
        between=", ",
    ),
    "gemma": written(
        "<|call>call:"
        + _NAME
        + "{{ '{' }}{% for key, value in c.function.arguments.items() %}{{ key }}:"
        + '{% if value is string %}<|"|>{{ value }}<|"|>{% else %}{{ value | tojson }}{% endif %}'
        + "{% if not loop.last %},{% endif %}{% endfor %}{{ '}' }}<call|>"
    ),
    "texts": written(
        "<|call|>" + _NAME + "\n```json\n{{ c.function.arguments + '\n```' }}<|/call|>",
        before="<|calls|>",
        after="<|/calls|>",
    ),
}
PLAIN = (
    "{% for m in messages %}{% if m.role not in ['system', 'user', 'assistant'] %}{{ raise_exception('role') }}"
    "{% endif %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>"
)
ALONE = (
    TEMPLATES["texts"]
    .replace("m.content or ''", "m.content or ''")
    .replace("{% if m.tool_calls %}", "{% if m.tool_calls and m.content is none %}")
)


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, bos="", eos="")
