"""`dsr quantize`: a smaller file from original weights or a GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsr.options import JsonlOpt, JsonOpt, QuietOpt

if TYPE_CHECKING:
    from dsr.quantize.decide import Decision
    from dsr.ui.console import Console
    from quant.measure.divergence import Report
    from quant.plan import Effort


def quantize(
    src: Annotated[
        str | None,
        typer.Argument(metavar="SRC", help="Folder with original weights, GGUF file, or name of a pulled model."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", help="File to write. Default: a name such as NAME-RECIPE.gguf in this folder."),
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE]", show_default=False, help="Recipe, same as --recipe: in the order of llama-quantize."
        ),
    ] = None,
    out_option: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="File to write; same as OUT.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            "-r",
            metavar="NAME|FILE",
            help="Recipe that sets the type of each tensor; see --list-recipes. Default: q4_k_m.",
        ),
    ] = None,
    tensor_type: Annotated[
        list[str] | None,
        typer.Option(
            "--tensor-type",
            metavar="PATTERN=TYPE",
            help="Type of the tensors whose names match, such as ffn_down=q6_k. Repeatable; the first match counts.",
        ),
    ] = None,
    pure: Annotated[bool, typer.Option("--pure", help="Give all tensors the main type of a standard mixture.")] = False,
    leave_output_tensor: Annotated[
        bool, typer.Option("--leave-output-tensor", help="Keep the type of output.weight.")
    ] = False,
    imatrix: Annotated[
        Path | None,
        typer.Option("--imatrix", metavar="FILE", help="Importance matrix made by dsr imatrix. Default: none."),
    ] = None,
    rounding: Annotated[
        str | None,
        typer.Option(
            "--round",
            metavar="off|fast|best",
            help="Correct errors of rounding, at the same size: best loses least, fast takes less time. "
            "Default: as the recipe says, else off; best for a size.",
        ),
    ] = None,
    moments: Annotated[
        Path | None,
        typer.Option(
            "--moments",
            metavar="FOLDER",
            help="Second moments for --round, made by dsr imatrix --moments. Default: collected and kept.",
        ),
    ] = None,
    bpw: Annotated[
        float | None,
        typer.Option("--bpw", metavar="BITS", help="Measure, then write the best file with this many bits per weight."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size", metavar="SIZE", help="Measure, then write the best file up to this size, such as 12GiB."
        ),
    ] = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="Measure, then write the best file that fits in this machine's memory.")
    ] = False,
    context: Annotated[
        int,
        typer.Option(
            "--ctx-size", "-c", min=1, metavar="N", help="Context size in tokens that --fit leaves memory for."
        ),
    ] = 4096,
    save_recipe: Annotated[
        Path | None, typer.Option("--save-recipe", metavar="FILE", help="Also write the chosen types as a recipe file.")
    ] = None,
    measure: Annotated[
        Path | None, typer.Option("--measure", metavar="TEXT", help="Afterwards measure the loss on this text file.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show types and exact size, write nothing. A folder with config.json is enough."
        ),
    ] = False,
    list_recipes: Annotated[
        bool,
        typer.Option(
            "--list-recipes", help="List the built-in recipes with bits, size and loss, then exit. For SRC, else nano."
        ),
    ] = False,
    show_recipe: Annotated[
        str | None,
        typer.Option("--show-recipe", metavar="NAME", help="Show the rules and sources of a recipe, then exit."),
    ] = None,
    allow_requantize: Annotated[
        bool, typer.Option("--allow-requantize", help="Accept a source that is already quantized; the loss adds up.")
    ] = False,
    split_max_size: Annotated[
        str | None,
        typer.Option(
            "--split-max-size", metavar="SIZE", help="Split the output into files up to this size, such as 4GiB."
        ),
    ] = None,
    pre: Annotated[
        str | None,
        typer.Option("--pre", metavar="NAME", help="Name of the pre-tokenizer, if dsr does not recognise it."),
    ] = None,
    keep_mtp: Annotated[
        bool, typer.Option("--keep-mtp", help="Keep multi-token prediction layers, for dsr chat --draft mtp.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option("--threads", "-t", min=1, metavar="N", help="CPU threads. Default: all cores.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing OUT.")] = False,
    json_output: JsonOpt = False,
    jsonl: JsonlOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Make a smaller GGUF file from original weights or a larger one.

    An interrupted run resumes when you repeat the command.

    Try it:  dsr quantize ./DeepSeek-R1 --recipe dq3_k_m --dry-run
    """
    from dsr.quantize.arguments import in_order
    from dsr.quantize.quantize import QuantizeRequest, plan_quantization, report_json
    from dsr.quantize.recipe_list import DEFAULT
    from dsr.quantize.size import SizeTarget
    from dsr.ui.console import Console, printable
    from dsr.ui.interrupts import stopping
    from dsr.ui.progress import showing
    from quant.recipe.overrides import Overrides
    from quant.recipe.overrides import tensor_type as parse_tensor_type
    from quant.recipe.recipe import AnyRecipe, load, source_text
    from runtime.base.errors import UsageError
    from runtime.base.run import Run, Stop
    from runtime.base.types import ByteCount

    console = Console(json_mode=json_output, quiet=quiet, jsonl=jsonl)
    if list_recipes:
        return _list(src, console)
    if show_recipe is not None:
        console.data(printable(source_text(show_recipe)).rstrip())
        return None
    if src is None:
        raise UsageError("there is nothing to quantize: SRC is missing", hint="dsr quantize --help")
    words = in_order(out, more or (), out_option=out_option, recipe=recipe, threads=threads)
    out, recipe, threads = words.out, words.recipe, words.threads
    target: AnyRecipe | SizeTarget = load(recipe or DEFAULT)
    if bpw is not None or size is not None or fit:
        if recipe is not None:
            raise UsageError("a recipe has its own size: --recipe excludes --bpw, --size and --fit")
        target = SizeTarget(bpw, None if size is None else ByteCount.parse(size), fit, context)
    request = QuantizeRequest(
        source=src,
        target=target,
        out=out,
        overrides=Overrides(tuple(map(parse_tensor_type, tensor_type or ())), pure, leave_output_tensor),
        imatrix=imatrix,
        rounding=None if rounding is None else _effort(rounding),
        moments=moments,
        save_recipe=save_recipe,
        measure=measure,
        split_max_size=None if split_max_size is None else ByteCount.parse(split_max_size),
        pre=pre,
        keep_mtp=keep_mtp,
        allow_requantize=allow_requantize,
        force=force,
        dry_run=dry_run,
    )
    stop = Stop()
    with stopping(stop), showing(console) as listen:
        run = Run(stop, listen, threads)
        with plan_quantization(request, run) as quantization:
            decision = quantization.decision
            for warning in decision.warnings:
                console.warn(printable(warning))
            if dry_run:
                return _show(console, decision)
            files = quantization.write(run)
            _written(console, decision, files)
            report = quantization.loss(files[0], run)
    if report is not None:
        _measured(console, decision, report)
    console.json("dsr.quantize/1", decision.json(files) | ({} if report is None else {"measured": report_json(report)}))
    return None


