"""`dsr experts`: only the experts of a mixture that a task needs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from dsr.options import JsonOpt, ModelArg, QuietOpt, ThreadsOpt

INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def experts() -> None:
    """Find out which experts a task needs, and do without the others.

    Try it:  dsr experts profile nano
    """


@app.command("profile")
def profile(
    model: ModelArg,
    suite: Annotated[
        str | None,
        typer.Option("--suite", metavar="NAME|FILE", help="Questions that the model answers: a known suite, or JSONL."),
    ] = None,
    text: Annotated[
        Path | None, typer.Option("--text", metavar="FILE", help="Read a text instead of asking questions.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="NAME", help="Only this task of the suite; or what to call a text."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="Questions of each task.")] = 40,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", "-n", min=1, metavar="N", help="Of an answer with its thought.")
    ] = 2048,
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="Question n of a task is drawn with S + n.")] = 0,
    top: Annotated[
        int, typer.Option("--top", min=1, metavar="K", help="TCESS: each token counts for its K best experts.")
    ] = 1,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            metavar="P",
            show_default=False,
            help="TCESS: only for those with so much of these K's softmax.",
        ),
    ] = None,
    threads: ThreadsOpt = None,
    force: Annotated[bool, typer.Option("--force", help="Replace profiles that are there.")] = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Watch which experts a task needs.

    The model answers the suite's questions, and its routers are watched while it reads question, thought and answer.
    Each task of a suite has its own profile; all are kept with dsr, by model.

    dsr experts profile nano

    dsr experts profile qwen3:30b-a3b --suite gsm8k --task mathematics

    dsr experts profile qwen3:30b-a3b --text contracts.txt --task law
    """
    from dsr.experts import show as shown
    from dsr.experts.profile import ProfileRequest, make
    from dsr.models.library import find
    from dsr.ui.console import Console
    from dsr.ui.interrupts import stopping
    from dsr.ui.progress import showing
    from runtime.base.run import Stop

    console = Console(json_mode=json, quiet=quiet)
    local = find(model)
    request = ProfileRequest(
        suite=suite,
        text=text,
        task=task,
        limit=limit,
        max_tokens=max_tokens,
        seed=seed,
        top=top,
        threshold=threshold,
        threads=threads,
        force=force,
    )
    stop = Stop()
    with stopping(stop), showing(console) as listen:
        made = make(local, request, stop=stop, listen=listen)
    if quiet and not json:
        for each in made.profiled:
            console.data(each.profile.task)
    console.table(shown.HEADER, shown.table([shown.task_of(each.profile) for each in made.profiled]), right=range(1, 7))
    if made.profiled:
        console.say(shown.LEGEND)
    console.json("dsr.experts.profile/1", made.json())
    if made.interrupted:
        console.say("stopped; the same command goes on with the tasks that are left")
        raise typer.Exit(INTERRUPTED)
    console.say(f"dsr experts show {made.model} draws them")


