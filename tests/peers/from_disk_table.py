"""The tables of `from_disk.py`, from its runs.

python tests/peers/from_disk_table.py FOLDER/from-disk.json
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Pair:
    """The runs of both sides as dicts (`from_disk.Measured`), beside each other in time.

    `memory` in bytes; `speed` of the disk in bytes per second; `computing`: seconds of a token with all weights in
    memory, 0 where it was not measured.
    """

    case: dict[str, Any]
    memory: int
    ours: dict[str, Any]
    theirs: dict[str, Any]
    speed: float
    computing: float

    @property
    def ratio(self) -> float:
        return float(self.ours["tokens_per_second"] / self.theirs["tokens_per_second"])

    @property
    def extra(self) -> dict[str, Any]:
        """What dsr tells about its run."""
        return dict(self.ours["extra"])

    def line(self) -> str:
        other = "one sample" if self.case["test"] == "votes" else "llama.cpp"
        return (
            f"{self.case['name']}: dsr {self.ours['tokens_per_second']:.2f} t/s, "
            f"{self.ours['bytes_per_token'] / 1e6:.0f} MB a token; {other} {self.theirs['tokens_per_second']:.2f} t/s, "
            f"{self.theirs['bytes_per_token'] / 1e6:.0f} MB; ratio {self.ratio:.2f} (wanted {self.case['wanted']})"
        )

    def per_token(self, name: str) -> float:
        return float(self.extra.get(name, 0) / self.extra["tokens"])

    @property
    def bound(self) -> float:
        """Tokens per second if computing, and reading what was read, took place at the same time and without loss."""
        return 1 / max(self.computing, self.ours["bytes_per_token"] / self.speed) if self.computing else 0.0

    @property
    def hits(self) -> float | None:
        """Share of the needed bytes that were not read, also not ahead."""
        needed = self.extra.get("needed")
        return 1 - self.ours["bytes_per_token"] * self.extra["tokens"] / needed if needed else None

    @property
    def off_by(self) -> float | None:
        """Relative error of the forecast."""
        found = self.extra.get("forecast")
        return found / self.ours["tokens_per_second"] - 1 if found else None


def tables(pairs: Sequence[Pair]) -> str:
    """Markdown."""
    names = dict.fromkeys(each.case["name"] for each in pairs)
    groups = [[each for each in pairs if each.case["name"] == name] for name in names]
    return "\n\n".join((_against(groups), _inside(groups), _memory(pairs)))


def _middle(group: Iterable[Pair], value: Callable[[Pair], float | None]) -> float | None:
    found = [each for each in map(value, group) if each is not None]
    return statistics.median(found) if found else None


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "| :-- |" + " --: |" * (len(heads) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _against(groups: Sequence[Sequence[Pair]]) -> str:
    rows = []
    for group in groups:
        first, ratios = group[0], sorted(each.ratio for each in group)
        reached = statistics.median(ratios)
        rows.append(
            (
                first.case["name"],
                f"{first.memory / 2**20:.0f} MiB",
                _shown(_middle(group, lambda each: each.theirs["tokens_per_second"]), "{:.2f}"),
                _shown(_middle(group, lambda each: each.ours["tokens_per_second"]), "{:.2f}"),
                f"{reached:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}, {len(group)})",
                f"{first.case['wanted']}{'' if reached >= first.case['wanted'] else ', missed'}",
                _shown(_middle(group, lambda each: each.theirs["bytes_per_token"] / 1e6), "{:.0f}"),
                _shown(_middle(group, lambda each: each.ours["bytes_per_token"] / 1e6), "{:.0f}"),
                _shown(_middle(group, _best), "{:.0f}"),
                _shown(
                    _middle(group, lambda each: _quotient(each.ours["bytes_per_token"] / 1e6, _best(each))), "{:.2f}"
                ),
            )
        )
    heads = ("case", "memory", "llama.cpp, t/s", "dsr, t/s", "ratio (range, pairs)", "wanted", "llama.cpp, MB/token")
    return _table((*heads, "dsr, MB/token", "best possible", "dsr / best"), rows)


def _best(pair: Pair) -> float | None:
    """MB per token of the policy that knows the future."""
    return pair.per_token("best") / 1e6 if pair.extra.get("best") else None


def _quotient(value: float, by: float | None) -> float | None:
    return value / by if by else None


def _inside(groups: Sequence[Sequence[Pair]]) -> str:
    rows = []
    for group in groups:
        milliseconds: list[str] = []
        for value in (
            lambda each: each.extra["seconds"] / each.extra["tokens"],
            lambda each: each.extra["use"]["waited"] / each.extra["tokens"] if "use" in each.extra else None,
            lambda each: (
                (each.extra["callback"] - each.extra["use"]["waited"]) / each.extra["tokens"]
                if "use" in each.extra
                else None
            ),
            lambda each: each.computing or None,
            lambda each: 1 / each.bound if each.bound else None,
        ):
            found = _middle(group, value)
            milliseconds.append(_shown(None if found is None else found * 1e3, "{:.0f}"))
        rows.append(
            (
                group[0].case["name"],
                _shown(_middle(group, lambda each: each.hits), "{:.0%}"),
                *milliseconds,
                _shown(
                    _middle(group, lambda each: _quotient(each.bound, each.ours["tokens_per_second"]) or None), "{:.2f}"
                ),
                _shown(_middle(group, lambda each: each.extra.get("forecast") or None), "{:.2f}"),
                _shown(_middle(group, lambda each: each.off_by), "{:+.0%}"),
                _shown(_middle(group, lambda each: each.speed / 1e6), "{:.0f}"),
            )
        )
    heads = ("dsr alone", "hits", "ms/token", "waiting for the disk", "rest of the callback", "computing, in memory")
    return _table((*heads, "limit, ms", "ms / limit", "forecast, t/s", "off by", "disk, MB/s"), rows)


def _memory(pairs: Sequence[Pair]) -> str:
    lines = []
    for name, side in (("dsr", "ours"), ("llama.cpp", "theirs")):
        runs = [getattr(each, side) for each in pairs if side == "ours" or each.case["test"] != "votes"]
        limits = [each.memory for each in pairs if side == "ours" or each.case["test"] != "votes"]
        kills = sum(each["outcome"]["kills"] for each in runs)
        swapped = sum(each["outcome"]["swapped"] for each in runs)
        most = max((run["outcome"]["peak"] / limit for run, limit in zip(runs, limits, strict=True)), default=0)
        lines.append(
            f"- {name}: {len(runs)} runs, {kills} killed, {swapped} bytes in swap, at most {most:.1%} of the group's "
            "memory, with its page cache"
        )
    return "\n".join(lines)


def main() -> None:
    print(tables([Pair(**each) for each in json.loads(Path(sys.argv[1]).read_text())]))


if __name__ == "__main__":
    main()
