"""`dsr chat`: one answer, or a conversation at the terminal."""

from __future__ import annotations

import sys
from typing import Any

import typer

from dsr.commands.chat_options import (
    AllowToolOpt,
    BatchOpt,
    BudgetOpt,
    CtxSizeOpt,
    DraftOpt,
    EditOpt,
    ExpertsOpt,
    FileOpt,
    FormatOpt,
    KeepOpt,
    KeepThoughtsOpt,
    KvTypeOpt,
    ListStrategiesOpt,
    LogprobsOpt,
    LoopsOpt,
    MaxTokensOpt,
    ModelArg,
    ModelOpt,
    NodesOpt,
    NoLogOpt,
    OnFullOpt,
    OutOpt,
    PromptArg,
    PromptOpt,
    RawOpt,
    ReproducibleOpt,
    ResumeIdOpt,
    ResumeOpt,
    RetryOpt,
    RouteOpt,
    SeedOpt,
    SettingOpt,
    SpecialOpt,
    StatsOpt,
    StopOpt,
    StrategyOpt,
    SystemOpt,
    TemplateOpt,
    ThinkingOpt,
    ToolRoundsOpt,
    ToolsOpt,
    ToolTimeoutOpt,
    TopLogprobsOpt,
    VoteOpt,
)
from dsr.commands.grouped_help import GroupedCommand
from dsr.commands.sampling_options import (
    DryAllowedLengthOpt,
    DryBaseOpt,
    DryMultiplierOpt,
    DryPenaltyLastNOpt,
    DrySequenceBreakerOpt,
    DynatempExponentOpt,
    DynatempRangeOpt,
    FrequencyPenaltyOpt,
    LogitBiasOpt,
    MinPOpt,
    PenaltyLastNOpt,
    PresencePenaltyOpt,
    RepeatPenaltyOpt,
    TempOpt,
    TopKOpt,
    TopNSigmaOpt,
    TopPOpt,
    TypicalPOpt,
    XtcProbabilityOpt,
    XtcThresholdOpt,
    sampling_request,
)
from dsr.options import (
    EffortOpt,
    FromDiskOpt,
    JsonOpt,
    KvFullOpt,
    LoraOpt,
    QuietOpt,
    RopeOpt,
    ThinkBudgetOpt,
    ThinkOpt,
    ThreadsOpt,
)


