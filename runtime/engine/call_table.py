"""The syntax of calls that rendering cannot tell, by a text of the chat template."""

from __future__ import annotations

from dataclasses import replace

from runtime.engine.call_syntax import CDATA, CallSyntax, JsonCalls, TagArguments, TaggedCalls
from runtime.engine.markers import Header

# What dsr asks for if nobody told the model how to write calls: the form that most models have seen.
# Source: NousResearch/Hermes-Function-Calling, README, and the chat templates of Qwen 2.5 and Qwen 3.
GENERIC = JsonCalls("<tool_call>\n", "\n</tool_call>", optional=True)


def completed(syntax: CallSyntax, source: str, header: Header | None) -> CallSyntax:
    """The derived syntax with the marks that the template does not write, but its model.

    - Llama 3 puts a tag before calls of its own tools, and sometimes before others. Source: its chat template, which
      writes the tag before calls of builtin tools.
    - Small models forget the tags around a call, such as Qwen 2.5 Coder 0.5B. What is left must name a known tool.
    - DeepSeek-R1's template forgets the end behind a single call. Source: common/chat-diff-analyzer.cpp, workarounds.
    - MiniCPM5 puts texts into CDATA where they have marks. Source: common/parsers/minicpm5.cpp.
    - gpt-oss has the recipient in the header of a message, before the channel or behind it. Source:
      common/parsers/gpt-oss.cpp; openai/harmony, docs/format.md, "Function calling".
    """
    if isinstance(syntax, JsonCalls):
        tagged = not syntax.open.strip() and "<|python_tag|>" in source
        return replace(syntax, open="<|python_tag|>" if tagged else syntax.open, optional=not syntax.listed)
    if isinstance(syntax.arguments, TagArguments) and CDATA in source:
        syntax = replace(syntax, arguments=replace(syntax.arguments, cdata=True))
    end = syntax.open.replace("begin", "end")
    if syntax.open and not syntax.close and end != syntax.open and end in source:
        syntax = replace(syntax, close=end)
    if header is not None and syntax.name_close.endswith(header.end):
        recipient = syntax.call_open.split()[-1]
        return replace(syntax, call_open=recipient, name_close=header.end, call_close="", header=True)
    return syntax


def named_syntax(source: str, derived: CallSyntax | None) -> CallSyntax | None:
    """The syntax of a template that has certain texts; None if rendering tells it, or nobody."""
    rows = _ROWS if derived is not None else (*_ROWS, *_UNWRITTEN)
    return next((syntax for texts, syntax in rows if all(text in source for text in texts)), None)


# Templates that write calls otherwise than their models do. Texts of the template, the syntax.
_ROWS: tuple[tuple[tuple[str, ...], CallSyntax], ...] = (
    # Functionary v3.2: the whole answer is a list of recipients, and "all" is the user.
    # Source: common/parsers/functionary-v3-2.cpp.
    ((">>>all", ">>>${recipient}"), TaggedCalls(">>>", "\n", text_name="all")),
)

# Templates that write no calls, or only in the content of messages.
_UNWRITTEN: tuple[tuple[tuple[str, ...], CallSyntax], ...] = (
    # LFM2 and LFM2.5. Source: common/parsers/lfm2.cpp.
    (
        ("<|tool_list_start|>",),
        TaggedCalls("", open="<|tool_call_start|>", close="<|tool_call_end|>", arguments="python"),
    ),
    (("List of tools: [",), TaggedCalls("", open="<|tool_call_start|>", close="<|tool_call_end|>", arguments="python")),
    # Granite 3: named in the system prompt of its template. Source: tests/test-chat.cpp of llama.cpp, Granite 3.3.
    (("<|tool_call|>",), JsonCalls("<|tool_call|>", "", listed=True)),
)
