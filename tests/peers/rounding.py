"""What do corrected rounding and measured types gain against llama-quantize, on real weights?

    python tests/peers/rounding.py [--models nano,smollm2] [--recipes q2_k,q3_k_m] [--kinds plain,best,size]
        [--questions] [--tokens N] [--threads N] [--again] [--work FOLDER] [--write docs/results.md]

For each model and recipe:

- plain: `llama-quantize` with an importance matrix in its format, made of the very tokens of the second moments.
- best: `dsr quantize --recipe R --round best`. The script ends where a tensor's type or size differs.
- size: `dsr quantize --size`, with no more bytes than the plain file.

All are compared with the F16 weights by KL divergence, each text in an empty context and every token counted.
`--questions`: greedy accuracy, too. Everything that is found stands in WORK/rounding.json; the same command goes on
with what is missing, and `--again` measures again. `--write` puts the table of all that was found into a document.
`--source FILE` measures another F16 file instead, with the built-in text.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dsr.quantize.moments import collect, importance_of, moments_of
from quant.measure.imatrix import write as write_imatrix
from quant.round.moments import Moments, source_digest
from quant.sources.source import GgufSource
from runtime.base.files import write_atomically
from runtime.base.run import Run
from runtime.gguf.card import ModelCard
from runtime.gguf.reader import read_card
from tests import sections
from tests.peers import rounding_judge as judge
from tests.peers import rounding_table
from tests.peers.common import peer
from tests.peers.rounding_subjects import OWN, RECIPES, ROOT, SUBJECTS, Subject

_PEERS = Path.home() / ".cache/dsr-peers"
KINDS = ("plain", "best", "size")
_SECTION = "rounding"
_COMMAND = "python tests/peers/rounding.py --questions --write docs/results.md"


@dataclass(frozen=True, slots=True)
class Work:
    """Where files and results are, and with how many threads they are made."""

    folder: Path
    models: Path
    threads: int

    @property
    def results(self) -> Path:
        return self.folder / "rounding.json"

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.results.read_bytes()) if self.results.exists() else {}
        return found

    def keep(self, subject: str, key: str, value: dict[str, Any]) -> None:
        found = self.read()
        found.setdefault(subject, {})[key] = value
        write_atomically(self.results, json.dumps(found, indent=1).encode())


def dsr(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "dsr", *map(str, arguments)]


def ran(command: Sequence[str]) -> tuple[str, dict[str, float]]:
    """The output of a command, and its seconds: by the clock and of processor time."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, {"seconds": time.perf_counter() - started, "processor": processor}


def moments(subject: Subject, source: Path, work: Work) -> tuple[Moments, tuple[object, ...]]:
    """The second moments that both sides use, and the option with which `dsr quantize` finds them."""
    run = Run(threads=work.threads)
    with GgufSource(source) as opened:
        if not subject.own:
            return moments_of(opened, None, run), ()
        folder = work.folder / f"{subject.name}-moments"
        texts = OWN.each_for_model(read_card(source))
        return collect(source, source_digest(opened), texts, None, folder, run), ("--moments", folder)


def make(subject: Subject, source: Path, recipe: str, kind: str, work: Work, given: tuple[object, ...]) -> None:
    """Write a file and keep what it took."""
    out = work.folder / f"{subject.name}-{recipe}-{kind}.gguf"
    matrix = work.folder / f"{subject.name}.imatrix.gguf"
    if kind == "plain" and recipe in RECIPES:
        command = [peer("llama-quantize"), "--imatrix", str(matrix), str(source), str(out), recipe.upper()]
        command.append(str(work.threads))
    else:
        how: tuple[object, ...] = ("--recipe", recipe, "--round", "best", *given)
        if kind == "plain":
            how = ("--recipe", recipe, "--round", "off", "--imatrix", matrix)
        if kind == "size":
            how = ("--size", work.read()[subject.name][f"{recipe}-plain"]["bytes"], "--round", "best", *given)
        command = dsr("quantize", source, out, *how, "-t", work.threads, "--force", "-q")
    _, took = ran(command)
    card, size = read_card(out), out.stat().st_size
    found = {"file": out.name, "bytes": size, "bpw": card.bits_per_weight, "types": _types(card), **took}
    found |= {"made": time.strftime("%Y-%m-%d"), "command": _shown(command)}
    work.keep(subject.name, f"{recipe}-{kind}", found)
    print(f"{out.name}: {size} bytes, {took['processor']:.0f} s of processor time", flush=True)


def _shown(command: Sequence[str]) -> str:
    return " ".join(command).replace(sys.executable, "python")


def _types(card: ModelCard) -> dict[str, str]:
    return {tensor.name: tensor.type for tensor in card.tensors}


def check_same(subject: Subject, recipe: str, work: Work) -> None:
    """Ends the script where the plain and the best file differ in a type: they would not have the same bytes."""
    known = work.read()[subject.name]
    one, other = (known[f"{recipe}-{kind}"] for kind in ("plain", "best"))
    different = {name for name in one["types"] | other["types"] if one["types"].get(name) != other["types"].get(name)}
    if different:
        sys.exit(f"{one['file']} and {other['file']} differ in the types of {sorted(different)}")
    weights = [sum(t.size for t in read_card(work.folder / each["file"]).tensors) for each in (one, other)]
    if weights[0] != weights[1]:
        sys.exit(f"{one['file']} and {other['file']} have {weights} bytes of weights")


