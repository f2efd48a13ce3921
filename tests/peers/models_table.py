"""Writes docs/models.md: what was measured of a tiny random model of every class that can be converted.

    python tests/peers/models_table.py LLAMA_CPP CONVERT_PYTHON HF_PYTHON LLAMA_SERVER

LLAMA_CPP is the source of the engine's release, CONVERT_PYTHON an interpreter with torch and transformers 4.57 (which
llama.cpp's converter pins), HF_PYTHON one with torch and transformers 5, LLAMA_SERVER the program of that release.
Runs convert.py, logits.py, breakdown.py, every_class.py and templates.py; their docstrings say how each one compares.
Takes about half a minute for each class. What was measured is kept in build/models: a stopped run goes on, as long as
the code is the same. `--older` also accepts what was measured with other code; the page marks it.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from quant.convert.architectures import CLASSES, configured
from quant.convert.conversion import source_of
from quant.convert.families import FAMILIES
from quant.recipe.recipe import load, plan
from quant.sources.checkpoint import open_checkpoint
from quant.write.execute import quantize
from runtime.base.errors import DsrError
from runtime.base.run import Run
from runtime.gguf.engine_lists import ENGINE_VERSION
from tests.peers import breakdown, convert, every_class, logits
from tests.quant.tiny_models import CONFIGS, KEEPING, MODELS, config_of, make_tiny

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "models.md"
KEPT = ROOT / "build" / "models"
# A quantized cache needs heads of 32, which most of the tiny models lack.
CASES = tuple(case for case in breakdown.CASES if case[2] == "f16")
# The measured allocation takes as long as all the others. It needs the size of the first file.
COMMANDS = {
    "commands": tuple(step for step in every_class.STEPS if step != "size"),
    "size": ("q4_k_m", "size"),
}
_CODE = ("dsr", "prompts", "quant", "runtime")


@cache
def code() -> str:
    """A digest of the program and of the tiny models: what a measurement depends on."""
    files = [*(path for folder in _CODE for path in (ROOT / folder).rglob("*.py")), *CONFIGS.parent.parent.glob("*.py")]
    found = hashlib.sha256()
    for path in sorted(files):
        found.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return found.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Kept:
    """What was measured of one model, a file for each kind of measurement."""

    older: bool

    def get(self, name: str, kind: str) -> dict[str, Any] | None:
        path = KEPT / f"{name}.{kind}.json"
        if not path.exists():
            return None
        found = dict(json.loads(path.read_text()))
        if found["config"] != _config_digest(name) or not (self.older or found["code"] == code()):
            return None
        return found

    def measured(self, name: str, kind: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Measure and write it, if it is not there."""
        if self.get(name, kind) is None:
            found = {"code": code(), "config": _config_digest(name)} | measure()
            path = KEPT / f"{name}.{kind}.json"
            path.with_suffix(".new").write_text(json.dumps(found, indent=1) + "\n")
            path.with_suffix(".new").replace(path)
            print(f"{name:48} {kind}", flush=True)


def _config_digest(name: str) -> str:
    path = CONFIGS / f"{name}.json"
    return hashlib.sha256(path.read_bytes() if path.exists() else b"").hexdigest()[:16]


# --- measuring -----------------------------------------------------------------------------------------------------


def converted(name: str, llama_cpp: str, python: str) -> dict[str, Any]:
    """Of tensors and keys how many are equal, and how many there are; or why there is no answer."""
    keep_mtp = name in KEEPING
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / name
        make_tiny(name, folder)
        try:
            mine, pre = convert.ours(folder, "bf16", keep_mtp=keep_mtp)
            theirs = convert.reference(llama_cpp, python, folder, "bf16", pre, keep_mtp=keep_mtp)
        except (DsrError, convert.Failed) as error:
            return {"fault": _one_line(error, folder)}
    found: dict[str, Any] = {}
    for what in ("tensors", "metadata"):
        wrong = convert.different(mine[what], theirs[what])
        found[what] = [len(theirs[what]) - len(wrong), len(theirs[what])]
    return found


def logits_error(name: str, python: str) -> dict[str, Any]:
    try:
        error, said = logits.error_of(python, name)
    except (DsrError, ValueError) as fault:
        return {"fault": _one_line(fault)}
    return {"error": error, "said": said[:200]}


