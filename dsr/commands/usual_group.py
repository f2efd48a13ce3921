"""Groups of commands whose most usual ones need no word: `dsr config KEY VALUE`, `dsr alias NAME MODEL`."""

from __future__ import annotations

from typing import Any

from dsr.commands.grouped_help import GroupedGroup


class UsualGroup(GroupedGroup):
    """Without the name of a command: none of the words lists, one shows and two set."""

    one, two = "show", "set"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = [each for each in args if not each.startswith("-")]
        asks_for_help = any(each in ("-h", "--help") for each in args)
        if not (asks_for_help or ctx.resilient_parsing) and (not words or words[0] not in self.commands):
            args = [self.one if len(words) == 1 else self.two if words else "list", *args]
        return super().parse_args(ctx, args)


class SettingsGroup(UsualGroup):
    one = "get"