def judged(subject: Subject, source: Path, tokens: int) -> list[judge.Judged]:
    makers = {
        "problems": lambda: judge.held_out(source, tokens, problems=True),
        "conversations": lambda: judge.held_out(source, tokens),
        "manual": lambda: judge.manual(source, tokens),
    }
    return [makers[name]() for name in subject.judged]


def measure(subject: Subject, source: Path, keys: Sequence[str], tokens: int, work: Work, again: bool) -> None:
    """Judge the files called `keys` on each text."""
    for texts in judged(subject, source, tokens):
        known = work.read()[subject.name]
        judged_on = {key: known[key].get("losses", {}).get(texts.name, {}).get("digest") for key in keys}
        missing = [key for key in keys if again or judged_on[key] != texts.digest]
        if not missing:
            continue
        started = time.process_time()
        with judge.Reference(source, texts, work.folder, work.threads) as reference:
            for key in missing:
                loss = reference.loss(work.folder / known[key]["file"])
                kept = work.read()[subject.name][key]
                kept.setdefault("losses", {})[texts.name] = {"digest": texts.digest, **asdict(loss)}
                work.keep(subject.name, key, kept)
                print(f"{subject.name} {key}, {texts.name}: {loss}", flush=True)
        print(f"  {len(texts.parts)} texts, {texts.tokens} tokens, {time.process_time() - started:.0f} s", flush=True)


def ask(subject: Subject, source: Path, kinds: Sequence[str], work: Work, again: bool) -> None:
    """Greedy answers to the questions of the suite, of the original and of the files of the recipe."""
    for kind in ("original", *kinds):
        key = "original" if kind == "original" else f"{subject.asked}-{kind}"
        known = work.read()[subject.name].get(key, {})
        if "answers" in known and not again:
            continue
        path = source if kind == "original" else work.folder / known["file"]
        out = work.folder / f"{subject.name}-{key}-answers"
        command = dsr("bench", "reason", path, "--suite", subject.suite, "--samples", 1, "--strategies", "direct")
        command += ["--temp", "0", *subject.options, "-t", str(work.threads), "--no-log", "--json", "--out", str(out)]
        _, took = ran(command)
        lines = [json.loads(line) for line in (out / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
        right = {line["id"]: bool(line["correct"]) for line in lines}
        kept = {"right": right, **took, "command": _shown(command)}
        work.keep(subject.name, key, {**known, "answers": kept})
        print(f"{path.name}: {sum(right.values())} of {len(right)} right, {took['processor']:.0f} s", flush=True)


def of_subject(subject: Subject, asked: argparse.Namespace, work: Work) -> None:
    source = subject.source(work.models, work.folder)
    kinds = [kind for kind in asked.kinds if kind != "size" or subject.wanted_of_size]
    wanted = [f"{recipe}-{kind}" for recipe in asked.recipes or (*RECIPES, *subject.also) for kind in kinds]
    known = work.read().get(subject.name, {})

    def there(key: str) -> bool:
        return not asked.again and key in known and (work.folder / known[key]["file"]).exists()

    missing = [key for key in wanted if not there(key)]
    if missing:
        started = time.process_time()
        found, given = moments(subject, source, work)
        write_imatrix(work.folder / f"{subject.name}.imatrix.gguf", importance_of(found))
        took = time.process_time() - started
        print(f"{subject.title}: moments of {found.index.tokens} tokens, {took:.0f} s", flush=True)
        if took > known.get("moments", {}).get("processor", 0.0):  # the next calls find them in the cache
            work.keep(subject.name, "moments", {"tokens": found.index.tokens, "processor": took})
        for key in missing:
            recipe, kind = key.rsplit("-", 1)
            make(subject, source, recipe, kind, work, given)
            if kind == "best":
                check_same(subject, recipe, work)
    measure(subject, source, wanted, asked.tokens, work, again=asked.again)
    if asked.questions and subject.asked:
        ask(subject, source, kinds, work, again=asked.again)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(SUBJECTS))
    parser.add_argument("--recipes", type=lambda text: text.split(","), default=[])
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=list(KINDS))
    parser.add_argument("--questions", action="store_true")
    parser.add_argument("--tokens", type=int, default=4096, help="of each text that files are judged on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--source", type=Path)
    parser.add_argument("--work", type=Path, default=_PEERS / "rounding")
    parser.add_argument("--folder", type=Path, default=_PEERS / "models", help="of the models")
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    os.environ["DSR_HOME"] = str(asked.work / "home")  # moments are collected again for these figures alone
    work = Work(asked.work, asked.folder, asked.threads)
    if asked.source is not None:
        of_subject(Subject(asked.source.stem, asked.source.stem, str(asked.source), fresh=False), asked, work)
    else:
        for name in asked.models:
            of_subject(SUBJECTS[name], asked, work)
    if asked.write is not None:
        sections.replace(asked.write, _SECTION, rounding_table.section(work.read(), _COMMAND))


if __name__ == "__main__":
    main()
