"""Plays hostile texts to a vocabulary with every pre-tokenizer of the engine, in child processes with a small stack.

Usage: hostile_texts.py [MODEL] [--pre NAME...] [--count N] [--seed N] [--longest N] [--stack KIB]

Prints texts tried, handled and failed for each, and exits with 1 if one failed. A text is handled if its tokens spell
it, or if it is refused in one line.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from runtime.gguf.engine_lists import PRE_TOKENIZERS  # noqa: E402
from tests.hostile_texts import play, sentencepiece, variant  # noqa: E402

# These need a vocabulary of their own: without byte-level tokens, or with the text in small letters.
OTHER_VOCABULARIES = {"gemma4", "granite-embed-multi-311m", "sarvam-moe", "whitespace"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", type=Path, default=ROOT / "dsr" / "data" / "nano.gguf")
    parser.add_argument("--pre", nargs="+", default=sorted(PRE_TOKENIZERS - OTHER_VOCABULARIES))
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--longest", type=int, default=200_000)
    parser.add_argument("--stack", type=int, default=1024)
    asked = parser.parse_args()
    tried = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        files = {name: variant(asked.model, Path(folder) / f"{name}.gguf", pre=name) for name in asked.pre}
        files["SPM"] = sentencepiece(Path(folder) / "spm.gguf")
        for name, path in files.items():
            started = time.perf_counter()
            handled, failures = play(path, asked.seed, asked.count, asked.longest, asked.stack)
            tried, failed = tried + asked.count, failed + len(failures)
            print(
                f"{name}: {handled} of {asked.count} texts handled in {time.perf_counter() - started:.0f} s", flush=True
            )
            for failure in failures:
                print(f"  text {failure}")
    print(f"{tried} tried, {tried - failed} handled, {failed} failed")
    sys.exit(1 if failed else 0)


main()
