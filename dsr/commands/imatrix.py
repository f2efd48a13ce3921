"""`dsr imatrix`: an importance matrix from text, for quantizing and for pruning experts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsr.options import JsonlOpt, JsonOpt, ModelArg, QuietOpt, ThreadsOpt


def imatrix(
    model: ModelArg,
    text: Annotated[
        list[Path] | None,
        typer.Option("--text", metavar="FILE", help="Calibration text file. Repeatable. Default: a built-in text."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="File to write. Default: MODEL.imatrix.gguf in this folder."),
    ] = None,
    chunks: Annotated[
        int | None, typer.Option("--chunks", min=1, metavar="N", help="Maximum chunks of text to read. Default: all.")
    ] = None,
    ctx: Annotated[int, typer.Option("--ctx-size", "-c", min=16, metavar="N", help="Tokens in each chunk.")] = 512,
    add: Annotated[
        list[Path] | None,
        typer.Option("--add", metavar="FILE", help="Add an earlier matrix of this model. Repeatable."),
    ] = None,
    moments: Annotated[
        Path | None,
        typer.Option(
            "--moments", metavar="FOLDER", help="Also write the second moments for dsr quantize --round to this folder."
        ),
    ] = None,
    threads: ThreadsOpt = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    json_output: JsonOpt = False,
    jsonl: JsonlOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Write an importance matrix: which weights matter most for a text.

    The built-in text has reasoning conversations in the model's own chat format, and passages of many kinds. The file
    has llama.cpp's format. For a mixture of experts it also records the routers' choices.

    Try it:  dsr imatrix nano --chunks 8
    """
    from dsr.models.library import find
    from dsr.quantize.imatrix import ImatrixRequest, coverage_in_words, make, unseen_in_words
    from dsr.ui.console import Console, printable
    from dsr.ui.interrupts import stopping
    from dsr.ui.progress import showing
    from runtime.base.run import Run, Stop
    from runtime.base.types import counted

    console = Console(json_mode=json_output, quiet=quiet, jsonl=jsonl)
    found = find(model)
    request = ImatrixRequest(
        out=out or Path(f"{found.path.stem}.imatrix.gguf"),
        texts=tuple(text or ()),
        chunks=chunks,
        context=ctx,
        add=tuple(add or ()),
        moments=moments,
        force=force,
    )
    stop = Stop()
    with stopping(stop), showing(console) as listen:
        made = make(found, request, Run(stop, listen, threads))
    matrix = made.matrix
    console.say(
        f"{counted(len(matrix.entries), 'weight')}, {counted(matrix.chunk_count, 'chunk')} of "
        f"{matrix.chunk_size} tokens, "
        f"{made.size}, {made.seconds:.1f} s"
    )
    covered = coverage_in_words(made.coverage)
    if covered:
        console.say(covered)
    warning = unseen_in_words(made.coverage)
    if warning:
        console.warn(warning)
    if made.moments is not None:
        console.say(f"second moments: {made.moments}")
    console.data(printable(str(made.path)))
    console.json("dsr.imatrix/1", made.json(found.reference))