def memory(name: str) -> dict[str, Any]:
    """Of each case whether weights and cache are equal, and by which share the predicted buffers are off."""
    found: dict[str, Any] = {"exact": [], "off": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder, file = Path(temporary) / name, Path(temporary) / "tiny.gguf"
        make_tiny(name, folder)
        source = source_of(open_checkpoint(folder), keep_mtp=name in KEEPING)
        quantize(source, plan(load("f16"), source), file, Run(threads=1))
        try:
            for case in CASES:
                compared = breakdown.compare(file, *case)
                found["exact"].append(compared.exact)
                found["off"].append(compared.off)
        except (DsrError, RuntimeError) as error:
            return {"fault": _one_line(error, folder)}
    return found


def ended(name: str, compiled: Path, steps: tuple[str, ...]) -> dict[str, Any]:
    return asdict(every_class.run(name, compiled, steps))


def _one_line(error: Exception, folder: Path | None = None) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(lines[-1].replace(str(folder), "").split())[:200]


def told_apart(llama_cpp: str, server: str) -> dict[str, Any]:
    """The summary of templates.py: of each column how many templates are the same."""
    command = [sys.executable, str(ROOT / "tests" / "peers" / "templates.py"), llama_cpp, server]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line.partition(": ") for line in done.stdout.splitlines() if ": " in line and not line.startswith(" ")]
    if not lines:
        return {"fault": (done.stderr.strip().splitlines() or ["no word"])[-1][:200]}
    return {"columns": {column: said for column, _, said in lines}, "all": done.returncode == 0}


# --- the page ------------------------------------------------------------------------------------------------------


def module_of(name: str) -> tuple[str, str]:
    """The GGUF architecture of a tiny model, and the module that has its family."""
    family, _ = configured(config_of(name), CONFIGS / f"{name}.json", keep_mtp=name in KEEPING)
    for module in {sys.modules[each] for each in sys.modules if each.startswith("quant.convert.families.")}:
        if any(each is family for each in getattr(module, "FAMILIES", ())):
            return family.architecture, module.__name__.rpartition(".")[2]
    raise LookupError(family.architecture)


class Row:
    """One line of the table, with what the notes below it explain."""

    def __init__(self, name: str, kept: Kept) -> None:
        self.name = name
        self._found = {kind: kept.get(name, kind) or {} for kind in ("convert", "logits", "memory", *COMMANDS)}
        self.old = any(each.get("code", code()) != code() for each in self._found.values())
        self.notes = tuple(self._notes())

    @property
    def cells(self) -> tuple[str, ...]:
        architecture, module = module_of(self.name)
        found = self._found
        equal = [self._pair(found["convert"].get(what)) for what in ("tensors", "metadata")]
        class_name, _, variant = self.name.partition("-")
        shown = f"{class_name} ({variant.replace('-', ' ')})" if variant else class_name
        return (
            f"{shown}{' †' if self.old else ''}", architecture, module, *equal, self._error(),
            self._exact(), self._off(), self._commands(),
        )  # fmt: skip

    def good(self, column: str) -> bool:
        found = self._found
        if column == "convert":
            return all(each and each[0] == each[1] for each in map(found["convert"].get, ("tensors", "metadata")))
        if column == "logits":
            return (found["logits"].get("error") or 1) <= logits.MOST
        if column == "cache":
            return bool(found["memory"].get("exact")) and all(found["memory"]["exact"])
        if column == "buffers":
            return bool(found["memory"].get("off")) and self._most() <= breakdown.NEAR
        ended = [found[kind] for kind in COMMANDS if found[kind]]
        return bool(ended) and not any(each["failed"] for each in ended)

    @staticmethod
    def _pair(equal: list[int] | None) -> str:
        return "-" if equal is None else f"{equal[0]} of {equal[1]}"

    def _error(self) -> str:
        error = self._found["logits"].get("error")
        return "-" if error is None else f"{error:.1e}{'' if error <= logits.MOST else ' !'}"

    def _exact(self) -> str:
        exact = self._found["memory"].get("exact")
        return "-" if not exact else "equal" if all(exact) else "not equal"

    def _most(self) -> float:
        return max(map(abs, self._found["memory"]["off"]))

    def _off(self) -> str:
        return f"{100 * self._most():.1f} %" if self._found["memory"].get("off") else "-"

    def _commands(self) -> str:
        found = [self._found[kind] for kind in COMMANDS if self._found[kind]]
        ran = {step for each in found for step in each["ran"]}
        failed = {step for each in found for step, _ in each["failed"]}
        return f"{len(ran - failed)} of {len(ran)}" if ran else "-"

    def _notes(self) -> Iterable[str]:
        for kind in ("convert", "memory"):
            if fault := self._found[kind].get("fault"):
                yield f"{kind}: {fault}"
        found = self._found["logits"]
        if fault := found.get("fault"):
            yield f"logits: {fault}"
        elif found and found.get("error") is None:
            yield f"no reference for the logits: {found['said']}"
        ended = [each for kind in COMMANDS for ends in ("failed", "limits") for each in self._found[kind].get(ends, ())]
        yield from dict.fromkeys(f"{step}: {why}" for step, why in ended)