def _effort(name: str) -> Effort:
    from quant.plan import EFFORTS
    from runtime.base.errors import UsageError

    for effort in EFFORTS:
        if effort == name:
            return effort
    raise UsageError(f"{name!r} is no effort of rounding", hint=f"--round {'|'.join(EFFORTS)}")


def _list(src: str | None, console: Console) -> None:
    from dsr.models.library import find_weights
    from dsr.quantize.decide import name_of
    from dsr.quantize.recipe_list import HEADER, recipe_rows
    from dsr.ui.console import printable
    from quant.open_source import open_source

    model = find_weights(src or "nano")
    with open_source(model.path, name=name_of(model), weights=False) as source:
        rows = recipe_rows(source)
    if console.human:
        console.table(HEADER, [row.cells() for row in rows], right=(1, 2, 3))
        console.say(printable(f"bits and size: of {source.name}; of another model: dsr quantize MODEL --list-recipes"))
        console.say("KLD: loss in nats per token, measured on nano; imatrix: needs --imatrix or --round")
        console.say("A KLD below 0.002 is no loss: the engine rounds its own sums differently for each type of weights")
        console.say("--round best corrects errors of rounding with any of them, at the same size", style="plain")
    else:
        for row in rows:
            console.data(row.name)
    console.json("dsr.quantize.recipes/1", {"model": source.name, "recipes": [row.json() for row in rows]})


def _show(console: Console, decision: Decision) -> None:
    from dsr.models.description import short_number
    from dsr.quantize.plan_summary import layers_of_row, memory_in_words, portions
    from runtime.base.types import counted

    plan = decision.plan
    rows = portions(plan)
    console.table(
        ("tensors", "type", "weights", "bits", "size", "layers"),
        [
            (
                f"{row.role} {row.part}".rstrip(),
                row.type,
                short_number(row.parameters),
                f"{row.bits_per_weight:.2f}",
                str(row.size),
                layers_of_row(row, rows),
            )
            for row in rows
        ],
        right=(2, 3, 4),
    )
    console.summary(
        f"{decision.recipe}: {short_number(plan.parameters)} weights, {plan.bits_per_weight:.2f} bits per weight, "
        f"{plan.bytes} ({int(plan.bytes)} bytes)"
    )
    rounded = [tensor.rounding for tensor in plan.tensors if tensor.rounding]
    if rounded:
        console.say(f"errors of rounding are corrected in {counted(len(rounded), 'tensor')} ({rounded[0]})")
    if decision.predicted_kld is not None:
        console.say(f"predicted KL divergence from the source: {decision.predicted_kld:.4f} nats")
    memory = memory_in_words(plan)
    if memory:
        console.say(f"memory to run it: {memory}")
    console.json("dsr.quantize/1", decision.json())


def _written(console: Console, decision: Decision, files: tuple[Path, ...]) -> None:
    from dsr.models.description import short_number
    from dsr.models.library import find
    from dsr.models.next_step import next_command
    from dsr.ui.console import printable
    from runtime.base.types import ByteCount

    plan = decision.plan
    size = ByteCount(sum(file.stat().st_size for file in files))
    parts = f" in {len(files)} files" if len(files) > 1 else ""
    weights = f"{short_number(plan.parameters)} weights, {plan.bits_per_weight:.2f} bits per weight"
    console.say(f"{decision.recipe}: {weights}, {size}{parts}")
    console.data(printable(str(files[0])))
    console.say(f"next: {next_command(find(str(files[0])))}", style="plain")


def _measured(console: Console, decision: Decision, report: Report) -> None:
    predicted = "" if decision.predicted_kld is None else f" (predicted {decision.predicted_kld:.4f})"
    console.say(f"perplexity {report.perplexity}, of the source {report.base_perplexity}")
    console.say(f"KL divergence from the source {report.kld} nats{predicted}")
    console.say(f"same top token {report.same_top}, on {report.tokens} tokens")
