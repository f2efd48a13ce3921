"""`dsr experts`: only the experts of a mixture that a task needs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from dsr.options import JsonlOpt, JsonOpt, ModelArg, QuietOpt, ThreadsOpt

INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def experts() -> None:
    """Find the experts that a task needs, and remove the others.

    Try it:  dsr experts profile nano
    """


@app.command("profile")
def profile(
    model: ModelArg,
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite",
            metavar="NAME|FILE",
            help="Questions for the profile: a suite name or a JSONL file. Default: the embedded model's own.",
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option("--text", metavar="FILE", help="Profile a text file instead of questions and answers."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task", metavar="NAME", help="Profile only this task of the suite. With --text: the name of the new task."
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="Maximum questions for each task.")] = 40,
    max_tokens: Annotated[
        int,
        typer.Option("--max-tokens", "-n", min=1, metavar="N", help="Maximum tokens of an answer, thinking included."),
    ] = 2048,
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="Random seed; question n of a task uses S + n.")] = 0,
    top: Annotated[
        int,
        typer.Option(
            "--top", min=1, metavar="K", help="For the TCESS score: count a token for its K likeliest experts."
        ),
    ] = 1,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            metavar="P",
            show_default=False,
            help="For the TCESS score: skip experts below this share of the top K. Default: 0.",
        ),
    ] = None,
    threads: ThreadsOpt = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing profiles.")] = False,
    json: JsonOpt = False,
    jsonl: JsonlOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Record which experts a task uses.

    The model answers the suite's questions. dsr records which experts its routers choose for question, thinking and
    answer. Each task of the suite gets a profile, stored with dsr for this model.

    dsr experts profile nano

    dsr experts profile qwen3:30b-a3b --suite gsm8k --task mathematics

    dsr experts profile qwen3:30b-a3b --text contracts.txt --task law
    """
    from dsr.experts.profile import ProfileRequest, make_profiles
    from dsr.experts.show import HEADER, LEGEND, table, task_of
    from dsr.models.library import find
    from dsr.ui.console import Console
    from dsr.ui.interrupts import stopping
    from dsr.ui.progress import showing
    from runtime.base.run import Run, Stop

    console = Console(json_mode=json, quiet=quiet, jsonl=jsonl)
    found = find(model)
    request = ProfileRequest(
        suite=suite,
        text=text,
        task=task,
        limit=limit,
        max_tokens=max_tokens,
        seed=seed,
        top=top,
        threshold=threshold,
        force=force,
    )
    stop = Stop()
    with stopping(stop), showing(console) as listen:
        result = make_profiles(found, request, Run(stop, listen, threads))
    if console.quiet:
        for each in result.profiled:
            console.data(each.profile.task)
    console.table(HEADER, table([task_of(each.profile) for each in result.profiled]), right=range(1, 7))
    if result.profiled:
        console.say(LEGEND)
    console.json("dsr.experts.profile/1", result.json())
    if result.interrupted:
        console.say("stopped; repeat the command for the remaining tasks")
        raise typer.Exit(INTERRUPTED)
    console.say(f"next: dsr experts show {shlex.quote(result.model)}")


