"""Does another version of dsr print the same JSON? One session of every command, run with both, compared.

    python tests/peers/same_json.py OLD/.venv/bin/python NEW/.venv/bin/python [--at OLD_CHECKOUT NEW_CHECKOUT]

Both run the same commands in the same order, each in a home of its own, with the embedded model. Figures that a clock
or the load of the machine decides are compared by their type; everything else must be equal. Exit code 1 and a line
for each difference otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SESSION = """
doctor
list
list --catalog
show nano
show deepseek-r1:7b
plan nano
plan
plan nano --ctx-size 4096 --kv-type q8_0
chat --temp 0 --seed 1 --threads 1 "What is 347 + 586?"
chat --temp 1 --seed 3 --vote 4 --threads 1 "What is 347 + 586?"
chat --temp 0 --seed 1 --threads 1 --no-think "What is 12 + 7?"
chat --temp 0 --seed 1 --threads 1 --draft ngram "What is 12 + 7?"
chat --temp 1 --seed 3 --threads 1 --strategy short-m --set n=4 --set m=2 "What is 12 + 7?"
chat --temp 1 --seed 3 --threads 1 --strategy deepconf --set n=8 "What is 12 + 7?"
chat --temp 1 --seed 3 --threads 1 --strategy verify "What is 12 + 7?"
chat --temp 1 --seed 3 --threads 1 --strategy monkeys --set n=3 --set check=true "What is 12 + 7?"
chat --temp 1 --seed 3 --threads 1 --strategy tree "What is 12 + 7?"
chat --temp 1 --seed 3 --threads 1 --strategy auto "What is 12 + 7?"
history
history --search 347
history 1
imatrix nano -o nano.imatrix.gguf --chunks 2 --threads 1
quantize nano q4.gguf -r q4_k_m --allow-requantize
quantize nano q2.gguf -r q2_k --imatrix nano.imatrix.gguf --allow-requantize --measure text.txt
quantize nano dry.gguf -r dq3_k_m --allow-requantize --dry-run
quantize nano small.gguf --size 6MB --allow-requantize --imatrix nano.imatrix.gguf --dry-run
quantize nano again.gguf -r q4_k_m --allow-requantize
quantize nano again.gguf -r q4_k_m --allow-requantize
quantize missing out.gguf
show q4.gguf
experts profile nano --task addsub --limit 4 --threads 1
experts profile nano --task weekday --limit 4 --threads 1
experts show nano
experts prune nano pruned.gguf --task addsub --keep 8 --allow-harm
show pruned.gguf
chat --temp 0 --seed 1 --threads 1 --experts addsub --keep 8 "What is 12 + 7?"
bench speed nano --threads 1 -p 64 -n 16 -r 1 --vote 0
bench quality q4.gguf q2.gguf --against nano --chunks 2 --threads 1
bench reason nano --limit 4 --threads 1 --strategies direct,vote:n=2 --temp 1
bench experts nano --keep 100%,50% --limit 1 --threads 1
bench all nano --recipes q4_0 --allow-requantize --limit 2 --strategies none --experts none --chunks 2 --threads 1
bench history
bench compare q4.gguf q2.gguf
bench report --out report.html
node list --nodes 127.0.0.1:1
rm nano --yes
rm nothing/here --yes
chat nothing/here hello
show missing.gguf
"""
# Decided by the clock, the load of the machine, or where the session ran.
MEASURED = re.compile(
    r"second|speed|per_|load|memory|resident|free|time|date|when|ago|latency|busy|bandwidth|disk|cost|predict|measured"
    r"|commit|version|probe|mean|error|low|high|ratio|min|max|stolen|frequency|commands?|change|uptime|room|forecast"
    r"|started|disturbed|bytes|charts|tables|machine|path|files|cache|findings"
)


def arguments_of(line: str) -> list[str]:
    import shlex

    words = shlex.split(line)
    return [*words, "--json"]


def played(python: str, checkout: Path, home: Path) -> list[tuple[str, int, Any, str]]:
    """Each command with its exit code, its JSON (its text where it is none) and what it said on stderr."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DSR_", "HF_"))}
    environment = kept | {"DSR_HOME": str(home / "dsr"), "HF_HOME": str(home / "hf"), "PYTHONPATH": str(checkout)}
    work = home / "work"
    work.mkdir(parents=True)
    (work / "text.txt").write_text("What is 12 + 7? It is 19. " * 400, encoding="utf-8")
    found = []
    for line in SESSION.strip().splitlines():
        done = subprocess.run(
            [python, "-m", "dsr", *arguments_of(line)],
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            said = json.loads(done.stdout)
        except ValueError:
            said = done.stdout
        found.append((line, done.returncode, said, done.stderr))
        print(f"  {done.returncode} {line}", file=sys.stderr)
    return found


def differences(old: Any, new: Any, at: str = "") -> Iterator[str]:
    if type(old) is not type(new) and not (isinstance(old, int | float) and isinstance(new, int | float)):
        yield f"{at}: {old!r} became {new!r}"
    elif isinstance(old, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if key not in new or key not in old:
                yield f"{at}.{key}: {'gone' if key not in new else 'new'}"
            else:
                yield from differences(old[key], new[key], f"{at}.{key}")
    elif isinstance(old, list):
        if len(old) != len(new):
            yield f"{at}: {len(old)} entries became {len(new)}"
        for number, (one, other) in enumerate(zip(old, new, strict=False)):
            yield from differences(one, other, f"{at}[{number}]")
    elif old != new and not MEASURED.search(at.lower()) and not isinstance(old, float):
        yield f"{at}: {old!r} became {new!r}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", help="the python of the older installation")
    parser.add_argument("new", help="the python of the newer one")
    parser.add_argument("--at", nargs=2, type=Path, required=True, metavar=("OLD", "NEW"), help="their checkouts")
    parser.add_argument("--keep", type=Path, help="write what both said to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # The same path for both, so that paths in the output are equal.
        runs = []
        for python, checkout in zip((options.old, options.new), options.at, strict=True):
            home = Path(folder) / "home"
            runs.append(played(python, checkout.absolute(), home))
            home.rename(Path(folder) / f"home-{len(runs)}")
    if options.keep:
        options.keep.write_text(json.dumps(runs, indent=1), encoding="utf-8")
    count = 0
    for (line, code, said, _), (_, new_code, new_said, talk) in zip(*runs, strict=True):
        found = list(differences(said, new_said))
        if code != new_code:
            found.append(f"exit code {code} became {new_code}: {talk.strip()[-300:]}")
        if not isinstance(said, dict | list) and said == "" and code == 0:
            found.append("no JSON")
        for each in found:
            print(f"dsr {line}\n    {each}")
        count += len(found)
    print(f"{len(runs[0])} commands, {count} differences")
    sys.exit(bool(count))


if __name__ == "__main__":
    main()
