"""The options of `dsr chat` alone, by the group in which its help lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsr.commands.sampling_options import PANEL as SAMPLING
from dsr.options import ANSWER, MEMORY, OUTPUT, THINKING, VOTES

ModelArg = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        show_default=False,
        help="Short name (deepseek-r1:7b), org/repo[:quant] or path; left out, the prompt comes first.",
    ),
]
PromptArg = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PROMPT",
        show_default=False,
        help="The question. Text from stdin is put before it. Without both: a conversation.",
    ),
]
PromptOpt = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        "-p",
        metavar="TEXT",
        help="The question; same as PROMPT, and works without MODEL.",
        rich_help_panel=ANSWER,
    ),
]
ModelOpt = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", metavar="MODEL", help="The model; same as the first argument.", rich_help_panel=ANSWER
    ),
]
FileOpt = Annotated[
    list[Path] | None,
    typer.Option(
        "--file", "-f", metavar="FILE", help="Add a text file to the prompt. Repeatable.", rich_help_panel=ANSWER
    ),
]
SystemOpt = Annotated[
    str | None, typer.Option("--system", metavar="TEXT", help="System prompt. Default: none.", rich_help_panel=ANSWER)
]
TemplateOpt = Annotated[
    Path | None,
    typer.Option(
        "--template",
        metavar="FILE",
        help="Chat template that replaces the model's own: Jinja, or a tokenizer_config.json.",
        rich_help_panel=ANSWER,
    ),
]
SpecialOpt = Annotated[
    bool,
    typer.Option(
        "--special",
        help="Special tokens in the question and in files act as such. Default: they are plain text.",
        rich_help_panel=ANSWER,
    ),
]
MaxTokensOpt = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        "-n",
        metavar="N",
        help="Maximum tokens, thinking and answer together. Default: the context.",
        rich_help_panel=ANSWER,
    ),
]
StopOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--stop", metavar="TEXT", help="Stop before TEXT appears in the answer. Repeatable.", rich_help_panel=ANSWER
    ),
]
LoopsOpt = Annotated[
    str,
    typer.Option(
        "--loops",
        metavar="end|keep",
        help="End an answer that repeats itself without end, or keep it going. Default: end.",
        show_default=False,
        rich_help_panel=ANSWER,
    ),
]
FormatOpt = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="json|FILE",
        help="Hold the answer to a JSON object, or to the JSON Schema in FILE. The thinking stays free.",
        rich_help_panel=ANSWER,
    ),
]
ResumeIdOpt = Annotated[int | None, typer.Option("--resume-id", hidden=True)]
ResumeOpt = Annotated[
    bool,
    typer.Option(
        "--resume", help="Continue the last saved conversation, or that number: --resume 12.", rich_help_panel=ANSWER
    ),
]
OnFullOpt = Annotated[
    str | None,
    typer.Option(
        "--on-full",
        metavar="stop|forget|summary",
        help="When the context is full: stop, forget the oldest exchanges, or sum them up first. "
        "Default: forget in a conversation, stop for one question.",
        rich_help_panel=ANSWER,
    ),
]
EditOpt = Annotated[
    str,
    typer.Option(
        "--edit",
        metavar="exact|fast",
        help="When a file that you gave before has changed: read it again (exact), or read the change and move "
        "the rest (fast, approximate). Default: exact.",
        show_default=False,
        rich_help_panel=ANSWER,
    ),
]
ToolsOpt = Annotated[
    Path | None,
    typer.Option(
        "--tools",
        metavar="FILE",
        help="Let the model call tools of the MCP servers in FILE, an mcp.json. Asks first.",
        rich_help_panel=ANSWER,
    ),
]
AllowToolOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-tool",
        metavar="NAME|all",
        help="Run this tool without a question; without a terminal no other tool runs. Repeatable.",
        rich_help_panel=ANSWER,
    ),
]
ToolTimeoutOpt = Annotated[
    float | None,
    typer.Option(
        "--tool-timeout", metavar="SECONDS", help="Longest call of a tool. Default: 60 seconds.", rich_help_panel=ANSWER
    ),
]
ToolRoundsOpt = Annotated[
    int | None,
    typer.Option(
        "--tool-rounds",
        min=1,
        metavar="N",
        help="Maximum rounds of calls for one question. Default: 10.",
        rich_help_panel=ANSWER,
    ),
]

KeepThoughtsOpt = Annotated[
    bool,
    typer.Option(
        "--keep-thoughts",
        help="Leave earlier thoughts in the prompt, if the model knows it. Default: remove them.",
        rich_help_panel=THINKING,
    ),
]
ThinkingOpt = Annotated[
    str | None,
    typer.Option(
        "--thinking",
        metavar="show|hide|summary",
        help="Show the thinking, hide it, or print one line about it. Default: show.",
        rich_help_panel=THINKING,
    ),
]

VoteOpt = Annotated[
    int | None,
    typer.Option(
        "--vote", min=1, metavar="N", help="Generate N answers and take the one most agree on.", rich_help_panel=VOTES
    ),
]
StrategyOpt = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        metavar="NAME",
        help="Test-time strategy, such as vote or deepconf; see --list-strategies.",
        rich_help_panel=VOTES,
    ),
]
SettingOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Setting of the strategy, such as n=16. Repeatable.", rich_help_panel=VOTES
    ),
]
BudgetOpt = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="TOKENS|SECONDS",
        help="Maximum tokens of all samples together (4000), or maximum time (30s). Default: no limit.",
        rich_help_panel=VOTES,
    ),
]
ListStrategiesOpt = Annotated[
    bool,
    typer.Option("--list-strategies", help="List the strategies and their settings, then exit.", rich_help_panel=VOTES),
]

SeedOpt = Annotated[
    int | None,
    typer.Option(
        "--seed",
        metavar="S",
        help="Random seed. The same seed and settings repeat an answer. Default: random; 0 with --batch.",
        rich_help_panel=SAMPLING,
    ),
]

CtxSizeOpt = Annotated[
    int | None,
    typer.Option(
        "--ctx-size",
        "-c",
        min=1,
        metavar="N",
        help="Context size in tokens. Default: 16384, as far as model and memory allow.",
        rich_help_panel=MEMORY,
    ),
]
KvTypeOpt = Annotated[
    str | None,
    typer.Option(
        "--kv-type",
        metavar="TYPE",
        help="Type of the KV cache: f16, q8_0, q4_0, ..., or k=q8_0,v=q4_0. Default: f16.",
        rich_help_panel=MEMORY,
    ),
]
DraftOpt = Annotated[
    str | None,
    typer.Option(
        "--draft",
        metavar="MODEL|ngram|mtp",
        help="Speculative decoding with a small model, n-grams, or the model's MTP layers.",
        rich_help_panel=MEMORY,
    ),
]
RouteOpt = Annotated[
    float | None,
    typer.Option(
        "--route",
        metavar="NATS",
        help="Lossy: the --draft model writes, MODEL only where the entropy is above this, such as 0.2.",
        rich_help_panel=MEMORY,
    ),
]
ExpertsOpt = Annotated[
    str | None,
    typer.Option(
        "--experts",
        metavar="auto|TASK|off",
        help="Load only the experts for the question (auto) or for a profiled TASK. Default: off.",
        rich_help_panel=MEMORY,
    ),
]
KeepOpt = Annotated[
    str | None,
    typer.Option(
        "--keep",
        metavar="auto|50%|8",
        help="Experts to keep in each layer, with --experts. Default: auto, the fewest without measured harm.",
        rich_help_panel=MEMORY,
    ),
]
NodesOpt = Annotated[
    str | None,
    typer.Option(
        "--nodes",
        metavar="LIST|FILE",
        help="Machines that take layers: host[:port][=layers],... or a nodes.toml.",
        rich_help_panel=MEMORY,
    ),
]
RetryOpt = Annotated[
    bool, typer.Option("--retry", help="If a node is lost, continue the answer without it.", rich_help_panel=MEMORY)
]
ReproducibleOpt = Annotated[
    bool,
    typer.Option(
        "--reproducible",
        help="Same seed, same text: reuse no cached prompt, at some cost in speed.",
        rich_help_panel=MEMORY,
    ),
]

RawOpt = Annotated[
    bool,
    typer.Option(
        "--raw",
        help="Show answers as the model writes them. Default: a terminal gets rendered Markdown.",
        rich_help_panel=OUTPUT,
    ),
]
BatchOpt = Annotated[
    Path | None,
    typer.Option(
        "--batch",
        metavar="FILE",
        help='Answer the questions of FILE, JSON lines such as {"prompt": "2+2"}, several together.',
        rich_help_panel=OUTPUT,
    ),
]
OutOpt = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        show_default=False,
        help="File for the answers of --batch; the same command goes on after a stop. Default: stdout.",
        rich_help_panel=OUTPUT,
    ),
]
TopLogprobsOpt = Annotated[int | None, typer.Option("--top-logprobs", hidden=True)]
LogprobsOpt = Annotated[
    bool,
    typer.Option(
        "--logprobs",
        help="Tell the log-probability of each token, and with a number the likeliest tokens, too: --logprobs 3.",
        rich_help_panel=OUTPUT,
    ),
]
StatsOpt = Annotated[
    bool, typer.Option("--stats", help="Show token counts, speed and memory after each answer.", rich_help_panel=OUTPUT)
]
NoLogOpt = Annotated[
    bool, typer.Option("--no-log", help="Do not save this conversation, nor its cache.", rich_help_panel=OUTPUT)
]
