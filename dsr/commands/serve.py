"""`dsr serve`: serves the models of this machine to other programs, and a page to people."""

from __future__ import annotations

from typing import Annotated

import typer


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            show_default=False,
            help="Models to serve; the first answers requests that name none. Default: all on this machine.",
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, metavar="N", help="Port to listen on.")] = 11500,
    slots: Annotated[
        int, typer.Option("--slots", min=1, max=64, metavar="N", help="Answers that each model draws at once.")
    ] = 8,
    ctx_size: Annotated[
        int | None,
        typer.Option(
            "--ctx-size", "-c", min=1, metavar="N", help="Context of each model in tokens. Default: up to 32768."
        ),
    ] = None,
    max_models: Annotated[
        int, typer.Option("--max-models", min=1, metavar="N", help="Models that are loaded at once.")
    ] = 3,
    threads: Annotated[
        int | None,
        typer.Option("--threads", "-t", min=1, metavar="N", help="CPU threads. Default: the measured best."),
    ] = None,
) -> None:
    """Serve the models of this machine to editors, scripts and browsers, until Ctrl-C.

    dsr serve

    dsr serve deepseek-r1:7b
    """
    from dsr.serve import serve as subject
    from dsr.serve.pool.pool import PoolOptions

    load = {"context": ctx_size, "usual_context": 32768}
    pool = PoolOptions(slots=slots, most_models=max_models, threads=threads, load=load)
    subject.run(subject.ServeRequest(tuple(models or ()), host, port, pool))