@app.command("show")
def show(
    model: ModelArg,
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="Only this task, layer by layer.")] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the experts of every task as an SVG file.")
    ] = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Show which experts the profiled tasks need.

    How few of them carry how much, what tasks have in common, and a map of layers by experts.

    dsr experts show nano

    dsr experts show nano addsub --plot addsub.svg
    """
    from dsr.bench.kit import outputs
    from dsr.experts import show as showing
    from dsr.models.library import find
    from dsr.ui.charts.heat_map import heat_map_lines, legend, values_per_cell
    from dsr.ui.charts.heat_map_svg import heat_maps_file
    from dsr.ui.charts.svg import check_path
    from dsr.ui.console import Console, columns, printable, shows_colour

    console = Console(json_mode=json, quiet=quiet)
    if plot is not None:
        check_path(plot)
    result = showing.shown(find(model), task)
    for problem in result.problems:
        console.warn(problem)
    if quiet and not json:
        for each in result.tasks:
            console.data(printable(each.profile.task))
    if console.human and result.tasks:
        console.say(showing.title(result))
        if task is None:
            console.table(showing.HEADER, showing.table(result.tasks), right=range(1, 7))
        else:
            console.say(printable(f"{result.tasks[0].profile.origin}; {result.tasks[0].profile.tokens} tokens"))
            console.table(showing.LAYER_HEADER, showing.layer_table(result.tasks[0]), right=range(4))
        console.say(showing.LEGEND)
        if len(result.tasks) > 1:
            for header, carried in showing.overlap_tables(result):
                console.data("")
                console.table(header, carried, right=[0, *range(2, len(header))])
            console.say(showing.OVERLAP_LEGEND)
        width, colour = columns(sys.stdout), shows_colour(sys.stdout)
        heat_map = showing.heat_map(result.tasks)
        console.data("")
        for line in heat_map_lines(heat_map, width=width, colour=colour):
            console.data(line)
        console.data(legend(colour))
        console.say(showing.heat_legend(result, values_per_cell(heat_map, width)))
    if plot is not None and result.tasks:
        maps = [showing.heat_map([each]) for each in result.tasks]
        picture = heat_maps_file(maps, title=showing.title(result), note=showing.MAPS_NOTE, columns="expert")
        outputs.write(plot, picture)
        console.say(f"{plot}")
    console.json("dsr.experts.show/1", result.json())


@app.command("prune")
def prune(
    model: ModelArg,
    out: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="Default: MODEL-TASK-8of16.gguf in this folder.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option("--task", metavar="NAME", help="A profiled task; repeat it for more.")
    ] = None,
    keep: Annotated[
        str,
        typer.Option("--keep", metavar="auto|50%|8", help="Experts of each layer; auto: the fewest that do no harm."),
    ] = "auto",
    score: Annotated[
        str,
        typer.Option(
            "--score",
            metavar="NAME",
            help="What makes an expert worth keeping: easy-ep, mass, probability, counts, tcess.",
        ),
    ] = "easy-ep",
    active: Annotated[
        int | None, typer.Option("--active", min=1, metavar="N", help="Experts that each token uses; else as before.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Choose and measure only; write no file.")] = False,
    allow_harm: Annotated[
        bool, typer.Option("--allow-harm", help="Write it although answers will suffer, by what was measured.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.")] = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Write a smaller model: with the experts that tasks need, without the others.

    The damage is measured before anything is written. Weights are copied as they are, whatever their type. What was
    stopped, however, continues when the same command is given again.

    dsr experts prune nano --task addsub --dry-run

    dsr experts prune nano small.gguf --task addsub --task story --keep 50%
    """
    from dsr.experts import prune as pruning
    from dsr.models.library import find
    from dsr.quantize.quantize import check_name
    from dsr.ui.console import Console, printable
    from dsr.ui.interrupts import stopping
    from dsr.ui.progress import showing
    from runtime.base.run import Stop

    console = Console(json_mode=json, quiet=quiet)
    request = pruning.PruneRequest(
        tasks=tuple(task or ()),
        keep=keep,
        score=score,
        active=active,
        out=None if out is None else check_name(out),
        force=force or dry_run,
    )
    stop = Stop()
    local = find(model)
    with stopping(stop), showing(console) as listen:
        decided = pruning.decide(local, request, stop=stop, listen=listen)
        if dry_run:
            console.table(pruning.LAYER_HEADER, pruning.layer_table(decided.plan), right=(0, 1))
        for line in pruning.summary(decided):
            console.say(printable(line), style="plain")
        if dry_run:
            if decided.kept.hurts:
                console.warn("this will hurt: without --dry-run it needs --allow-harm")
            if quiet:
                console.data(str(decided.plan.keep))
        else:
            written = pruning.carry_out(decided, allow_harm=allow_harm, force=force, stop=stop, listen=listen)
            console.data(printable(str(written)))
            console.say(f"next: dsr chat {shlex.quote(str(written))}", style="plain")
    console.json("dsr.experts.prune/1", decided.json(written=not dry_run))