@app.command("show")
def show(
    model: ModelArg,
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="Show only this task, layer by layer.")] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the experts of every task as an SVG file.")
    ] = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Show which experts the profiled tasks need.

    The output shows how many experts carry most of the work, how far tasks overlap, and a map of layers by experts.

    dsr experts show nano

    dsr experts show nano addsub --plot addsub.svg
    """
    from dsr.bench.kit import files
    from dsr.experts import show as view
    from dsr.models.library import find
    from dsr.ui.charts.heat_map import heat_map_lines, legend, values_per_cell
    from dsr.ui.charts.heat_map_svg import heat_maps_file
    from dsr.ui.charts.svg import check_path
    from dsr.ui.console import Console, columns, printable, shows_colour

    console = Console(json_mode=json, quiet=quiet)
    if plot is not None:
        check_path(plot)
    result = view.view_profiles(find(model), task)
    for problem in result.problems:
        console.warn(problem)
    if console.quiet:
        for each in result.tasks:
            console.data(printable(each.profile.task))
    if console.human and result.tasks:
        console.say(view.title(result))
        if task is None:
            console.table(view.HEADER, view.table(result.tasks), right=range(1, 7))
        else:
            console.say(printable(f"{result.tasks[0].profile.origin}; {result.tasks[0].profile.tokens} tokens"))
            console.table(view.LAYER_HEADER, view.layer_table(result.tasks[0]), right=range(4))
        console.say(view.LEGEND)
        if len(result.tasks) > 1:
            for header, carried in view.overlap_tables(result):
                console.data("")
                console.table(header, carried, right=[0, *range(2, len(header))])
            console.say(view.OVERLAP_LEGEND)
        width, colour = columns(sys.stdout), shows_colour(sys.stdout)
        heat_map = view.heat_map(result.tasks)
        console.data("")
        for line in heat_map_lines(heat_map, width=width, colour=colour):
            console.data(line)
        console.data(legend(colour))
        console.say(view.heat_legend(result, values_per_cell(heat_map, width)))
    if plot is not None and result.tasks:
        maps = [view.heat_map([each]) for each in result.tasks]
        picture = heat_maps_file(maps, title=view.title(result), note=view.MAPS_NOTE, columns="expert")
        files.write(plot, picture)
        console.say(f"{plot}")
    console.json("dsr.experts.show/1", result.json())


@app.command("prune")
def prune(
    model: ModelArg,
    out: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT", help="File to write. Default: a name such as MODEL-TASK-8of16.gguf in this folder."
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="NAME", help="Keep the experts of this profiled task. Repeatable."),
    ] = None,
    out_option: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="File to write; same as OUT.")
    ] = None,
    keep: Annotated[
        str,
        typer.Option(
            "--keep",
            metavar="auto|50%|8",
            help="Experts to keep in each layer: a number, a share, or auto, the fewest without measured harm.",
        ),
    ] = "auto",
    score: Annotated[
        str,
        typer.Option(
            "--score",
            metavar="NAME",
            help="How experts are ranked: easy-ep, mass, probability, counts or tcess.",
        ),
    ] = "easy-ep",
    active: Annotated[
        int | None,
        typer.Option("--active", min=1, metavar="N", help="Experts that each token uses. Default: unchanged."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Choose experts and measure the loss; write no file.")
    ] = False,
    allow_harm: Annotated[
        bool, typer.Option("--allow-harm", help="Write the file even if the measured loss is harmful.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing OUT.")] = False,
    json: JsonOpt = False,
    jsonl: JsonlOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Write a smaller model that keeps only the experts some tasks need.

    dsr measures the loss before it writes anything. Weights are copied unchanged. An interrupted run resumes when you
    repeat the command.

    dsr experts prune nano --task addsub --dry-run

    dsr experts prune nano small.gguf --task addsub --task story
    """
    from dsr.experts.prune import LAYER_HEADER, PruneRequest, decide, layer_table, summary, write_pruned
    from dsr.models.library import find
    from dsr.models.next_step import next_command
    from dsr.quantize.quantize import check_name
    from dsr.ui.console import Console, printable
    from dsr.ui.interrupts import stopping
    from dsr.ui.progress import showing
    from runtime.base.run import Run, Stop

    console = Console(json_mode=json, quiet=quiet, jsonl=jsonl)
    request = PruneRequest(
        tasks=tuple(task or ()),
        keep=keep,
        score=score,
        active=active,
        out=None if (named := out or out_option) is None else check_name(named),
        force=force or dry_run,
    )
    stop = Stop()
    found = find(model)
    with stopping(stop), showing(console) as listen:
        run = Run(stop, listen)
        decision = decide(found, request, run)
        if dry_run:
            console.table(LAYER_HEADER, layer_table(decision.plan), right=(0, 1))
        for line in summary(decision):
            console.say(printable(line), style="plain")
        if dry_run:
            if decision.choice.exceeds_limit:
                console.warn("the loss is above the limit: to write the file, add --allow-harm")
            if quiet:
                console.data(str(decision.plan.keep))
        else:
            written = write_pruned(decision, run, allow_harm=allow_harm, force=force)
            console.data(printable(str(written)))
            console.say(f"next: {next_command(find(str(written)))}", style="plain")
    console.json("dsr.experts.prune/1", decision.json(written=not dry_run))