HEAD = ("class", "architecture", "family", "tensors", "keys", "logits", "cache", "buffers", "commands")


def page(rows: list[Row], templates: dict[str, Any], command: str) -> str:
    """The whole page. Cells of code have no characters that Markdown reads."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    lines = [
        "# Every class, measured",
        "",
        f"    {command}",
        "",
        f"Made {today} by this command, with llama-cpp-python {ENGINE_VERSION}. dsr converts {len(CLASSES)} classes of "
        f"{len({family.architecture for family in FAMILIES})} architectures "
        "([list](reference/classes.md)). Each row is a tiny model with random weights.",
        "",
        "- tensors, keys: how many are equal to those of llama.cpp's own converter: name, type, shape and bytes.",
        "- logits: the relative error against transformers, for 64 tokens in F32. At most 1e-3 is wanted.",
        f"- cache, buffers: predicted memory against the engine's own, for {len(CASES)} contexts. The weights and the "
        "cache are equal to the byte or not; for buffers, the largest error.",
        f"- commands: how many run of {', '.join(every_class.STEPS[:-1])} and {every_class.STEPS[-1]} "
        "(`tests/peers/every_class.py`).",
        "",
        "A dash: not measured, or there is no reference. An exclamation mark: more than wanted.",
        "",
        *(["†: measured with an earlier state of the code.", ""] if any(row.old for row in rows) else []),
        f"| {' | '.join(HEAD)} |",
        "|---|---|---|---|---|---|---|---|---|",
        *(f"| {' | '.join(row.cells)} |" for row in rows),
        f"| {' | '.join(_totals(rows))} |",
        "",
    ]
    noted = [f"| {row.cells[0]} | {note.replace('|', '/')} |" for row in rows for note in row.notes]
    if noted:
        lines += ["## Limits and faults", "", "| class | what is said |", "|---|---|", *noted, ""]
    lines += ["## Chat templates", "", *_templates(templates)]
    return "\n".join(lines) + "\n"


def _totals(rows: list[Row]) -> tuple[str, ...]:
    def count(column: str) -> str:
        return f"{sum(row.good(column) for row in rows)} of {len(rows)}"

    both = count("convert")
    return (f"{len(rows)} models", "", "good:", both, both, *map(count, ("logits", "cache", "buffers", "commands")))


def _templates(found: dict[str, Any]) -> list[str]:
    if "columns" not in found:
        return [f"Not measured: {found.get('fault', 'not yet')}."]
    return [
        "The chat templates of llama.cpp, rendered by dsr and by `llama-server` (`tests/peers/templates.py`). "
        '"dsr alone": llama-server does not tell this thought apart, or loses a part.',
        "",
        "| case | templates |",
        "|---|---|",
        *(f"| {column} | {said} |" for column, said in found["columns"].items()),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("llama_cpp", "convert_python", "hf_python", "llama_server"):
        parser.add_argument(name)
    parser.add_argument("--older", action="store_true", help="accept what was measured with other code")
    parser.add_argument("--jobs", type=int, default=1, help="models whose commands run at a time")
    parser.add_argument("--no-measuring", action="store_true", help="write the page from what is kept")
    asked = parser.parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL)  # the engine names each tensor that it leaves out
    kept = Kept(asked.older or asked.no_measuring)
    if not asked.no_measuring:
        measure_all(asked, kept)
    command = "python tests/peers/models_table.py LLAMA_CPP CONVERT_PYTHON HF_PYTHON LLAMA_SERVER"
    rows = [Row(name, kept) for name in MODELS]
    PAGE.write_text(page(rows, kept.get("templates", "all") or {}, command), encoding="utf-8")
    print(PAGE)


def measure_all(asked: argparse.Namespace, kept: Kept) -> None:
    with tempfile.TemporaryDirectory() as compiled, ThreadPoolExecutor(asked.jobs) as pool:
        running = [
            pool.submit(
                kept.measured, name, "commands", lambda name=name: asdict(every_class.run(name, Path(compiled)))
            )
            for name in MODELS
        ]
        for name in MODELS:
            kept.measured(name, "convert", partial(converted, name, asked.llama_cpp, asked.convert_python))
            kept.measured(name, "memory", partial(memory, name))
            kept.measured(name, "logits", partial(logits_error, name, asked.hf_python))
        kept.measured("templates", "all", partial(told_apart, asked.llama_cpp, asked.llama_server))
        for each in running:
            each.result()


if __name__ == "__main__":
    main()
