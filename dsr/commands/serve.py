"""`dsr serve`: serves the models of this machine to other programs, and a page to people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsr.options import FromDiskOpt, KvFullOpt, QuietOpt


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            show_default=False,
            help="Models to serve; the first answers requests that name none. Default: all on this machine.",
        ),
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option(
            "--alias", metavar="NAME", help="Another name of the first model; '*' is any unknown name. Repeatable."
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="N", help="Port to listen on; 0 finds a free one.")
    ] = 11500,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            envvar="DSR_API_KEY",
            show_default=False,
            help="Key that clients must send. Other users of this machine can see options, but not variables.",
        ),
    ] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Let other machines ask without a key.")] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Accept requests to this name of the server. Repeatable."),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(
            "--cors", metavar="ORIGIN", help="Let web pages of this origin ask (https://chat.example). Repeatable."
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", metavar="FILE", help="Certificate (PEM): speak HTTPS.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="FILE", help="Key of the certificate. Default: in its file.")
    ] = None,
    slots: Annotated[
        int, typer.Option("--slots", min=1, max=64, metavar="N", help="Answers that each model generates at once.")
    ] = 8,
    ctx_size: Annotated[
        int | None,
        typer.Option(
            "--ctx-size",
            "-c",
            min=1,
            metavar="N",
            help="Context of each model in tokens, which its answers share. Default: 32768; 16384 with --slots 1. "
            "Less if model or memory is smaller.",
        ),
    ] = None,
    kv_type: Annotated[
        str | None,
        typer.Option(
            "--kv-type",
            metavar="TYPE",
            show_default=False,
            help="Type of the KV cache: f16 (default), q8_0, q4_0, ..., or k=q8_0,v=q4_0.",
        ),
    ] = None,
    kv_full: KvFullOpt = False,
    from_disk: FromDiskOpt = "auto",
    keep_alive: Annotated[
        str,
        typer.Option(
            "--keep-alive",
            metavar="TIME",
            help="Unload a model after this time without requests (30s, 10m, 1h). 0: at once. -1 or never: keep it.",
        ),
    ] = "10m",
    max_models: Annotated[
        int, typer.Option("--max-models", min=1, metavar="N", help="Models that are loaded at once.")
    ] = 3,
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", metavar="TIME", help="Longest time of an answer (30s, 10m). Default: no limit."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", "-t", min=1, metavar="N", help="CPU threads. Default: the measured best."),
    ] = None,
    log_file: Annotated[
        Path | None,
        typer.Option(
            "--log-file",
            metavar="FILE",
            help="Append a JSON line for each request to FILE. Default: to stderr; short lines at a terminal.",
        ),
    ] = None,
    quiet: QuietOpt = False,
) -> None:
    """Serve the models of this machine to editors, scripts and browsers, until Ctrl-C.

    dsr serve

    dsr serve deepseek-r1:7b

    DSR_API_KEY=$(openssl rand -hex 16) dsr serve --host 0.0.0.0
    """
    from dsr.loading.context import MAX_SHARED_CONTEXT
    from dsr.loading.options import LoadOptions
    from dsr.models.reach import DEFAULT_CONTEXT
    from dsr.serve import serve as subject
    from dsr.serve.duration import keep_alive_seconds, limit_seconds
    from dsr.serve.listen import Address
    from dsr.serve.pool.pool import PoolOptions
    from dsr.store import paths, settings
    from runtime.gguf.kv_types import kv_types

    defaults = settings.load(paths.config_file())
    kv_type = kv_type or defaults.kv_type
    kv_types(kv_type)
    LoadOptions(from_disk=from_disk)  # refuses what is neither auto nor off
    pool = PoolOptions(
        keep_alive=keep_alive_seconds(keep_alive),
        most_models=max_models,
        slots=slots,
        threads=threads or defaults.threads,
        timeout=limit_seconds(timeout),
        load={
            "context": ctx_size,
            "usual_context": defaults.ctx_size or (MAX_SHARED_CONTEXT if slots > 1 else DEFAULT_CONTEXT),
            "kv_type": kv_type,
            "kv_full": kv_full,
            "from_disk": from_disk,
        },
        usual={"sampling": dict(defaults.sampling), "effort": defaults.effort, "keep_thoughts": defaults.keep_thoughts},
    )
    request = subject.ServeRequest(
        models=tuple(models or ()),
        default_model=defaults.model,
        aliases=tuple(alias or ()),
        address=Address(host, port, tls_cert, tls_key),
        key=api_key or "",
        no_auth=no_auth,
        hosts=tuple(allow_host or ()),
        origins=tuple(cors or ()),
        pool=pool,
        log_file=log_file,
        quiet=quiet,
    )
    subject.run(request)
