"""`dsr node`: serve this machine to others, and list nodes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dsr.options import JsonOpt, QuietOpt

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Use several machines together: offer this one, or list the others.",
)


@app.command("serve")
def serve(
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="IPv4 address to listen on, in a private network.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="N", help="Port to listen on; 0 chooses a free one.")
    ] = 50052,
    threads: Annotated[
        int | None,
        typer.Option("--threads", "-t", min=1, metavar="N", help="CPU threads. Default: one per core."),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory", metavar="SIZE", help="Maximum memory that others may use, such as 4GiB. Default: what is free."
        ),
    ] = None,
    cache: Annotated[
        bool, typer.Option("--cache", help="Keep received weights on disk, so that they are sent only once.")
    ] = False,
    quiet: QuietOpt = False,
) -> None:
    """Let other machines use this one, until Ctrl-C. Without --host only this machine itself can connect.

    dsr node serve --host 192.168.1.20 --memory 8GiB

    Then, on the other machine:

    dsr chat --nodes 192.168.1.20:50052 deepseek-r1:7b
    """
    from dsr.store import paths
    from dsr.ui.console import Console, is_terminal
    from runtime.base.errors import Aborted
    from runtime.base.events import Event, Notice
    from runtime.base.types import ByteCount, counted
    from runtime.machine.host import probe
    from runtime.nodes.addresses import UNPROTECTED, Address, check_private
    from runtime.nodes.server import ServerOptions, free_port, run_server

    console = Console(quiet=quiet)
    check_private(host)
    address = Address(host, port or free_port(host))
    options = ServerOptions(
        address=address,
        threads=threads or probe().cores,
        memory=ByteCount.parse(memory) if memory else None,
        cache=paths.cache_folder() / "lent" if cache else None,
    )
    if not address.is_loopback:
        console.warn(UNPROTECTED)

    is_printed = is_terminal(sys.stdout)
    most = f"at most {options.memory}" if options.memory is not None else "all free memory"
    lends = f"lends {most} and {counted(options.threads, 'thread')} until Ctrl-C"

    def listen(event: Event) -> None:
        nonlocal is_printed, lends
        if isinstance(event, Notice):
            console.say(event.text)
            if lends:
                console.say(lends)
                lends = ""
            if not is_printed:
                # A script waits for this line before it connects; a person has read the notice.
                console.data(str(address))
                is_printed = True

    try:
        run_server(options, listen)
    except KeyboardInterrupt:
        raise Aborted from None


@app.command("list")
def list_nodes(
    nodes: Annotated[
        str | None,
        typer.Option(
            "--nodes",
            metavar="LIST|FILE",
            help="Machines to list: host[:port],... or a nodes.toml. Default: your nodes.toml.",
        ),
    ] = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """List nodes with their free memory and the speed of the connection.

    dsr node list --nodes 192.168.1.20:50052,192.168.1.21:50052
    """
    from dsr.loading.nodes import parse_nodes, probe_nodes
    from dsr.ui.console import Console
    from runtime.base.errors import NetworkError
    from runtime.base.types import ByteCount

    console = Console(json_mode=json, quiet=quiet)
    rows = probe_nodes(parse_nodes(nodes))
    console.json("dsr.node.list/1", {"nodes": [row.json() for row in rows]})
    answering = [(row.entry.address, row.node) for row in rows if row.node is not None]
    if answering:
        console.table(
            ("NODE", "FREE", "DEVICES", "ROUND TRIP", "LINK"),
            [
                (
                    str(address),
                    str(node.memory_free),
                    str(len(node.devices)),
                    f"{1000 * node.round_trip:.2f} ms",
                    f"{ByteCount(node.bandwidth)}/s",
                )
                for address, node in answering
            ],
            right=(1, 2, 3, 4),
        )
    if console.quiet:
        for address, _ in answering:
            console.data(str(address))
    problems = [row.problem for row in rows if row.problem is not None]
    for problem in problems:
        console.say(problem.message, style="yellow")
    if problems:
        raise NetworkError(f"{len(problems)} of {len(rows)} nodes cannot be used", hint=problems[0].hint)