class ChatCommand(GroupedCommand):
    """`--resume` and `--logprobs` may be followed by a number, which a flag of the parser cannot."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return list(super().parse_args(ctx, with_numbers(args)))


_WITH_NUMBER = {"--resume": "--resume-id", "--logprobs": "--top-logprobs"}


def with_numbers(args: list[str]) -> list[str]:
    """The arguments with `--resume 12` and `--resume=12` as an option of its own, and `--logprobs` likewise."""
    words, found = iter(args), list[str]()
    for word in words:
        if word == "--":
            return [*found, word, *words]
        name, equals, number = word.partition("=")
        if equals and name in _WITH_NUMBER:
            found += [_WITH_NUMBER[name], number]
        elif word.isdecimal() and found and found[-1] in _WITH_NUMBER:
            found[-1:] = [_WITH_NUMBER[found[-1]], word]
        else:
            found.append(word)
    return found


def chat(
    model: ModelArg = None,
    prompt: PromptArg = None,
    prompt_option: PromptOpt = None,
    model_option: ModelOpt = None,
    file: FileOpt = None,
    system: SystemOpt = None,
    template: TemplateOpt = None,
    special: SpecialOpt = False,
    max_tokens: MaxTokensOpt = None,
    stop: StopOpt = None,
    format: FormatOpt = None,
    loops: LoopsOpt = "end",
    resume: ResumeOpt = False,
    resume_id: ResumeIdOpt = None,
    on_full: OnFullOpt = None,
    edit: EditOpt = "exact",
    tools: ToolsOpt = None,
    allow_tool: AllowToolOpt = None,
    tool_timeout: ToolTimeoutOpt = None,
    tool_rounds: ToolRoundsOpt = None,
    think: ThinkOpt = None,
    effort: EffortOpt = None,
    think_budget: ThinkBudgetOpt = None,
    keep_thoughts: KeepThoughtsOpt = False,
    thinking: ThinkingOpt = None,
    vote: VoteOpt = None,
    strategy: StrategyOpt = None,
    setting: SettingOpt = None,
    budget: BudgetOpt = None,
    list_strategies: ListStrategiesOpt = False,
    temp: TempOpt = None,
    top_p: TopPOpt = None,
    min_p: MinPOpt = None,
    top_k: TopKOpt = None,
    seed: SeedOpt = None,
    presence_penalty: PresencePenaltyOpt = None,
    frequency_penalty: FrequencyPenaltyOpt = None,
    repeat_penalty: RepeatPenaltyOpt = None,
    penalty_last_n: PenaltyLastNOpt = None,
    dry_multiplier: DryMultiplierOpt = None,
    dry_base: DryBaseOpt = None,
    dry_allowed_length: DryAllowedLengthOpt = None,
    dry_penalty_last_n: DryPenaltyLastNOpt = None,
    dry_sequence_breaker: DrySequenceBreakerOpt = None,
    xtc_probability: XtcProbabilityOpt = None,
    xtc_threshold: XtcThresholdOpt = None,
    typical_p: TypicalPOpt = None,
    top_n_sigma: TopNSigmaOpt = None,
    dynatemp_range: DynatempRangeOpt = None,
    dynatemp_exponent: DynatempExponentOpt = None,
    logit_bias: LogitBiasOpt = None,
    ctx_size: CtxSizeOpt = None,
    threads: ThreadsOpt = None,
    kv_type: KvTypeOpt = None,
    kv_full: KvFullOpt = False,
    from_disk: FromDiskOpt = "auto",
    rope: RopeOpt = None,
    lora: LoraOpt = None,
    draft: DraftOpt = None,
    route: RouteOpt = None,
    experts: ExpertsOpt = None,
    keep: KeepOpt = None,
    nodes: NodesOpt = None,
    retry: RetryOpt = False,
    reproducible: ReproducibleOpt = False,
    batch: BatchOpt = None,
    out: OutOpt = None,
    logprobs: LogprobsOpt = False,
    top_logprobs: TopLogprobsOpt = None,
    raw: RawOpt = False,
    stats: StatsOpt = False,
    no_log: NoLogOpt = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Ask a model one question, or have a conversation.

    dsr chat "What is 347 + 586?"

    dsr chat deepseek-r1:7b "Why is the sky blue?"

    dsr chat --vote 8 --temp 1 "What is 347 + 586?"

    git diff | dsr chat deepseek-r1:7b "Review this"

    dsr chat deepseek-r1:7b
    """
    from dsr.chat import session
    from dsr.chat.arguments import settled, split_arguments
    from dsr.chat.asked import asked_of
    from dsr.chat.format_file import grammar_of
    from dsr.chat.options import ends_loops, show_strategies, strategy_of, with_piped_text
    from dsr.chat.template_file import read_template
    from dsr.chat.tools.config import tools_request
    from dsr.loading.nodes import parse_nodes
    from dsr.loading.options import LoadOptions, experts_request, lora_request, rope_request
    from dsr.store import paths, settings
    from dsr.ui import streams
    from dsr.ui.console import Console
    from runtime.base.types import ByteCount
    from runtime.engine.prompt_options import PromptOptions

    console = Console(json_mode=json, quiet=quiet)
    if list_strategies:
        show_strategies(console)
        return
    words = [*([] if model is None else [model]), *(prompt or ())]
    interactive = sys.stdin.isatty()
    asked = settled(split_arguments(words, model_option, prompt_option), console, interactive=interactive)
    defaults = settings.load(paths.config_file())
    request = session.ChatRequest(
        model=asked.model,
        default_model=defaults.model,
        prompt=asked.prompt if batch is not None else with_piped_text(streams.read_in(), asked.prompt),
        files=tuple(file or ()),
        system=system,
        asked=asked_of(think, effort, keep_thoughts, special),
        usual=PromptOptions(effort=defaults.effort, keep_thoughts=defaults.keep_thoughts),
        thinking=thinking or defaults.thinking,
        sampling=sampling_request(
            temperature=temp,
            top_p=top_p,
            min_p=min_p,
            top_k=top_k,
            seed=seed,
            max_tokens=max_tokens,
            think_budget=think_budget,
            stop=tuple(stop or ()),
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            repeat_penalty=repeat_penalty,
            penalty_last_n=penalty_last_n,
            dry_multiplier=dry_multiplier,
            dry_base=dry_base,
            dry_allowed_length=dry_allowed_length,
            dry_penalty_last_n=dry_penalty_last_n,
            dry_sequence_breakers=dry_sequence_breaker,
            xtc_probability=xtc_probability,
            xtc_threshold=xtc_threshold,
            typical_p=typical_p,
            top_n_sigma=top_n_sigma,
            dynatemp_range=dynatemp_range,
            dynatemp_exponent=dynatemp_exponent,
            logit_bias=logit_bias,
            end_loops=ends_loops(loops),
            top_logprobs=0 if logprobs and top_logprobs is None else top_logprobs,
        ).with_usual(defaults.sampling),
        load=LoadOptions(
            context=ctx_size,
            usual_context=defaults.ctx_size,
            rope=rope_request(rope),
            kv_type=kv_type or defaults.kv_type,
            kv_full=kv_full,
            template=read_template(template) if template else None,
            draft=draft,
            route=route,
            lora=tuple(map(lora_request, lora or ())),
            nodes=parse_nodes(nodes) if nodes is not None else (),
            retry=retry,
            from_disk=from_disk,
        ),
        threads=threads or defaults.threads,
        reproducible=reproducible,
        resume=resume or resume_id is not None,
        resume_id=resume_id,
        keep=defaults.log and not no_log,
        cache_limit=None if defaults.cache_limit is None else ByteCount.parse(defaults.cache_limit),
        stats=stats,
        strategy=strategy_of(vote, strategy, setting or (), budget),
        experts=experts_request(experts, keep),
        on_full=on_full or defaults.on_full,
        edit=edit,
        grammar=grammar_of(format) if format is not None else None,
        tools=tools_request(tools, allow_tool or (), tool_timeout, tool_rounds),
        raw=raw,
    )
    if batch is not None or out is not None:
        from dsr.chat.batch.answer import answer_batch

        shown = {"thinking": thinking, "on-full": on_full, "stats": stats, "raw": raw, "edit": edit != "exact"}
        useless = tuple(f"--{name}" for name, given in shown.items() if given)
        raise typer.Exit(answer_batch(request, batch, out, console, useless))
    raise typer.Exit(session.run(request, console, interactive=interactive))
