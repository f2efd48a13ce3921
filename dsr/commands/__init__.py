"""One file per command: options -> request -> subject folder -> console. Each imports its modules when it runs."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Attach every command, in the order `dsr --help` lists them."""
    from dsr.commands import (
        alias,
        bench,
        chat,
        config,
        doctor,
        experts,
        history,
        imatrix,
        list,
        node,
        plan,
        pull,
        quantize,
        rm,
        serve,
        show,
    )
    from dsr.commands.usual_group import SettingsGroup, UsualGroup

    app.command("chat", cls=chat.ChatCommand)(chat.chat)
    app.command("serve")(serve.serve)
    app.command("pull")(pull.pull)
    app.command("list")(list.list_models)
    app.command("show")(show.show)
    app.command("plan")(plan.plan)
    app.add_typer(node.app, name="node")
    app.command("rm")(rm.rm)
    app.command("quantize")(quantize.quantize)
    app.command("imatrix")(imatrix.imatrix)
    app.add_typer(experts.app, name="experts")
    app.add_typer(bench.app, name="bench")
    app.command("history")(history.history)
    app.add_typer(config.app, name="config", cls=SettingsGroup)
    app.add_typer(alias.app, name="alias", cls=UsualGroup)
    app.command("doctor")(doctor.doctor)
